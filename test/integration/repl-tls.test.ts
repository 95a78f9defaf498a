import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import { connect } from '../../replicators/mysql/session.js';
import { openPool } from '../../src/fence/connect.js';
import { FenceStore } from '../../src/fence/fence-store.js';
import {
  createOnBoth,
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  until,
  unlogged,
} from '../support/replication.js';
import type { Pair } from '../support/replication.js';

const run = promisify(execFile);
const NAME = 'mysql.interlock.test';

/** A CA, and a certificate of it for NAME. */
async function certificates(directory: string): Promise<{ ca: string; cert: string; key: string }> {
  const file = (name: string): string => path.join(directory, name);
  const openssl = async (...args: string[]): Promise<void> => void (await run('openssl', args));
  const newKey = ['-newkey', 'rsa:2048', '-nodes', '-days', '2'];
  await openssl(
    ...[
      'req',
      '-x509',
      ...newKey,
      '-subj',
      '/CN=interlock test CA',
      '-keyout',
      file('ca.key'),
      '-out',
      file('ca.pem'),
    ],
  );
  await openssl(
    ...['req', ...newKey, '-subj', `/CN=${NAME}`, '-keyout', file('server.key'), '-out', file('server.csr')],
  );
  await writeFile(file('names'), `subjectAltName=DNS:${NAME}\n`);
  await openssl(
    ...[
      'x509',
      '-req',
      '-in',
      file('server.csr'),
      '-CA',
      file('ca.pem'),
      '-CAkey',
      file('ca.key'),
      '-CAcreateserial',
    ],
    ...['-days', '2', '-extfile', file('names'), '-out', file('server.pem')],
  );
  return { ca: file('ca.pem'), cert: file('server.pem'), key: file('server.key') };
}

describe.each(['mysql', 'mariadb'] as const)('TLS to stores of %s', (flavour) => {
  let pair: Pair;
  let directory: string;
  let ca: string;
  let otherCa: string;

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-tls-'));
    const made = await certificates(directory);
    ca = made.ca;
    const other = await mkdtemp(path.join(directory, 'other-'));
    otherCa = (await certificates(other)).ca;
    pair = await startPair(flavour, flavour, [
      `--ssl-ca=${made.ca}`,
      `--ssl-cert=${made.cert}`,
      `--ssl-key=${made.key}`,
    ]);
    for (const side of [pair.a, pair.b]) {
      await unlogged(side, [
        `CREATE USER 'interlock'@'127.0.0.1' IDENTIFIED BY 'secret' REQUIRE SSL`,
        `GRANT ALL ON *.* TO 'interlock'@'127.0.0.1'`,
      ]);
    }
  });
  afterAll(async () => {
    await pair?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  /** By an account that the server lets in over TLS only. */
  const encrypted = (
    schema: string,
    tls: NonNullable<LinkConfig['source']['tls']> = { ca, serverName: NAME },
  ): LinkConfig => {
    const plain = linkConfig(pair, 'a', schema, { [`${schema}.item`]: { unrouted: true } });
    const over = (server: LinkConfig['source']): LinkConfig['source'] => ({
      ...server,
      user: 'interlock',
      password: 'secret',
      tls,
    });
    return { ...plain, source: over(plain.source), target: over(plain.target) };
  };

  it('copies and carries, every session encrypted, and holds the source back', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_tls',
      'CREATE TABLE t_tls.item (id INT PRIMARY KEY, body LONGBLOB)',
    ]);
    const { a, b } = pair;
    await a.pool.query(`INSERT INTO t_tls.item VALUES (1, 'copied')`);
    const config = encrypted('t_tls');
    await initialiseLink(config, { copy: true });
    const link = await runLink(config, null);
    try {
      await until(() => link.status().state === 'streaming', 'all is copied');
      await a.pool.query(`INSERT INTO t_tls.item VALUES (2, 'carried')`);
      await settled(link, a);
      expect(await rows(b, 'SELECT id, CAST(body AS CHAR) AS body FROM t_tls.item ORDER BY id')).toEqual([
        { id: 1, body: 'copied' },
        { id: 2, body: 'carried' },
      ]);
      // More than what may wait in memory: the stream is paused and goes on.
      for (let id = 10; id < 18; id++)
        await a.pool.query(`INSERT INTO t_tls.item VALUES (${id}, REPEAT('x', 8 * 1024 * 1024))`);
      await settled(link, a);
      expect(
        await rows(b, 'SELECT CAST(SUM(LENGTH(body)) AS CHAR) AS bytes FROM t_tls.item WHERE id >= 10'),
      ).toEqual([{ bytes: String(8 * 8 * 1024 * 1024) }]);
    } finally {
      await link.stop();
    }
  });

  it('a session without TLS, of another CA, or to another name is refused, and says why', async () => {
    const refusal = async (tls: NonNullable<LinkConfig['source']['tls']>): Promise<string> => {
      const { source } = encrypted('t_none', tls);
      const answer = await connect(source).then(
        (connection) => {
          connection.destroy();
          return 'let in';
        },
        (error: Error) => error.message,
      );
      const pool = openPool({ ...source, password: { env: 'NONE' }, control: true }, () => source.password);
      const fence = new FenceStore({ dc: 'dc-a', store: 'main', pool, flavour });
      const fenced = await fence.identity().then(
        () => 'let in',
        (error: Error) => error.message,
      );
      await pool.end();
      expect(fenced.includes('TLS')).toBe(answer.includes('TLS'));
      expect(fenced === 'let in').toBe(answer === 'let in');
      return answer;
    };
    expect(await refusal({ ca, serverName: NAME })).toBe('let in');
    expect(await refusal({ ca: otherCa, serverName: NAME })).toMatch(/TLS: .*certificate.*tls\.ca/);
    expect(await refusal({ ca, serverName: 'another.interlock.test' })).toMatch(
      /TLS: .*another\.interlock\.test.*tls\.serverName/,
    );
    await expect(
      connect(encrypted('t_none', { ca: '/nowhere/ca.pem', serverName: NAME }).source),
    ).rejects.toMatchObject({
      code: 'BadInput',
      message: expect.stringContaining('tls.ca: /nowhere/ca.pem cannot be read') as string,
    });
    const { source } = encrypted('t_none');
    const { tls: _tls, ...plain } = source;
    await expect(connect(plain)).rejects.toThrow(/Access denied|denied/);
  });
});
