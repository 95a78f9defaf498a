import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Difference, TableProgress } from '../../replicators/core/verification.js';
import { verifyTable } from '../../replicators/mysql/verify/verifier.js';
import { readCatalog } from '../../replicators/mysql/catalog.js';
import { ComparedTable } from '../../replicators/mysql/verify/compared-table.js';
import { repair } from '../../replicators/mysql/verify/repair.js';
import { Side } from '../../replicators/mysql/verify/side.js';
import { TableFilter } from '../../src/topology/table-filter.js';
import type { VerifierOptions } from '../../replicators/mysql/verify/verifier.js';
import type { Rules } from '../../src/routing/rules.js';
import { initialRules } from '../../src/topology/derive.js';
import { UNTOUCHED } from '../../workflows/verification-contract.js';
import {
  binlogPosition,
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
import type { Pair, RunningLink, Side as Server } from '../support/replication.js';
import { exampleTopology } from '../support/topology.js';

describe.each(['mysql', 'mariadb'] as const)('verification on %s', (flavour) => {
  let pair: Pair;
  /** Everything of cn-east and the central unit is open at dc-a, cn-west at dc-b. */
  const rules: Rules = initialRules(exampleTopology());
  const running: RunningLink[] = [];

  beforeAll(async () => {
    pair = await startPair(flavour);
    for (const [side, dc] of [
      [pair.a, 'dc-a'],
      [pair.b, 'dc-b'],
    ] as const) {
      const units: string[] = [
        `('central:coupons','${dc === 'dc-a' ? 'open' : 'remote'}','dc-a',1,1,'',NULL,NULL)`,
      ];
      for (let bucket = 0; bucket < 1000; bucket++) {
        for (const [region, owner] of [
          ['cn-east', 'dc-a'],
          ['cn-west', 'dc-b'],
        ] as const)
          units.push(
            `('${region}/${bucket}','${owner === dc ? 'open' : 'remote'}','${owner}',1,1,'',NULL,NULL)`,
          );
      }
      await unlogged(side, [`INSERT INTO interlock.unit_state VALUES ${units.join(',')}`]);
    }
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    await pair.stop();
  });

  const mapping = { defaultRegion: 'cn-east', regions: ['cn-east', 'cn-west'], segments: {} };
  const links = async (
    schema: string,
    tables: Parameters<typeof linkConfig>[3],
  ): Promise<[RunningLink, RunningLink]> => {
    const ab = await runLink(linkConfig(pair, 'a', schema, tables, { mapping }));
    running.push(ab);
    const ba = await runLink(linkConfig(pair, 'b', schema, tables, { mapping }));
    running.push(ba);
    return [ab, ba];
  };
  const verify = async (
    table: string,
    of: readonly RunningLink[],
    options: Partial<VerifierOptions> = {},
    from: TableProgress = UNTOUCHED,
    untilMs = 60_000,
  ): Promise<TableProgress> =>
    verifyTable(
      {
        table,
        links: of.map(({ config }) => config),
        rules: async () => rules,
        linkStatus: async (link) => of.find(({ config }) => config.link === link)?.status(),
        repairs: false,
        keep: 100,
        keepLength: 400_000,
        onProgress: () => undefined,
        signal: new AbortController().signal,
        ...options,
      },
      from,
      untilMs,
    );
  const keyOf = ({ key }: Difference): string => Object.values(key).join('/');

  it('finds every kind of difference, with both images, and mends them from the owner', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_kinds',
      `CREATE TABLE t_kinds.item (region VARCHAR(20), user_id INT, n INT, note VARCHAR(40), raw VARBINARY(40), f FLOAT, d DOUBLE,
         at TIMESTAMP(6) NULL, kind ENUM('a','b'), flags SET('x','y'), doc JSON, twice INT AS (n * 2) VIRTUAL, PRIMARY KEY (region, user_id))`,
    ]);
    const [ab, ba] = await links('t_kinds', { 't_kinds.item': { userId: 'user_id', region: 'region' } });
    const { a, b } = pair;
    const insert = (region: string, from: number, count: number): string =>
      `INSERT INTO t_kinds.item (region,user_id,n,note,raw,f,d,at,kind,flags,doc) VALUES ${Array.from(
        { length: count },
        (_, i) =>
          `('${region}',${from + i},${i},'note',x'00ff',0.1,0.1,'2024-01-01 00:00:00.5','a','x','{"a":1}')`,
      ).join(',')}`;
    await a.pool.query(insert('cn-east', 1, 50));
    await b.pool.query(insert('cn-west', 1, 50));
    await settled(ab, a);
    await settled(ba, b);
    expect(await verify('t_kinds.item', [ab, ba])).toMatchObject({
      done: true,
      rows: 100,
      differing: 0,
      notComparable: null,
    });

    const plant = (set: string, user: number, region = 'cn-east'): string =>
      `UPDATE t_kinds.item SET ${set} WHERE region = '${region}' AND user_id = ${user}`;
    await unlogged(b, [
      plant('n = 99', 1),
      plant("note = 'note '", 2),
      plant("note = ''", 3),
      plant('raw = NULL', 4),
      plant("raw = x'00fe'", 5),
      plant('f = 0.10000001', 6),
      plant('d = 0.1 + 1e-17', 7),
      plant("at = '2024-01-01 00:00:00.500001'", 8),
      plant("kind = 'b'", 9),
      plant("flags = 'x,y'", 10),
      `UPDATE t_kinds.item SET doc = '{"a":2}' WHERE region = 'cn-east' AND user_id = 11`,
      "DELETE FROM t_kinds.item WHERE region = 'cn-east' AND user_id = 12",
      insert('cn-east', 1000, 1),
      plant("note = 'NOTE'", 13),
    ]);
    await unlogged(a, [plant('note = NULL', 3), plant('n = -1', 20, 'cn-west')]);
    const found = await verify('t_kinds.item', [ab, ba], { chunkRows: 7 });
    expect(found.differing).toBe(15);
    const at = (key: string): Difference => found.differences.find((one) => keyOf(one) === key)!;
    expect(found.differences.map(keyOf).sort()).toEqual(
      [...Array.from({ length: 13 }, (_, i) => `cn-east/${i + 1}`), 'cn-east/1000', 'cn-west/20'].sort(),
    );
    expect(at('cn-east/2')).toMatchObject({
      owner: 'dc-a',
      images: { 'dc-a': { note: 'note' }, 'dc-b': { note: 'note ' } },
    });
    expect(at('cn-east/3')).toMatchObject({ images: { 'dc-a': { note: null }, 'dc-b': { note: '' } } });
    expect(at('cn-east/4')).toMatchObject({ images: { 'dc-a': { raw: "x'00ff'" }, 'dc-b': { raw: null } } });
    expect(at('cn-east/9')).toMatchObject({ images: { 'dc-a': { kind: 'a' }, 'dc-b': { kind: 'b' } } });
    expect(at('cn-east/12').images['dc-b']).toBeNull();
    expect(at('cn-east/1000').images['dc-a']).toBeNull();
    expect(at('cn-west/20')).toMatchObject({
      owner: 'dc-b',
      images: { 'dc-a': { n: '-1' }, 'dc-b': { n: '19' } },
    });

    const foreign = [ab.status().rows, ba.status().rows];
    const owned = await dump(a, 't_kinds.item');
    const repaired = await verify('t_kinds.item', [ab, ba], { repairs: true, chunkRows: 7 });
    expect(repaired).toMatchObject({ differing: 15, repaired: 15, undecided: 0, done: true });
    await settled(ab, a);
    await settled(ba, b);
    expect(await dump(a, 't_kinds.item')).toEqual(await dump(b, 't_kinds.item'));
    expect((await dump(a, 't_kinds.item')).filter((row) => !owned.includes(row))).toHaveLength(1);
    expect([ab.status().rows, ba.status().rows], 'a repair is no change of its source').toEqual(foreign);
    expect([ab.status().state, ba.status().state]).toEqual(['streaming', 'streaming']);
    expect(await verify('t_kinds.item', [ab, ba])).toMatchObject({ differing: 0, done: true });
    expect(await rows(a, "SELECT id FROM interlock.marker WHERE id LIKE 'verify-%'")).toEqual([]);
  });

  it('raises no false alarm while hot rows change on both sides, and still finds what is wrong', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_hot',
      'CREATE TABLE t_hot.item (region VARCHAR(20), user_id INT, n INT NOT NULL, note VARCHAR(40), PRIMARY KEY (region, user_id))',
      'CREATE TABLE t_hot.free (id INT PRIMARY KEY, n INT NOT NULL)',
    ]);
    const [ab, ba] = await links('t_hot', {
      't_hot.item': { userId: 'user_id', region: 'region' },
      't_hot.free': { unrouted: true },
    });
    const { a, b } = pair;
    for (const [side, region] of [
      [a, 'cn-east'],
      [b, 'cn-west'],
    ] as const) {
      const list = Array.from({ length: 3000 }, (_, i) => `('${region}',${i},0,'x')`);
      await side.pool.query(`INSERT INTO t_hot.item VALUES ${list.join(',')}`);
    }
    await a.pool.query(
      `INSERT INTO t_hot.free VALUES ${Array.from({ length: 50 }, (_, i) => `(${2 * i + 1},0)`).join(',')}`,
    );
    await settled(ab, a);
    await settled(ba, b);
    let writing = true;
    let writes = 0;
    // A writer may be the victim of a deadlock (the other writers' gaps, the proof's locks), as on any server; then it tries again.
    const change = async (side: Server, sql: string, values: unknown[]): Promise<void> => {
      for (;;) {
        try {
          await side.pool.query(sql, values);
          writes++;
          return;
        } catch (error) {
          if (![1205, 1213].includes((error as { errno?: number }).errno ?? 0)) throw error;
        }
      }
    };
    const write = async (side: Server, region: string, worker: number): Promise<void> => {
      const comesAndGoes = [region, 10_000 + worker];
      for (let round = 0; writing; round++) {
        const user = (round * 7 + worker) % 8;
        await change(side, 'UPDATE t_hot.item SET n = n + 1 WHERE region = ? AND user_id = ?', [
          region,
          user,
        ]);
        await change(side, 'INSERT INTO t_hot.item VALUES (?, ?, 1, NULL)', comesAndGoes);
        await change(side, 'DELETE FROM t_hot.item WHERE region = ? AND user_id = ?', comesAndGoes);
        if (side === a)
          await change(a, 'UPDATE t_hot.free SET n = n + 1 WHERE id = ?', [2 * (round % 3) + 1]);
      }
    };
    // The link lags by fits, in every other round: what is on its way is often seen.
    let lagging = false;
    const slow = async (): Promise<void> => {
      const holder = await b.pool.getConnection();
      while (writing) {
        if (!lagging) {
          await new Promise((resolve) => setTimeout(resolve, 10));
          continue;
        }
        await holder.query('START TRANSACTION');
        await holder.query(
          "SELECT 1 FROM interlock.link_checkpoint WHERE link = 'mysql/t-hot:dc-a>dc-b' FOR UPDATE",
        );
        await new Promise((resolve) => setTimeout(resolve, 40));
        await holder.query('ROLLBACK');
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      holder.release();
    };
    const writers = [0, 1, 2].flatMap((worker) => [write(a, 'cn-east', worker), write(b, 'cn-west', worker)]);
    const slowed = slow();
    try {
      let reread = 0;
      let free = 0;
      for (let round = 0; round < 10; round++) {
        lagging = round % 2 === 1;
        const item = await verify('t_hot.item', [ab, ba], { chunkRows: 500 });
        // Undecided is a row that a busy writer keeps locked for longer than the proof waits: on a loaded machine, one now and then.
        expect(item).toMatchObject({ differing: 0, notComparable: null, done: true });
        const unowned = await verify('t_hot.free', [ab, ba]);
        expect(unowned).toMatchObject({ differing: 0, notComparable: null, done: true });
        reread += item.reread;
        free += unowned.reread;
      }
      expect([reread, free].map(Math.sign), 'chunks were caught in between').toEqual([1, 1]);
      console.log(`${flavour}: ${reread} chunks looked at again during ${writes} writes`);
      await unlogged(b, [
        "UPDATE t_hot.item SET note = 'wrong' WHERE region = 'cn-east' AND user_id IN (100, 2000)",
      ]);
      const found = await verify('t_hot.item', [ab, ba], { repairs: true });
      expect(found).toMatchObject({ differing: 2, repaired: 2 });
      expect(found.differences.map(keyOf)).toEqual(['cn-east/100', 'cn-east/2000']);
      expect(await verify('t_hot.item', [ab, ba])).toMatchObject({ differing: 0, done: true });
    } finally {
      writing = false;
      await Promise.all([...writers, slowed]);
    }
    await settled(ab, a);
    await settled(ba, b);
    expect(await dump(a, 't_hot.item')).toEqual(await dump(b, 't_hot.item'));
  });

  it('walks keys of every kind in small chunks, and misses and doubles none', async () => {
    const insensitive = flavour === 'mysql' ? 'utf8mb4_0900_ai_ci' : 'utf8mb4_general_ci';
    const keys: Record<string, { key: string; values: string[] }> = {
      big: {
        key: 'BIGINT UNSIGNED',
        values: ['0', '1', '9007199254740993', '18446744073709551615', '18446744073709551614'],
      },
      signed: { key: 'INT', values: ['-5', '-1', '0', '7', '2147483647'] },
      words: {
        key: `VARCHAR(40) COLLATE ${insensitive}`,
        values: ["'apple'", "'Banana'", "'cherry'", "'Éclair'", "'zebra'", "'a\\'b'", "'ß-x'"],
      },
      padded: {
        key: 'VARCHAR(40) CHARACTER SET latin1',
        values: ["'a'", "_latin1 x'e9'", "'b c'", "''", "'B d'"],
      },
      bytes: { key: 'VARBINARY(20)', values: ["''", "x'00'", "x'0000'", "x'ff'", "x'27'", "x'5c'"] },
      day: { key: 'DATE', values: ["'2024-02-29'", "'1999-12-31'", "'2030-01-01'"] },
      moment: {
        key: 'TIMESTAMP(3)',
        values: ["'2024-01-01 00:00:00.001'", "'2024-01-01 00:00:00.002'", "'1990-06-01 12:00:00'"],
      },
      span: { key: 'TIME(2)', values: ["'-10:00:00.50'", "'00:00:00'", "'838:59:59'"] },
      money: {
        key: 'DECIMAL(30,4)',
        values: ['-1.5', '0', '12345678901234567890.1234', '12345678901234567890.1235'],
      },
      real: { key: 'DOUBLE', values: ['-1e300', '0.1', '0.30000000000000004', '1e-300'] },
      single: { key: 'FLOAT', values: ['0.1', '0.2', '1e10', '-3.5'] },
      sort: { key: "ENUM('z','a','m')", values: ["'z'", "'a'", "'m'"] },
      flags: { key: "SET('p','q','r')", values: ["'p'", "'p,q'", "'r'", "''"] },
      bits: {
        key: 'BIT(64)',
        values: ["b'0'", "b'101'", "b'1111111111111111111111111111111111111111111111111111111111111111'"],
      },
      years: { key: 'YEAR', values: ['1999', '2024', '2100'] },
    };
    const names = Object.keys(keys);
    await createOnBoth(pair, [
      'CREATE DATABASE t_keys',
      ...names.map(
        (name) =>
          `CREATE TABLE t_keys.${name} (k ${keys[name]!.key} NOT NULL, part INT NOT NULL, v VARCHAR(20), PRIMARY KEY (k, part))`,
      ),
      ...names.map(
        (name) =>
          `INSERT INTO t_keys.${name} VALUES ${keys[name]!.values.flatMap((value) => [1, 2, 3].map((part) => `(${value},${part},'v')`)).join(',')}`,
      ),
    ]);
    const tables = Object.fromEntries(
      names.map((name) => [`t_keys.${name}`, { central: 'coupons' }] as const),
    );
    const [ab, ba] = await links('t_keys', tables);
    for (const name of names) {
      const rowCount = keys[name]!.values.length * 3;
      for (const chunkRows of [1, 2, 5]) {
        const seen = await verify(`t_keys.${name}`, [ab, ba], { chunkRows }, UNTOUCHED, 0);
        expect(seen.chunks, 'no time, no chunk').toBe(0);
        const equal = await verify(`t_keys.${name}`, [ab, ba], { chunkRows });
        expect(equal, `${name} by ${chunkRows}`).toMatchObject({
          done: true,
          rows: rowCount,
          differing: 0,
          notComparable: null,
        });
      }
      // One row in three is other, and there is one row more.
      await unlogged(pair.b, [
        `UPDATE t_keys.${name} SET v = 'w' WHERE part = 2`,
        `INSERT INTO t_keys.${name} VALUES (${keys[name]!.values[0]!},9,'v')`,
      ]);
      const found = await verify(`t_keys.${name}`, [ab, ba], { chunkRows: 2, repairs: true });
      expect(found, name).toMatchObject({
        differing: rowCount / 3 + 1,
        repaired: rowCount / 3 + 1,
        done: true,
      });
      expect(await dump(pair.b, `t_keys.${name}`), name).toEqual(await dump(pair.a, `t_keys.${name}`));
    }
    // Values of two rows that changed places: a linear checksum of both stays the same.
    await unlogged(pair.b, ['UPDATE t_keys.signed SET v = IF(part = 1, "l", "r")']);
    await unlogged(pair.a, [
      'UPDATE t_keys.signed SET v = IF(part = 1, "r", "l")',
      'DELETE FROM t_keys.signed WHERE k <> 7 OR part = 3',
    ]);
    await unlogged(pair.b, ['DELETE FROM t_keys.signed WHERE k <> 7 OR part = 3']);
    expect(await verify('t_keys.signed', [ab, ba])).toMatchObject({ rows: 2, differing: 2 });
    // One key to a case-insensitive collation, two to a binary one.
    await unlogged(pair.b, ["UPDATE t_keys.words SET k = 'APPLE' WHERE k = 'apple' AND part = 1"]);
    const found = await verify('t_keys.words', [ab, ba], { repairs: true });
    expect(found).toMatchObject({ differing: 1, repaired: 1 });
    expect(found.differences[0]!.images).toMatchObject({ 'dc-a': { k: 'apple' }, 'dc-b': { k: 'APPLE' } });
    expect(await dump(pair.b, 't_keys.words')).toEqual(await dump(pair.a, 't_keys.words'));
  });

  it('a repair writes one side only, and the owner gets nothing but markers', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_mend',
      'CREATE TABLE t_mend.item (id INT PRIMARY KEY, code VARCHAR(20) UNIQUE, n INT)',
      'CREATE TABLE t_mend.free (id INT PRIMARY KEY, n INT)',
      "INSERT INTO t_mend.item VALUES (1,'one',1),(2,'two',2),(3,'three',3)",
      'INSERT INTO t_mend.free VALUES (1,1),(2,2)',
    ]);
    const [ab, ba] = await links('t_mend', {
      't_mend.item': { central: 'coupons' },
      't_mend.free': { unrouted: true },
    });
    // Unique values that have changed places, and one that is in the way.
    await unlogged(pair.b, [
      "UPDATE t_mend.item SET code = 'x' WHERE id = 1",
      "UPDATE t_mend.item SET code = 'one' WHERE id = 2",
      "UPDATE t_mend.item SET code = 'two' WHERE id = 1",
      "UPDATE t_mend.item SET code = 'y' WHERE id = 3",
      "INSERT INTO t_mend.item VALUES (9,'three',9)",
      'UPDATE t_mend.free SET n = 20 WHERE id = 2',
    ]);
    await settled(ab, pair.a);
    const marker = ab.status().lastMarker;
    const [file, position] = (await binlogPosition(pair.a)).split(':');
    const found = await verify('t_mend.item', [ab, ba], { repairs: true });
    expect(found).toMatchObject({ differing: 4, repaired: 4 });
    expect(await dump(pair.b, 't_mend.item')).toEqual(await dump(pair.a, 't_mend.item'));
    // A switchover's baseline is read in the checkpoint: markers of a verification must not take its place.
    const kept = await rows(
      pair.b,
      "SELECT marker FROM interlock.link_checkpoint WHERE link = 'mysql/t-mend:dc-a>dc-b'",
    );
    expect(kept).toEqual([{ marker }]);
    expect(ab.markers.map(({ baseline }) => baseline.markerId)).toEqual([marker]);
    const free = await verify('t_mend.free', [ab, ba], { repairs: true });
    expect(free).toMatchObject({ differing: 1, unowned: 1, repaired: 0 });
    expect(free.differences[0]).toMatchObject({
      owner: null,
      unit: null,
      notRepaired: expect.stringContaining('nobody owns it') as string,
    });
    await settled(ab, pair.a);
    await settled(ba, pair.b);
    const events = await rows(pair.a, `SHOW BINLOG EVENTS IN '${file}' FROM ${position}`);
    const written = events
      .filter((event) => event['Event_type'] === 'Table_map')
      .map((event) => /\((.*)\)/.exec(String(event['Info']))![1]);
    expect([...new Set(written)].sort(), 'at the owner').toEqual([
      'interlock.link_checkpoint',
      'interlock.marker',
    ]);
    expect(ab.status().state).toBe('streaming');
    // The link goes on over what was mended.
    await pair.a.pool.query("UPDATE t_mend.item SET n = 10, code = 'ten' WHERE id = 1");
    await pair.a.pool.query('DELETE FROM t_mend.item WHERE id = 2');
    await settled(ab, pair.a);
    expect(await dump(pair.b, 't_mend.item')).toEqual(await dump(pair.a, 't_mend.item'));
  });

  it('a repair writes nothing when the proof has lost its lock, or the link was taken over', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_lost',
      'CREATE TABLE t_lost.item (id INT PRIMARY KEY, n INT)',
      'INSERT INTO t_lost.item VALUES (1,1)',
    ]);
    const [ab] = await links('t_lost', { 't_lost.item': { central: 'coupons' } });
    await unlogged(pair.b, ['UPDATE t_lost.item SET n = 2']);
    const [owner, target] = [new Side('dc-a', ab.config.source), new Side('dc-b', ab.config.target)];
    const catalog = await readCatalog(await owner.reader(), new TableFilter(['t_lost.item'], []));
    const table = new ComparedTable(catalog.get('t_lost.item')!);
    const [owned, other] = [owner, target].map(async (side) =>
      table.imageOf((await side.rows(table.row(['1'], false)))[0]!),
    );
    const pairs = [{ key: ['1'], owned: await owned!, other: await other! }];
    const { generation } = ab.status();
    const order = {
      ...{ table, link: ab.config.link, generation, owner: 'dc-a', target, units: ['central:coupons'] },
      stillLocked: async () => undefined,
    };
    const lost = Object.assign(new Error('the session was ended'), { fatal: true });
    await expect(repair({ ...order, stillLocked: () => Promise.reject(lost) }, pairs)).rejects.toThrow(lost);
    await settled(ab, pair.a);
    expect(await repair({ ...order, generation: generation - 1 }, pairs)).toContain('taken over');
    expect(await repair({ ...order, owner: 'dc-b' }, pairs)).toContain('does not say that dc-b owns');
    expect(await rows(pair.b, 'SELECT n FROM t_lost.item')).toEqual([{ n: 2 }]);
    // Nothing is left locked: the link goes on.
    await settled(ab, pair.a);
    expect(await repair(order, pairs)).toBeUndefined();
    expect(await rows(pair.b, 'SELECT n FROM t_lost.item')).toEqual([{ n: 1 }]);
    for (const side of [owner, target]) side.close();
  });

  it('gives up a proof whose locks come too slowly, and proves later', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_slow',
      'CREATE TABLE t_slow.item (id INT PRIMARY KEY, n INT)',
      'INSERT INTO t_slow.item VALUES (1,1),(2,1),(3,1),(4,1)',
    ]);
    const [ab, ba] = await links('t_slow', { 't_slow.item': { central: 'coupons' } });
    await unlogged(pair.b, ['UPDATE t_slow.item SET n = 2']);
    // Each row is let go just before the proof's wait for it would end by itself.
    let begun = false;
    const holders: Promise<void>[] = [];
    const hold = async (id: number): Promise<void> => {
      const holder = await pair.a.pool.getConnection();
      await holder.query('START TRANSACTION');
      await holder.query('SELECT n FROM t_slow.item WHERE id = ? FOR UPDATE', [id]);
      holders.push(
        new Promise((resolve) => setTimeout(resolve, id * 800)).then(async () => {
          await holder.query('ROLLBACK');
          holder.release();
        }),
      );
    };
    let waited: Promise<number> | undefined;
    const found = await verify('t_slow.item', [ab, ba], {
      rules: async () => {
        if (!begun) {
          for (const id of [1, 2, 3, 4]) await hold(id);
          waited = new Promise((resolve) => setTimeout(resolve, 1_000)).then(async () => {
            const from = performance.now();
            await pair.a.pool.query('UPDATE t_slow.item SET n = 3 WHERE id = 1');
            return performance.now() - from;
          });
        }
        begun = true;
        return rules;
      },
    });
    await Promise.all(holders);
    expect(await waited, 'a writer of the row that was locked first').toBeLessThan(1_600);
    expect(found).toMatchObject({ undecided: 0, done: true });
    // What was written meanwhile was carried: it is no difference any more.
    expect(found.differences.map(keyOf)).toEqual(['2', '3', '4']);
  });

  it('a link that does not stream makes a table not comparable, and is never a difference', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_down',
      'CREATE TABLE t_down.item (id INT PRIMARY KEY, n INT)',
      'INSERT INTO t_down.item VALUES (1,1)',
    ]);
    const [ab, ba] = await links('t_down', { 't_down.item': { central: 'coupons' } });
    await ab.stop();
    await pair.a.pool.query('UPDATE t_down.item SET n = 2');
    const found = await verify('t_down.item', [ab, ba]);
    expect(found).toMatchObject({ done: true, differing: 0, chunks: 0 });
    expect(found.notComparable).toMatch(/t-down:dc-a>dc-b is stopped.*replicate status/);
    // The link of the other direction carries nothing that dc-a owns.
    const other = await verify('t_down.item', [ba]);
    expect(other).toMatchObject({
      differing: 0,
      undecided: 1,
      undecidedReason: expect.stringContaining('no link carries') as string,
    });
  });

  it('leaves a row undecided while its unit is not open at its owner, or a transaction keeps it locked', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_fenced',
      'CREATE TABLE t_fenced.item (id INT PRIMARY KEY, n INT)',
      'INSERT INTO t_fenced.item VALUES (1,1),(2,2)',
    ]);
    const [ab, ba] = await links('t_fenced', { 't_fenced.item': { central: 'coupons' } });
    await unlogged(pair.b, ['UPDATE t_fenced.item SET n = 3 WHERE id = 1']);
    await unlogged(pair.a, [
      "UPDATE interlock.unit_state SET state = 'write_disabled' WHERE unit = 'central:coupons'",
    ]);
    const fenced = await verify('t_fenced.item', [ab, ba], { repairs: true });
    await unlogged(pair.a, ["UPDATE interlock.unit_state SET state = 'open' WHERE unit = 'central:coupons'"]);
    expect(fenced).toMatchObject({
      differing: 0,
      undecided: 1,
      undecidedReason: expect.stringContaining('not open at dc-a') as string,
    });
    const writer = await pair.a.pool.getConnection();
    await writer.query('START TRANSACTION');
    await writer.query('UPDATE t_fenced.item SET n = 4 WHERE id = 1');
    const locked = await verify('t_fenced.item', [ab, ba], { repairs: true });
    await writer.query('ROLLBACK');
    writer.release();
    expect(locked).toMatchObject({
      differing: 0,
      undecided: 1,
      undecidedReason: expect.stringContaining('locked') as string,
    });
    expect(await verify('t_fenced.item', [ab, ba])).toMatchObject({ differing: 1, undecided: 0 });
  });

  it('a fence waits for a proof no longer than its bound, and a scope leaves other units out', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_scope',
      'CREATE TABLE t_scope.item (region VARCHAR(20), user_id INT, n INT, PRIMARY KEY (region, user_id))',
      "INSERT INTO t_scope.item VALUES ('cn-east',1,1),('cn-east',2,1),('cn-west',1,1)",
    ]);
    const [ab, ba] = await links('t_scope', { 't_scope.item': { userId: 'user_id', region: 'region' } });
    await unlogged(pair.b, ['UPDATE t_scope.item SET n = 2']);
    const west = new Set(Array.from({ length: 1000 }, (_, i) => `cn-west/${i}`));
    const found = await verify('t_scope.item', [ab, ba], { units: west });
    expect(found.differences.map(keyOf)).toEqual(['cn-west/1']);
    // A link that stands still as soon as the proof begins: the proof gives its locks up by itself.
    const stuck = await pair.b.pool.getConnection();
    let standing = false;
    const running = verify('t_scope.item', [ab, ba], {
      rules: async () => {
        if (!standing) {
          await stuck.query('START TRANSACTION');
          await stuck.query(
            "SELECT 1 FROM interlock.link_checkpoint WHERE link = 'mysql/t-scope:dc-a>dc-b' FOR UPDATE",
          );
          standing = true;
        }
        return rules;
      },
    });
    const user = await pair.a.pool.getConnection();
    await user.query('SET innodb_lock_wait_timeout = 1');
    const locked = async (): Promise<boolean> =>
      user.query("SELECT n FROM t_scope.item WHERE region = 'cn-east' FOR UPDATE NOWAIT").then(
        () => false,
        () => true,
      );
    await until(locked, 'the proof holds its rows');
    const began = performance.now();
    for (let waited = true; waited;) {
      waited = await user.query('UPDATE t_scope.item SET n = 5 WHERE user_id = 2').then(
        () => false,
        () => true,
      );
    }
    expect(performance.now() - began).toBeLessThan(2_500);
    user.release();
    await stuck.query('ROLLBACK');
    stuck.release();
    const last = await running;
    expect(last).toMatchObject({ notComparable: null, undecided: 0 });
    expect(last.differences.map(keyOf).filter((key) => key !== 'cn-east/2')).toEqual([
      'cn-east/1',
      'cn-west/1',
    ]);
  });

  it('goes on where another process has stopped', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_resume',
      'CREATE TABLE t_resume.item (id INT PRIMARY KEY, n INT)',
    ]);
    const list = Array.from({ length: 500 }, (_, i) => `(${i},0)`).join(',');
    await createOnBoth(pair, [`INSERT INTO t_resume.item VALUES ${list}`]);
    const [ab, ba] = await links('t_resume', { 't_resume.item': { central: 'coupons' } });
    await unlogged(pair.b, ['UPDATE t_resume.item SET n = 1 WHERE id IN (3, 250, 499)']);
    const abort = new AbortController();
    const beats: TableProgress[] = [];
    const left = await verify('t_resume.item', [ab, ba], {
      chunkRows: 50,
      signal: abort.signal,
      onProgress: (now) => {
        beats.push(now);
        if (now.chunks === 2) abort.abort();
      },
    });
    expect(left).toMatchObject({ done: false, chunks: 2, differing: 1 });
    const resumed = await verify('t_resume.item', [ab, ba], { chunkRows: 50 }, structuredClone(beats.at(-1)));
    expect(resumed).toMatchObject({ done: true, rows: 500, differing: 3 });
    expect(resumed.differences.map(keyOf)).toEqual(['3', '250', '499']);
  });
});
