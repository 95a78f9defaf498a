import { createHash } from 'node:crypto';
import type { Pool } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import type { InitialiseOptions } from '../../replicators/mysql/initialise.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import {
  copied,
  createOnBoth,
  dump,
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  unlogged,
  until,
} from '../support/replication.js';
import { MYSQL_JSON, MYSQL_JSON_OPAQUE } from '../support/column-kinds.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';

const OWNED = "('cn-east/0','open','dc-a',1,1,'s',NULL,NULL)";

/** Every kind of primary key, and of value that SELECT and the binlog write differently. */
const KINDS: Record<string, string> = {
  int_key: 'id INT PRIMARY KEY, v INT',
  unsigned_key: 'id BIGINT UNSIGNED PRIMARY KEY, v INT',
  text_key: 'id VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, v INT',
  latin_key: 'id VARCHAR(40) CHARACTER SET latin1 PRIMARY KEY, v INT',
  binary_key: 'id BINARY(6) PRIMARY KEY, v INT',
  decimal_key: 'id DECIMAL(12,4) PRIMARY KEY, v INT',
  time_key: 'id DATETIME(6) PRIMARY KEY, v INT',
  enum_key: "k ENUM('b','a','c') NOT NULL, id INT NOT NULL, v INT, PRIMARY KEY (k, id)",
  composite_key: 'a VARCHAR(10) NOT NULL, b INT NOT NULL, v INT, c BIGINT NOT NULL, PRIMARY KEY (b, a, c)',
};
const VALUES = `id INT PRIMARY KEY AUTO_INCREMENT, f FLOAT, d DOUBLE, n DECIMAL(30,10), s VARCHAR(200), l VARCHAR(50) CHARACTER SET latin1,
  x VARBINARY(20), b BIT(13), e ENUM('p','q,r'), z SET('m','n','o'), j JSON, t TIMESTAMP(3) NULL, tm TIME(2), y YEAR, bl BLOB, g DECIMAL(40,10) GENERATED ALWAYS AS (n * 2) STORED`;

describe.each(['mysql', 'mariadb'] as const)('initial copy on %s', (flavour) => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await startPair(flavour);
    await pair.a.pool.query(`INSERT INTO interlock.unit_state VALUES ${OWNED}`);
  });
  afterAll(async () => {
    await pair.stop();
  });

  const unrouted = (schema: string, tables: string[]): LinkConfig['tables'] =>
    Object.fromEntries(tables.map((table) => [`${schema}.${table}`, { unrouted: true as const }]));
  const start = async (config: LinkConfig, options: InitialiseOptions): Promise<RunningLink> => {
    await initialiseLink(config, options);
    return runLink(config, null);
  };
  const compare = async (table: string): Promise<void> => {
    expect(await dump(pair.b, table)).toEqual(await dump(pair.a, table));
  };

  it.runIf(flavour === 'mysql')('documents keep the types that their text does not say', async () => {
    const schema = 'documents';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.doc (a VARCHAR(9), id INT, j JSON, k JSON, b BLOB, t TIMESTAMP(6) NULL, v VARCHAR(40) AS (j->>'$.d') VIRTUAL, PRIMARY KEY (a, id))`,
    ]);
    const kinds = [...MYSQL_JSON['JSON']!, ...MYSQL_JSON_OPAQUE['JSON']!];
    const own = [
      // Numbers that only the size tells, beside unsigned ones, which are smaller than what is read again.
      `CAST(CAST(5 AS DECIMAL(9,0)) AS JSON)`,
      `JSON_ARRAY(CAST(5 AS DECIMAL(9,0)), CAST(40000 AS UNSIGNED), CAST(40000 AS UNSIGNED))`,
      `JSON_ARRAY(CAST(0.50 AS DECIMAL(9,2)), 0.5e0, -0e0, CAST(-100.00 AS DECIMAL(9,2)), 100e0)`,
      `JSON_OBJECT('d', CAST('2024-01-02' AS DATE), 's', '2024-01-02', 'b', b, 'bs', 'base64:type252:AAE=', 't', t)`,
      `JSON_OBJECT('a."b', JSON_OBJECT('ü\\\\ "', JSON_ARRAY(JSON_ARRAY(1.5), 1.5e0, '01:02:03.000000', CAST('01:02:03' AS TIME(6)))))`,
      `JSON_ARRAY(${Array.from({ length: 300 }, (_, i) => (i % 3 === 0 ? `${i}.25` : `${i}.25e0`)).join()})`,
      `JSON_OBJECT(${Array.from({ length: 300 }, (_, i) => `'m${i}', ${i % 2 === 0 ? `${i}.1` : `${i}.1e0`}`).join()})`,
      `JSON_ARRAY(18446744073709551615, 9223372036854775808, 2147483648, 9007199254740993, x'')`,
    ];
    const { pool } = pair.a;
    const lax = await pool.getConnection();
    await lax.query("SET SESSION sql_mode = ''");
    for (const [i, json] of [...kinds, ...own].entries()) {
      await lax.query(
        `INSERT INTO ${schema}.doc (a, id, b, t) VALUES ('k', ${i}, x'0001', '2024-05-05 01:02:03.000004')`,
      );
      await lax.query(`UPDATE ${schema}.doc SET j = ${json}, k = JSON_OBJECT('n', j) WHERE id = ${i}`);
    }
    lax.destroy();
    await pool.query(`INSERT INTO ${schema}.doc (a, id) VALUES ('none', 1)`);
    const config = linkConfig(pair, 'a', schema, unrouted(schema, ['doc']));
    const running = await start(config, { copy: true });
    await copied(running);
    await compare(`${schema}.doc`);
    // The types of all values, one below another. A small integer that was unsigned is one, as in the stream.
    const leaves = `WITH RECURSIVE node AS (
        SELECT a, id, CAST('$' AS CHAR(500)) AS p, j FROM ${schema}.doc
        UNION ALL
        SELECT a, id, CONCAT(p, '[', n - 1, ']'), c FROM node, JSON_TABLE(IF(JSON_TYPE(j) = 'ARRAY', j, '[]'), '$[*]' COLUMNS (n FOR ORDINALITY, c JSON PATH '$')) t
        UNION ALL
        SELECT a, id, CONCAT(p, '.', m), JSON_EXTRACT(j, CONCAT('$.', m)) FROM node, JSON_TABLE(IF(JSON_TYPE(j) = 'OBJECT', JSON_KEYS(j), '[]'), '$[*]' COLUMNS (m JSON PATH '$')) t)
      SELECT id, p, REPLACE(JSON_TYPE(j), 'UNSIGNED ', '') AS type, MD5(CAST(j AS CHAR)) AS text FROM node`;
    const nodes = async (side: Side): Promise<string[]> =>
      (await rows(side, leaves)).map((node) => JSON.stringify(node));
    const [here, there] = [await nodes(pair.a), new Set(await nodes(pair.b))];
    expect(here.filter((node) => !there.has(node))).toEqual([]);
    expect(there.size).toBe(here.length);
    expect(new Set(here.map((node) => (JSON.parse(node) as { type: string }).type)).size).toBeGreaterThan(12);
    // The stream compares with what the copy wrote.
    await pool.query(`UPDATE ${schema}.doc SET k = NULL`);
    await settled(running, pair.a);
    await compare(`${schema}.doc`);
    expect(running.status()).toMatchObject({ conflictsRecorded: 0, quarantined: 0 });
    await running.stop();
  });

  it.runIf(flavour === 'mariadb')('copies by keys that have their own order', async () => {
    const schema = 'own_order';
    const names = ['uuid_key', 'inet6_key'];
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.uuid_key (id UUID PRIMARY KEY, a INET4)`,
      `CREATE TABLE ${schema}.inet6_key (id INET6 PRIMARY KEY, u UUID)`,
    ]);
    // Of every version: the server orders some of them by their time.
    const uuid = (i: number): string => {
      const hex = createHash('md5').update(String(i)).digest('hex');
      return `'${hex.slice(0, 8)}-${hex.slice(8, 12)}-${'13457'[i % 5]}${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 30)}${i % 3 === 0 ? '00' : hex.slice(30)}'`;
    };
    const { pool } = pair.a;
    for (const [name, row] of [
      ['uuid_key', (i: number) => `(${uuid(i)}, '1.2.${i % 256}.0')`],
      ['inet6_key', (i: number) => `('2001:db8:${(i * 7).toString(16)}::${i % 5}', ${uuid(i)})`],
    ] as const)
      await pool.query(
        `INSERT INTO ${schema}.${name} VALUES ${Array.from({ length: 6_000 }, (_, i) => row(i)).join()}`,
      );
    await unlogged(pair.b, [`INSERT INTO ${schema}.uuid_key VALUES (${uuid(1)}, '9.9.9.9')`]);
    const config = linkConfig(pair, 'a', schema, unrouted(schema, names), {
      conflicts: { [`${schema}.uuid_key`]: 'source-wins' },
    });
    const running = await start(config, { copy: true });
    await copied(running);
    for (const name of names) await compare(`${schema}.${name}`);
    expect(running.status().copy).toMatchObject({ comparedRows: 12_000 });
    // The stream compares them, too.
    await unlogged(pair.b, [`UPDATE ${schema}.uuid_key SET a = '9.9.9.9' WHERE id = ${uuid(2)}`]);
    await unlogged(pair.b, [`DELETE FROM ${schema}.uuid_key WHERE id = ${uuid(3)}`]);
    await pool.query(`UPDATE ${schema}.uuid_key SET a = '1.1.1.1' WHERE a <> '1.2.3.4'`);
    await settled(running, pair.a);
    for (const name of names) await compare(`${schema}.${name}`);
    expect(running.status()).toMatchObject({ conflictsRecorded: 2, quarantined: 0 });
    await running.stop();
  });

  it('fills an empty target with every kind of key and value', async () => {
    const schema = 'kinds';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      ...Object.entries(KINDS).map(([name, columns]) => `CREATE TABLE ${schema}.${name} (${columns})`),
      `CREATE TABLE ${schema}.value (${VALUES})`,
      `CREATE TABLE ${schema}.nothing (id INT PRIMARY KEY)`,
    ]);
    const { pool } = pair.a;
    const many = Array.from({ length: 5_000 }, (_, i) => i);
    const insert = (table: string, columns: string, row: (i: number) => string, numbers = many) =>
      pool.query(`INSERT INTO ${schema}.${table} (${columns}) VALUES ${numbers.map(row).join(',')}`);
    await insert('int_key', 'id, v', (i) => `(${i - 2_500}, ${i})`);
    await insert('unsigned_key', 'id, v', (i) => `(${18446744073709551615n - BigInt(i)}, ${i})`);
    await insert('text_key', 'id, v', (i) => `('k${i}é\\'${'\\\\'} x', ${i})`);
    await insert('latin_key', 'id, v', (i) => `('ü${i}ß', ${i})`);
    await insert('binary_key', 'id, v', (i) => `(x'${i.toString(16).padStart(8, '0')}', ${i})`);
    await insert('decimal_key', 'id, v', (i) => `(${i - 2_500}.50, ${i})`);
    await insert('time_key', 'id, v', (i) => `('2024-01-01 00:00:00.${String(i).padStart(6, '0')}', ${i})`);
    await insert('enum_key', 'k, id, v', (i) => `(${(i % 3) + 1}, ${i}, ${i})`);
    await insert('composite_key', 'a, b, v, c', (i) => `('${'xyz'[i % 3]}', ${i % 50}, ${i}, ${i})`);
    await insert(
      'value',
      'f, d, n, s, l, x, b, e, z, j, t, tm, y, bl',
      (i) =>
        i % 7 === 0
          ? '(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)'
          : `(${i}.1, ${i}e${(i % 200) - 100}, -${i}.0000000001, 'a\\n\\0${i}', 'ÿ${i}', x'00ff${i % 2 ? '00' : ''}', ${i % 8192}, ${(i % 2) + 1}, ${i % 8},
             '{"a": [1, 2.5, null, "x${i}"]}', '2024-05-05 01:02:03.${i % 1000}', '-${i % 800}:00:01.5', ${i % 2 ? 0 : 2024}, REPEAT('q', ${i % 300}))`,
      many.slice(0, 1_000),
    );
    // What Node does not take for UTF-8: MariaDB stores lone surrogates.
    if (flavour === 'mariadb')
      await pool.query(`INSERT INTO ${schema}.text_key VALUES (_utf8mb4 x'6beda080', 0)`);
    const names = [...Object.keys(KINDS), 'value', 'nothing'];
    const config = linkConfig(pair, 'a', schema, unrouted(schema, names));
    const running = await start(config, { copy: true });
    await copied(running);
    for (const name of names) await compare(`${schema}.${name}`);
    expect(running.status().copy).toMatchObject({
      tables: 11,
      tablesDone: 11,
      comparedRows: flavour === 'mariadb' ? 46_001 : 46_000,
      keptRows: 0,
    });
    // From here on it is a link like any other: strict.
    await pool.query(`UPDATE ${schema}.int_key SET v = v + 1 WHERE id < 0`);
    await settled(running, pair.a);
    await compare(`${schema}.int_key`);
    await running.stop();
  });

  it('copies under writes of every kind to the rows that it reads, and over restarts at any chunk', async () => {
    const schema = 'busy';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.entry (id INT PRIMARY KEY, k VARCHAR(20) NOT NULL, v INT NOT NULL, UNIQUE KEY (k))`,
    ]);
    const { pool } = pair.a;
    const count = 30_000;
    for (let from = 0; from < count; from += 5_000) {
      const some = Array.from({ length: 5_000 }, (_, i) => `(${(from + i) * 2}, 'k${from + i}', 0)`);
      await pool.query(`INSERT INTO ${schema}.entry VALUES ${some.join(',')}`);
    }
    let over = false;
    let writes = 0;
    const writers = Array.from({ length: 4 }, (_, w) => write(pool, w));
    const config = linkConfig(pair, 'a', schema, unrouted(schema, ['entry']));
    await initialiseLink(config, { copy: true });
    let generations = 0;
    for (let attempt = 0; ; attempt++) {
      const running = await runLink(config, null);
      generations++;
      if (attempt < 4) {
        const before = running.status().copy?.comparedRows ?? 0;
        await until(
          () =>
            running.status().state === 'streaming' ||
            (running.status().copy?.comparedRows ?? 0) > before + 2_000,
          'the copy goes on',
        );
        if (running.status().state !== 'streaming') {
          await running.stop();
          continue;
        }
      }
      await copied(running);
      over = true;
      await Promise.all(writers);
      await settled(running, pair.a);
      await running.stop();
      break;
    }
    expect(generations).toBeGreaterThan(2);
    expect(writes).toBeGreaterThan(100);
    await compare(`${schema}.entry`);

    async function write(on: Pool, w: number): Promise<void> {
      const pick = (): number => Math.floor(Math.random() * count) * 2;
      for (let i = 0; !over; i++) {
        const [id, other] = [pick(), pick()];
        const sql = [
          `UPDATE ${schema}.entry SET v = v + 1 WHERE id = ${id}`,
          `DELETE FROM ${schema}.entry WHERE id = ${id}`,
          `INSERT IGNORE INTO ${schema}.entry VALUES (${id + 1}, 'new${w}-${i}', ${i})`,
          `UPDATE IGNORE ${schema}.entry SET id = ${other + 1} WHERE id = ${id}`,
          `UPDATE ${schema}.entry SET k = CONCAT('m', ${i}, '-', id) WHERE id BETWEEN ${id} AND ${id + 40}`,
        ][i % 5]!;
        await on.query(sql).catch((error: { errno: number }) => {
          if (![1213, 1205, 1062].includes(error.errno)) throw error;
        });
        writes++;
      }
    }
  });

  const ROUTED = { userId: 'user_id', region: 'region' };
  const regions = { mapping: { defaultRegion: 'cn-east', regions: ['cn-east', 'cn-west'], segments: {} } };

  it('over two sides with rows: what the source owns is as there, the rest stays; a resync also removes', async () => {
    const schema = 'shared';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.wallet (user_id VARCHAR(10) PRIMARY KEY, region VARCHAR(10), v INT)`,
    ]);
    await unlogged(pair.a, [
      ...Array.from({ length: 1_000 }, (_, i) => i)
        .reduce<number[][]>((all, i) => {
          if (i % 500 === 0) all.push([]);
          all.at(-1)!.push(i);
          return all;
        }, [])
        .map(
          (some) =>
            `REPLACE INTO interlock.unit_state VALUES ${some
              .flatMap((i) => [
                `('cn-east/${i}','open','dc-a',1,1,'s',NULL,NULL)`,
                `('cn-west/${i}','remote','dc-b',1,1,'s',NULL,NULL)`,
              ])
              .join(',')}`,
        ),
      `INSERT INTO ${schema}.wallet VALUES ('same','cn-east',1),('differs','cn-east',2),('onlyA','cn-east',3),('westA','cn-west',4),('west','cn-west',5)`,
    ]);
    await unlogged(pair.b, [
      `INSERT INTO ${schema}.wallet VALUES ('same','cn-east',1),('differs','cn-east',99),('onlyB','cn-east',7),('west','cn-west',55),('westB','cn-west',6)`,
    ]);
    const config = linkConfig(pair, 'a', schema, { [`${schema}.wallet`]: ROUTED }, regions);
    const at = async (): Promise<string> =>
      (await rows(pair.b, `SELECT user_id, v FROM ${schema}.wallet ORDER BY 1`))
        .map((row) => `${String(row['user_id'])}=${String(row['v'])}`)
        .join(' ');
    let running = await start(config, { copy: true });
    await copied(running);
    expect(await at()).toBe('differs=2 onlyA=3 onlyB=7 same=1 west=55 westB=6');
    expect(running.status().copy).toMatchObject({
      comparedRows: 5,
      writtenRows: 2,
      keptRows: 1,
      removedRows: 0,
    });
    await running.stop();

    await unlogged(pair.b, [`UPDATE ${schema}.wallet SET v = 0 WHERE user_id = 'same'`]);
    running = await start(config, { resync: { tables: [`${schema}.wallet`] } });
    await copied(running);
    expect(await at()).toBe('differs=2 onlyA=3 same=1 west=55 westB=6');
    expect(running.status().copy).toMatchObject({ writtenRows: 1, removedRows: 1 });
    await running.stop();
  });

  it('over two sides with rows that nobody owns: by the policy of the table', async () => {
    const schema = 'merged';
    const values = (rows: [number, number, string][]): string =>
      rows.map(([id, v, t]) => `(${id}, ${v}, '${t}')`).join(',');
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      ...['late', 'source', 'kept'].map(
        (table) => `CREATE TABLE ${schema}.${table} (id INT PRIMARY KEY, v INT, t VARCHAR(9))`,
      ),
    ]);
    for (const table of ['late', 'source', 'kept']) {
      await unlogged(pair.a, [
        `INSERT INTO ${schema}.${table} VALUES ${values([
          [1, 1, 'a'],
          [2, 9, 'a'],
          [3, 5, 'a'],
          [4, 5, 'same'],
          [5, 1, 'a'],
        ])}`,
      ]);
      await unlogged(pair.b, [
        `INSERT INTO ${schema}.${table} VALUES ${values([
          [1, 9, 'b'],
          [2, 1, 'b'],
          [3, 5, 'b'],
          [4, 5, 'same'],
          [6, 1, 'b'],
          [7, 8, 'b'],
        ])}`,
      ]);
    }
    const policies: Partial<LinkConfig> = {
      conflicts: { [`${schema}.late`]: { latest: 'v' }, [`${schema}.source`]: 'source-wins' },
    };
    const tables = unrouted(schema, ['late', 'source', 'kept']);
    const ab = linkConfig(pair, 'a', schema, tables, policies);
    const running = await start(ab, { copy: true });
    await copied(running);
    const at = async (side: Side, table: string): Promise<string> =>
      (await rows(side, `SELECT * FROM ${schema}.${table} ORDER BY id`))
        .map((row) => `${String(row['id'])}${String(row['t'])}`)
        .join(' ');
    expect(await at(pair.b, 'late')).toBe('1b 2a 3a 4same 5a 6b 7b');
    expect(await at(pair.b, 'source')).toBe('1a 2a 3a 4same 5a 6b 7b');
    expect(await at(pair.b, 'kept')).toBe('1b 2b 3b 4same 5a 6b 7b');
    expect(running.status().copy).toMatchObject({ keptRows: 4 });
    // A row that was deleted with a later value than the copy would bring stays deleted.
    await pair.a.pool.query(`DELETE FROM ${schema}.late WHERE id = 2`);
    const back = await start(linkConfig(pair, 'b', schema, tables, policies), { copy: true });
    await copied(back);
    await settled(running, pair.a);
    await back.stop();
    await running.stop();
    expect(await at(pair.a, 'late')).toBe('1b 3a 4same 5a 6b 7b');
    expect(await at(pair.b, 'late')).toBe('1b 3a 4same 5a 6b 7b');
  });

  it('a binlog that is purged beyond the checkpoint is named, and a resync mends it', async () => {
    const schema = 'purged';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.entry (id INT PRIMARY KEY, v INT)`,
    ]);
    const config = linkConfig(pair, 'a', schema, unrouted(schema, ['entry']));
    let running = await start(config, { copy: true });
    await copied(running);
    await running.stop();
    await pair.a.pool.query(`INSERT INTO ${schema}.entry VALUES (1, 1), (2, 2)`);
    await pair.a.pool.query('FLUSH BINARY LOGS');
    const last = String((await rows(pair.a, 'SHOW BINARY LOGS')).at(-1)!['Log_name']);
    // A log that a dump session still reads is left: the one of the link that was stopped may not have noticed.
    await until(async () => {
      await pair.a.pool.query(`PURGE BINARY LOGS TO '${last}'`);
      return (await rows(pair.a, 'SHOW BINARY LOGS')).length === 1;
    }, 'the binlog is purged');
    const refused = await runLink(config, null);
    await until(() => refused.status().state === 'resync-required', 'the link notices');
    expect(await refused.ended).toMatchObject({
      code: 'NeedsOperator',
      message: expect.stringMatching(/replicate resync/) as string,
    });
    expect(refused.status().state).toBe('resync-required');
    running = await start(config, { resync: { tables: null } });
    await copied(running);
    await compare(`${schema}.entry`);
    await running.stop();
  });

  it('a marker is not said to be reached while rows are missing', async () => {
    const schema = 'marked';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.entry (id INT PRIMARY KEY, v INT)`,
    ]);
    const values = Array.from({ length: 20_000 }, (_, i) => `(${i}, ${i})`);
    await pair.a.pool.query(`INSERT INTO ${schema}.entry VALUES ${values.join(',')}`);
    const config = linkConfig(pair, 'a', schema, unrouted(schema, ['entry']));
    await initialiseLink(config, { copy: true, maxRowsPerSecond: 4_000 });
    const began = performance.now();
    const running = await runLink(config, null);
    expect(running.status().state).toBe('copying');
    await pair.a.pool.query(
      "INSERT INTO interlock.marker (id, workflow_id, run_id, epoch, created_at) VALUES ('early', 'switchover/test', 'run', 1, UTC_TIMESTAMP(6))",
    );
    await copied(running);
    // 20 000 rows at 4 000 a second.
    expect(performance.now() - began).toBeGreaterThan(3_000);
    expect(running.markers).toEqual([]);
    await settled(running, pair.a);
    await compare(`${schema}.entry`);
    await running.stop();
  });
});
