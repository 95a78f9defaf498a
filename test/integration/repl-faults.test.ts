import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import type { BaselineReached, LinkStatus } from '../../replicators/core/contract.js';
import { LinkHost } from '../../replicators/host/link-host.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import { answersInTime, connect } from '../../replicators/mysql/session.js';
import { startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { relay } from '../support/relay.js';
import {
  createOnBoth,
  dump,
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  until,
  writeMarker,
} from '../support/replication.js';
import type { Pair, RunningLink } from '../support/replication.js';

describe.each(['mysql', 'mariadb'] as const)('a link on %s survives', (flavour) => {
  let pair: Pair;
  let directory: string;
  const running: RunningLink[] = [];
  const programs: Program[] = [];

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-faults-'));
    pair = await startPair(flavour);
  });
  afterEach(async () => {
    await Promise.all(programs.splice(0).map((program) => program.kill('SIGKILL')));
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    await pair?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const prepare = async (schema: string): Promise<LinkConfig> => {
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.counter (id INT PRIMARY KEY, n INT NOT NULL)`,
      `CREATE TABLE ${schema}.entry (id INT PRIMARY KEY AUTO_INCREMENT, n INT NOT NULL)`,
      `INSERT INTO ${schema}.counter VALUES (1, 0)`,
    ]);
    const config = linkConfig(pair, 'a', schema, {
      [`${schema}.counter`]: { unrouted: true },
      [`${schema}.entry`]: { unrouted: true },
    });
    await initialiseLink(config, { from: 'now' });
    return config;
  };
  /** A counter that only counts right when every transaction is applied once, and rows that say which. */
  const write = async (schema: string, times: number): Promise<void> => {
    for (let i = 0; i < times; i++) {
      const connection = await pair.a.pool.getConnection();
      await connection.beginTransaction();
      await connection.query(`UPDATE ${schema}.counter SET n = n + 1 WHERE id = 1`);
      await connection.query(`INSERT INTO ${schema}.entry (n) SELECT n FROM ${schema}.counter`);
      await connection.commit();
      connection.release();
    }
  };
  const equal = async (schema: string, count: number): Promise<void> => {
    expect(await rows(pair.b, `SELECT n FROM ${schema}.counter`)).toEqual([{ n: count }]);
    for (const table of ['counter', 'entry']) {
      expect(await dump(pair.b, `${schema}.${table}`)).toEqual(await dump(pair.a, `${schema}.${table}`));
    }
  };

  const APPLIED = new Set(['after-target-commit', 'before-acknowledge', 'after-acknowledge']);
  it.each([
    'before-read',
    'after-read',
    'before-target-write',
    'before-target-commit',
    'after-target-commit',
    'before-acknowledge',
    'after-acknowledge',
  ])('kill -9 of its process at %s', async (point) => {
    const schema = `t_kill_${point.replaceAll('-', '_')}`;
    const config = await prepare(schema);
    const file = path.join(directory, `${schema}.json`);
    await writeFile(file, JSON.stringify(config));
    await write(schema, 5);
    const early = await writeMarker(pair.a);
    const first = startProgram('test/support/link-process.js', [file], {
      INTERLOCK_LINK_STOP_AT: `${point}:1`,
    });
    programs.push(first);
    await first.prints(`stopped at ${point}`);
    await write(schema, 5);
    const [row] = await rows(pair.b, `SELECT n FROM ${schema}.counter`);
    expect(Number(row!['n']) > 0).toBe(APPLIED.has(point));
    if (point === 'after-acknowledge') await first.prints(`marker ${early}`);
    else expect(first.output()).not.toContain(`marker ${early}`);
    await first.kill('SIGKILL');
    const second = startProgram('test/support/link-process.js', [file]);
    programs.push(second);
    // Said again, when nobody can know whether it was heard.
    await second.prints(`marker ${early}`);
    await write(schema, 5);
    const marker = await writeMarker(pair.a);
    await second.prints(`marker ${marker}`);
    await equal(schema, 15);
  });

  it.each([
    ['a', 'after-read'],
    ['a', 'before-target-commit'],
    ['b', 'before-target-write'],
    ['b', 'before-target-commit'],
    ['b', 'after-target-commit'],
  ] as const)('kill -9 of server %s while it is at %s', async (side, point) => {
    const schema = `t_server_${side}_${point.replaceAll('-', '_')}`;
    const config = await prepare(schema);
    const file = path.join(directory, `${schema}.json`);
    const goOn = path.join(directory, `${schema}.go`);
    await writeFile(file, JSON.stringify(config));
    await write(schema, 5);
    const link = startProgram('test/support/link-process.js', [file], {
      INTERLOCK_LINK_STOP_AT: `${point}:1:${goOn}`,
    });
    programs.push(link);
    await link.prints(`stopped at ${point}`);
    await pair[side].server.kill('SIGKILL');
    await pair[side].server.restart();
    await write(schema, 5);
    await writeFile(goOn, '');
    const marker = await writeMarker(pair.a);
    await link.prints(`marker ${marker}`);
    expect(link.output()).not.toMatch(/^ended/m);
    await equal(schema, 10);
  });

  it('a process that is paused inside its transaction, and wakes up when another has taken over', async () => {
    const schema = 't_paused';
    const config = await prepare(schema);
    const file = path.join(directory, `${schema}.json`);
    await writeFile(file, JSON.stringify(config));
    await write(schema, 3);
    // Blocked with its transaction open: it holds the checkpoint's row lock.
    const first = startProgram('test/support/link-process.js', [file], {
      INTERLOCK_LINK_STOP_AT: 'before-target-commit:1',
    });
    programs.push(first);
    await first.prints('stopped at before-target-commit');
    first.child.kill('SIGSTOP');
    const second = await runLink(config, null);
    running.push(second);
    await settled(second, pair.a);
    first.child.kill('SIGCONT');
    await write(schema, 3);
    await settled(second, pair.a);
    await equal(schema, 6);
  });

  it('a source that drops its packets', async () => {
    const schema = 't_hole';
    const proxy = await relay(pair.a.server.port);
    const plain = await prepare(schema);
    const link = await runLink({ ...plain, source: { ...plain.source, port: proxy.port } }, null);
    running.push(link);
    await write(schema, 2);
    await settled(link, pair.a);
    proxy.silence();
    await write(schema, 2);
    await until(() => link.status().lastError !== null, 'the silence is noticed', 15_000);
    expect(link.status().lastError!.message).toContain('no heartbeat');
    expect(link.status().lagMs === 0 && link.status().state === 'streaming').toBe(false);
    proxy.heal();
    await settled(link, pair.a);
    await equal(schema, 4);
    await link.stop();
    proxy.close();
  });

  it('an idle source: heartbeats keep the connection', async () => {
    const config = await prepare('t_quiet');
    const link = await runLink(config, null);
    running.push(link);
    const { generation } = link.status();
    await new Promise((resolve) => setTimeout(resolve, 8_000));
    expect(link.status()).toMatchObject({ generation, state: 'streaming', lastError: null });
  });

  it('a session that is given up: everything that was asked of it is answered', async () => {
    const { host, port, user, password } = pair.a.server;
    const connection = answersInTime(await connect({ host, port, user, password, flavour }));
    const asked = [
      connection.query({ sql: 'SELECT SLEEP(300)', timeout: 300 }),
      connection.query('SELECT 1'),
      connection.query('SELECT 2'),
    ];
    for (const one of await Promise.allSettled(asked))
      expect(one).toMatchObject({
        status: 'rejected',
        reason: { message: 'no answer in 300 ms', fatal: true },
      });
    await expect(connection.query('SELECT 3')).rejects.toMatchObject({ fatal: true });
  });

  it('a target that falls silent while a conflict is open, and one that does while nothing happens', async () => {
    const schema = 't_silent';
    const prepared = await prepare(schema);
    const proxy = await relay(pair.b.server.port);
    const conflicts = { [`${schema}.counter`]: 'quarantine' as const };
    const config = { ...prepared, conflicts, onQuarantine: 'go-on' as const };
    const link = await runLink({ ...config, target: { ...config.target, port: proxy.port } }, null);
    running.push(link);
    const survives = async (entries: number): Promise<void> => {
      const { generation } = link.status();
      proxy.silence();
      // Given up by itself: only then is the network back.
      await until(
        () => link.status().lastError !== null && link.status().state === 'starting',
        'the silence is noticed',
        100_000,
        () => JSON.stringify(link.status()),
      );
      proxy.heal();
      await pair.a.pool.query(`INSERT INTO ${schema}.entry (n) VALUES (${entries})`);
      const there = `SELECT 1 FROM ${schema}.entry WHERE n = ${entries}`;
      await until(
        async () => (await rows(pair.b, there)).length > 0,
        'it goes on',
        60_000,
        () => JSON.stringify(link.status()),
      );
      expect(link.status().generation).toBeGreaterThan(generation);
    };
    await settled(link, pair.a);
    await survives(1001);
    // From now on it asks its target every second what was decided.
    await pair.b.pool.query(`UPDATE ${schema}.counter SET n = 77`);
    await pair.a.pool.query(`UPDATE ${schema}.counter SET n = 5`);
    await until(() => link.status().quarantined === 1, 'a transaction is kept aside');
    await survives(1002);
    await survives(1003);
    proxy.close();
  }, 400_000);

  if (flavour === 'mysql')
    it('being stopped while its target does not answer; other links of its thread go on', async () => {
      const schema = 't_stop';
      const config = await prepare(schema);
      const other = await prepare(`${schema}_other`);
      const proxy = await relay(pair.b.server.port);
      const host = new LinkHost(undefined, 1);
      const start = (of: LinkConfig) => {
        const abort = new AbortController();
        const markers: string[] = [];
        let state = '';
        const onStatus = (status: LinkStatus): void => void (state = status.state);
        const onMarker = ({ markerId }: BaselineReached): void => void markers.push(markerId);
        const ended = host.run(of, { onStatus, onMarker }, abort.signal);
        ended.catch(() => undefined);
        return { ended, markers, streams: () => state === 'streaming', stop: () => abort.abort() };
      };
      const hanging = start({ ...config, target: { ...config.target, port: proxy.port } });
      const beside = start(other);
      await until(() => hanging.streams() && beside.streams(), 'both links stream');
      const taken = (): Promise<unknown> =>
        rows(pair.b, `SELECT generation FROM interlock.link_checkpoint WHERE link = '${other.link}'`);
      const before = await taken();
      proxy.silence();
      await write(schema, 3);
      hanging.stop();
      expect(await hanging.ended).toMatchObject({ state: 'streaming' });
      const marker = await writeMarker(pair.a);
      await until(() => beside.markers.includes(marker), 'the other link goes on');
      expect(await taken()).toEqual(before);
      beside.stop();
      await beside.ended;
      proxy.close();
      const link = await runLink(config, null);
      running.push(link);
      await settled(link, pair.a);
      await equal(schema, 3);
    });

  it('a restart of the source, and one of the target', async () => {
    const schema = 't_restart';
    const config = await prepare(schema);
    const link = await runLink(config, null);
    running.push(link);
    await write(schema, 3);
    await settled(link, pair.a);
    await pair.a.server.kill('SIGKILL');
    await pair.a.server.restart();
    await write(schema, 3);
    await settled(link, pair.a);
    await equal(schema, 6);
    await pair.b.server.kill('SIGKILL');
    await write(schema, 3);
    await pair.b.server.restart();
    await settled(link, pair.a);
    await equal(schema, 9);
  });
});
