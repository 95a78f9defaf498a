import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import { InterlockError } from '../../src/errors.js';
import {
  copied,
  createOnBoth,
  dump,
  linkConfig,
  purgeBinlogs,
  runLink,
  settled,
  startPair,
  unlogged,
  unrouted,
} from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';

const TABLES = [
  'CREATE TABLE parent (id INT PRIMARY KEY, code INT, n INT, UNIQUE KEY code (code))',
  `CREATE TABLE child (id INT PRIMARY KEY, parent INT, code INT, n INT, UNIQUE KEY one (parent, n),
    FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE,
    FOREIGN KEY (code) REFERENCES parent (code) ON DELETE SET NULL ON UPDATE CASCADE)`,
  `CREATE TABLE grand (child INT, seq INT, up INT, n INT, PRIMARY KEY (child, seq), KEY up (up),
    FOREIGN KEY (child) REFERENCES child (id) ON DELETE CASCADE ON UPDATE CASCADE,
    FOREIGN KEY (up) REFERENCES parent (id) ON DELETE SET NULL)`,
  `CREATE TABLE tree (id INT PRIMARY KEY, up INT, parent INT, FOREIGN KEY (up) REFERENCES tree (id) ON DELETE CASCADE,
    FOREIGN KEY (parent) REFERENCES parent (id))`,
  'CREATE TABLE alone (id INT PRIMARY KEY, parent INT, n INT, UNIQUE KEY n (n))',
];
const NAMES = ['parent', 'child', 'grand', 'tree', 'alone'];

/** Statements that may well fail on a key: then the transaction goes on without them. */
function statementOf(random: (n: number) => number): string {
  const id = random(12);
  const other = random(12);
  const statements = [
    `INSERT INTO parent VALUES (${id}, ${other}, ${random(100)})`,
    `INSERT INTO parent VALUES (${id}, NULL, ${random(100)})`,
    `REPLACE INTO parent VALUES (${id}, ${other}, ${random(100)})`,
    `DELETE FROM parent WHERE id = ${id}`,
    `DELETE FROM parent WHERE id IN (${id}, ${other})`,
    `UPDATE parent SET id = ${other}, n = n + 1 WHERE id = ${id}`,
    `UPDATE parent SET code = ${other} WHERE id = ${id}`,
    `INSERT INTO child VALUES (${random(30)}, ${id}, NULL, ${random(9)})`,
    `INSERT INTO child VALUES (${random(30)}, ${id}, ${other}, ${random(9)})`,
    `INSERT INTO child SELECT id + 12, id, code, 3 FROM parent WHERE id < ${other}`,
    `UPDATE child SET id = ${random(30)} WHERE parent = ${id}`,
    `UPDATE child SET n = n + 1 WHERE parent = ${id} ORDER BY n DESC`,
    `DELETE FROM child WHERE id = ${random(30)}`,
    `INSERT INTO grand SELECT id, ${random(5)}, ${other}, 1 FROM child WHERE parent = ${id}`,
    `UPDATE grand SET n = n + 1, seq = seq + 1 WHERE child = ${random(30)} ORDER BY seq DESC`,
    `INSERT INTO tree VALUES (${id}, ${other}, NULL), (${random(12)}, ${id}, ${random(12)})`,
    `INSERT INTO tree VALUES (${id}, ${id}, NULL)`,
    `DELETE FROM tree WHERE id IN (${id}, ${other})`,
    `UPDATE tree SET up = ${other} WHERE id = ${id}`,
    `INSERT INTO alone VALUES (${id}, ${other}, ${random(20)})`,
    `UPDATE alone SET n = ${random(20)} WHERE id = ${id}`,
    `DELETE FROM alone WHERE id = ${id}`,
    `DELETE parent, child FROM parent LEFT JOIN child ON child.parent = parent.id WHERE parent.id = ${id}`,
  ];
  return statements[random(statements.length)]!;
}

describe.each(['mysql', 'mariadb'] as const)('cascading foreign keys on %s', (flavour) => {
  let pair: Pair;
  const running: RunningLink[] = [];

  beforeAll(async () => {
    pair = await startPair(flavour);
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    await pair.stop();
  });

  const work = async (side: Side, schema: string, seed: number, transactions: number): Promise<void> => {
    let state = seed;
    const random = (n: number): number => ((state = (state * 1103515245 + 12345) % 2147483648) >> 8) % n;
    const connection = await side.pool.getConnection();
    await connection.query(`USE ${schema}`);
    for (let i = 0; i < transactions; i++) {
      // A session without checks leaves orphans, and nothing cascades there.
      await connection.query(`SET SESSION foreign_key_checks = ${random(12) === 0 ? 0 : 1}`);
      await connection.beginTransaction();
      for (let n = random(5); n >= 0; n--) await connection.query(statementOf(random)).catch(() => undefined);
      await (random(10) === 0 ? connection.rollback() : connection.commit());
    }
    connection.destroy();
  };

  it('end equal after random work, as it comes and as a backlog', async () => {
    const schema = 't_cascade';
    await createOnBoth(pair, [`CREATE DATABASE ${schema}`, `USE ${schema}`, ...TABLES]);
    const tables = Object.fromEntries(
      NAMES.map((name) => [`${schema}.${name}`, { unrouted: true as const }]),
    );
    const config = linkConfig(pair, 'a', schema, tables);
    let link = await runLink(config);
    const same = async (): Promise<void> => {
      await settled(link, pair.a);
      for (const name of NAMES) {
        expect({ name, rows: await dump(pair.b, `${schema}.${name}`) }).toEqual({
          name,
          rows: await dump(pair.a, `${schema}.${name}`),
        });
      }
    };
    for (let seed = 1; seed <= 4; seed++) {
      await work(pair.a, schema, seed, 80);
      await same();
      await link.stop();
      await initialiseLink(config, {});
      await work(pair.a, schema, seed + 100, 150);
      link = await runLink(config, null);
      await same();
    }
    running.push(link);
  });

  it('are copied from a live source, parents first, and again over what was purged', async () => {
    const schema = 't_copied';
    const names = ['child', 'grand', 'parent', 'tree'];
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `USE ${schema}`,
      'CREATE TABLE parent (id INT PRIMARY KEY, n INT)',
      'CREATE TABLE child (id INT PRIMARY KEY, parent INT, n INT, FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE)',
      'CREATE TABLE grand (id INT PRIMARY KEY, child INT, n INT, FOREIGN KEY (child) REFERENCES child (id) ON DELETE SET NULL)',
      'CREATE TABLE tree (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES tree (id) ON DELETE CASCADE)',
    ]);
    const some = (count: number, row: (i: number) => string): string =>
      Array.from({ length: count }, (_, i) => row(i)).join(',');
    const count = 1_500;
    await unlogged(pair.a, [
      `INSERT INTO ${schema}.parent VALUES ${some(count, (i) => `(${i}, 0)`)}`,
      `INSERT INTO ${schema}.child VALUES ${some(count * 3, (i) => `(${i}, ${i % count}, 0)`)}`,
      `INSERT INTO ${schema}.grand VALUES ${some(count * 3, (i) => `(${i}, ${(i * 7) % (count * 3)}, 0)`)}`,
      `INSERT INTO ${schema}.tree VALUES ${some(count, (i) => `(${i}, ${i === 0 ? 'NULL' : i - 1 - (i % 7) < 0 ? 0 : i - 1 - (i % 7)})`)}`,
    ]);
    let n = 0;
    const writes = async (): Promise<void> => {
      const [id, other] = [0, 0].map(() => 1 + Math.floor(Math.random() * (count - 1))) as [number, number];
      n++;
      for (const sql of [
        `DELETE FROM parent WHERE id = ${id}`,
        `UPDATE parent SET id = ${1_000_000 + n} WHERE id = ${other}`,
        `INSERT INTO parent VALUES (${2_000_000 + n}, 1)`,
        `INSERT INTO child VALUES (${3 * count + n}, ${2_000_000 + n}, 1)`,
        `INSERT INTO grand VALUES (${3 * count + n}, ${3 * count + n}, 1)`,
        `UPDATE child SET n = n + 1 WHERE id BETWEEN ${id} AND ${id + 5}`,
        `DELETE FROM child WHERE id = ${id * 2}`,
        `DELETE FROM tree WHERE id = ${count - 1 - (n % 200)}`,
        `INSERT INTO tree VALUES (${count + n}, ${n % 100})`,
      ])
        await pair.a.pool.query(sql.replace(/(FROM|INTO|UPDATE) /, `$1 ${schema}.`));
    };
    const tables = unrouted(schema, names);
    const config = linkConfig(pair, 'a', schema, tables, {
      conflicts: Object.fromEntries(names.map((name) => [`${schema}.${name}`, 'source-wins' as const])),
    });
    await expect(
      initialiseLink(config, { copy: true }).then(() =>
        initialiseLink(config, { resync: { tables: [`${schema}.child`] } }),
      ),
    ).rejects.toMatchObject({
      code: 'BadInput',
      message: expect.stringMatching(/t_copied\.grand, t_copied\.parent: bound to the others/) as string,
    });
    const same = async (): Promise<void> => {
      for (const name of names)
        expect({ name, rows: await dump(pair.b, `${schema}.${name}`) }).toEqual({
          name,
          rows: await dump(pair.a, `${schema}.${name}`),
        });
    };
    await initialiseLink(config, { copy: true, discardCheckpoint: true, maxRowsPerSecond: 4_000 });
    let link = await runLink(config, null);
    while (link.status().state === 'copying') await writes();
    await copied(link);
    await settled(link, pair.a);
    await same();
    await link.stop();
    for (let i = 0; i < 30; i++) await writes();
    await purgeBinlogs(pair.a);
    await initialiseLink(config, { resync: { tables: null }, maxRowsPerSecond: 4_000 });
    link = await runLink(config, null);
    while (link.status().state === 'copying') await writes();
    await copied(link);
    await settled(link, pair.a);
    await same();
    expect(link.status()).toMatchObject({ conflicts: 0, quarantined: 0 });
    expect(n).toBeGreaterThan(35);
    await link.stop();
  });

  it('are refused where the engine of the target could not do the same', async () => {
    const schema = 't_refused';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `USE ${schema}`,
      'CREATE TABLE users (id INT, region VARCHAR(20), PRIMARY KEY (id, region))',
      'CREATE TABLE orders (id INT PRIMARY KEY, user_id INT, region VARCHAR(20), FOREIGN KEY (user_id, region) REFERENCES users (id, region) ON DELETE CASCADE)',
      'CREATE TABLE items (id INT PRIMARY KEY, user_id INT, region VARCHAR(20), order_id INT, CONSTRAINT of_order FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE)',
    ]);
    const byUser = { userId: 'user_id', region: 'region' };
    const tables = {
      [`${schema}.users`]: { userId: 'id', region: 'region' },
      [`${schema}.orders`]: byUser,
      [`${schema}.items`]: byUser,
    };
    const refusal = async (overrides: Partial<ReturnType<typeof linkConfig>>): Promise<string> => {
      const error: unknown = await initialiseLink(linkConfig(pair, 'a', schema, tables, overrides), {
        from: 'now',
      }).then(
        () => undefined,
        (e: unknown) => e,
      );
      return error instanceof InterlockError ? error.message : '';
    };
    expect(await refusal({})).toContain(
      `${schema}.items: foreign key of_order cascades from ${schema}.orders, whose rows may have another owner`,
    );
    expect(await refusal({ exclude: [`${schema}.items`] })).toContain(
      `${schema}.orders: a foreign key of ${schema}.items, which the link does not carry, cascades from it`,
    );
    expect(await refusal({ exclude: [`${schema}.orders`] })).toContain(
      `${schema}.items: foreign key of_order cascades from ${schema}.orders, which the link does not carry`,
    );
    await pair.b.pool.query(`ALTER TABLE ${schema}.items DROP FOREIGN KEY of_order`);
    expect(await refusal({})).toContain(`${schema}.items: foreign keys that cascade are`);
    await pair.a.pool.query(`ALTER TABLE ${schema}.items DROP FOREIGN KEY of_order`);
    expect(await refusal({})).toBe('');
  });
});
