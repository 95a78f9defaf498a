import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { UNTOUCHED } from '../../replicators/core/verification.js';
import type { Difference, TableProgress } from '../../replicators/core/verification.js';
import { verifyTable } from '../../replicators/mysql/verify/verifier.js';
import type { VerifierOptions } from '../../replicators/mysql/verify/verifier.js';
import type { Rules } from '../../src/routing/rules.js';
import { initialRules } from '../../src/topology/derive.js';
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
} from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';
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
});
void binlogPosition;
type _Side = Side;
