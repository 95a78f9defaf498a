import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { quarantineUpdate, readConflicts, readQuarantine } from '../../replicators/mysql/records.js';
import type { QuarantineRecord } from '../../replicators/mysql/records.js';
import {
  createOnBoth,
  linkConfig,
  roomForLargeValues,
  rows,
  runLink,
  settled,
  startPair,
  unlogged,
  until,
} from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';

const MB = 1024 * 1024;

describe.each(['mysql', 'mariadb'] as const)('a target that takes smaller packets, on %s', (flavour) => {
  let pair: Pair;
  let link: RunningLink | undefined;

  beforeAll(async () => {
    pair = await startPair(flavour);
    await roomForLargeValues(pair, flavour);
  });
  afterEach(async () => {
    await link?.stop();
    link = undefined;
    await packet(64);
  });
  afterAll(async () => {
    await pair?.stop();
  });

  const packet = async (megabytes: number): Promise<void> => {
    await pair.b.pool.query(`SET GLOBAL max_allowed_packet = ${megabytes * MB}`);
  };
  const sums = (side: Side, schema: string): Promise<Record<string, unknown>[]> =>
    rows(side, `SELECT id, LENGTH(b) AS n, SHA1(b) AS b, SHA1(t) AS t FROM ${schema}.doc ORDER BY id`);
  const start = async (schema: string, overrides: Parameters<typeof linkConfig>[4] = {}): Promise<void> => {
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.doc (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT)`,
    ]);
    link = await runLink(linkConfig(pair, 'a', schema, { [`${schema}.doc`]: { unrouted: true } }, overrides));
  };

  it.each([1, 8])('carries what fits %s MB', async (megabytes) => {
    const schema = `t_fits_${megabytes}`;
    await packet(megabytes);
    await start(schema);
    const most = megabytes * MB - 1;
    await pair.a.pool.query(`INSERT INTO ${schema}.doc VALUES (1, REPEAT('y', ${most}), NULL)`);
    await pair.a.pool.query(
      `INSERT INTO ${schema}.doc VALUES (2, NULL, REPEAT(_utf8mb4 x'C3BC5C27F09F9880', ${Math.floor(most / 8)}))`,
    );
    // Neither value is a large one by itself; the row is.
    await pair.a.pool.query(
      `INSERT INTO ${schema}.doc VALUES (3, REPEAT(x'0027', ${(megabytes * MB) / 8}), REPEAT('z', ${(megabytes * MB) / 3}))`,
    );
    await settled(link!, pair.a);
    await pair.a.pool.query(`UPDATE ${schema}.doc SET b = t, t = b WHERE id < 3`);
    await settled(link!, pair.a);
    expect(await sums(pair.b, schema)).toEqual(await sums(pair.a, schema));
    expect(link!.status().generation).toBe(1);
  });

  it.each([8, 16])(
    'keeps aside what %s MB do not take, by name, and goes on with it when they do',
    async (megabytes) => {
      const schema = `t_beyond_${megabytes}`;
      await packet(megabytes);
      await start(schema);
      await pair.a.pool.query(`INSERT INTO ${schema}.doc VALUES (1, REPEAT('y', 20000000), 'x')`);
      const error = (await link!.ended) as Error;
      expect(error.message).toContain(
        `${schema}.doc: b of key (1) has 20000000 bytes, the target's max_allowed_packet is ${megabytes * MB}; SET GLOBAL max_allowed_packet`,
      );
      expect(await rows(pair.b, `SELECT COUNT(*) AS n FROM ${schema}.doc`)).toEqual([{ n: '0' }]);
      await packet(64);
      link = await runLink(link!.config, null);
      await settled(link, pair.a);
      expect(await sums(pair.b, schema)).toEqual(await sums(pair.a, schema));
    },
  );

  it('keeps aside a transaction of small values that its own record could not take whole', async () => {
    const schema = 't_record';
    await packet(1);
    await start(schema, { onQuarantine: 'go-on' });
    await pair.b.pool.query(`INSERT INTO ${schema}.doc VALUES (1, 'other', 'other')`);
    await pair.a.pool.query(
      `INSERT INTO ${schema}.doc VALUES (1, REPEAT(x'27', 300000), REPEAT('\\\\', 300000)), (2, REPEAT(x'27', 300000), 'x'), (3, 'x', REPEAT("'", 300000))`,
    );
    await settled(link!, pair.a);
    const kept = async (): Promise<QuarantineRecord> => {
      const connection = await pair.b.pool.getConnection();
      const [record] = await readQuarantine(connection, { link: link!.config.link });
      connection.release();
      return record!;
    };
    const record = await kept();
    expect(record).toMatchObject({ state: 'open', passed: true, largeRows: 3 });
    expect(record.reason).toContain('is on the target already');
    await unlogged(pair.b, [`DELETE FROM ${schema}.doc`]);
    await pair.b.pool.query(quarantineUpdate(record.id, 'open', 'retry'));
    await until(async () => (await kept()).state === 'applied', 'it is applied');
    expect(await sums(pair.b, schema)).toEqual(await sums(pair.a, schema));
  });

  it('keeps of the images of a conflict what fits: keys, small columns, and the size and hash of large ones', async () => {
    const schema = 't_images';
    await packet(16);
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.doc (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT, note VARCHAR(99))`,
      `INSERT INTO ${schema}.doc VALUES (1, REPEAT('s', 3000000), 'x', 'of the source')`,
    ]);
    await pair.b.pool.query(`UPDATE ${schema}.doc SET b = REPEAT('t', 3000000), note = 'of the target'`);
    const tables = { [`${schema}.doc`]: { unrouted: true as const } };
    const conflicts = { [`${schema}.doc`]: 'source-wins' as const };
    link = await runLink(linkConfig(pair, 'a', schema, tables, { conflicts }));
    await pair.a.pool.query(`UPDATE ${schema}.doc SET t = REPEAT('ü', 2000000)`);
    await settled(link, pair.a);
    expect(await sums(pair.b, schema)).toEqual(await sums(pair.a, schema));
    const connection = await pair.b.pool.getConnection();
    const [record] = await readConflicts(connection, { link: link.config.link });
    connection.release();
    const { images } = record!;
    expect(images.shortened).toEqual(['b', 't']);
    expect([images.before![0], images.before![3], images.current![3]]).toEqual([
      '1',
      "'of the source'",
      "'of the target'",
    ]);
    const [hash] = await rows(pair.a, `SELECT SHA2(REPEAT('t', 3000000), 256) AS h`);
    expect(images.current![1]).toContain(`(3000000 bytes, SHA-256 ${String(hash!['h'])}) x'7474`);
    expect(images.after![2]).toMatch(/^\(4000000 bytes, SHA-256 [0-9a-f]{64}\) 'üüü/);
  });

  it('keeps aside a transaction that is above max_binlog_cache_size, instead of trying for ever', async () => {
    const schema = 't_cache';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.doc (id INT PRIMARY KEY, b TEXT)`,
    ]);
    await pair.b.pool.query('SET GLOBAL binlog_cache_size = 4096');
    await pair.b.pool.query('SET GLOBAL max_binlog_cache_size = 65536');
    try {
      link = await runLink(linkConfig(pair, 'a', schema, { [`${schema}.doc`]: { unrouted: true } }));
      await pair.a.pool.query(
        `INSERT INTO ${schema}.doc VALUES ${Array.from({ length: 200 }, (_, i) => `(${i}, REPEAT('x', 2000))`).join()}`,
      );
      const error = (await link.ended) as Error;
      expect(error.message).toContain('which cannot be applied');
      expect(error.message).toContain('max_binlog_cache_size');
    } finally {
      await pair.b.pool.query('SET GLOBAL max_binlog_cache_size = 1073741824');
    }
    link = await runLink(link.config, null);
    await settled(link, pair.a);
    expect(await rows(pair.b, `SELECT COUNT(*) AS n FROM ${schema}.doc`)).toEqual([{ n: '200' }]);
  });

  it('connects anew when the limit is raised', async () => {
    const schema = 't_raised';
    await packet(8);
    await start(schema);
    await packet(64);
    await until(
      () => link!.status().generation > 1 && link!.status().state === 'streaming',
      'a new session',
      20_000,
    );
    await pair.a.pool.query(`INSERT INTO ${schema}.doc VALUES (1, REPEAT('y', 20000000), 'x')`);
    await settled(link!, pair.a);
    expect(await sums(pair.b, schema)).toEqual(await sums(pair.a, schema));
  });
});
