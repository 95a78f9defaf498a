import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import { InterlockError } from '../../src/errors.js';
import { createOnBoth, dump, linkConfig, runLink, settled, startPair } from '../support/replication.js';
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
