import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { verifyTable } from '../../replicators/mysql/verify/verifier.js';
import type { TableProgress } from '../../replicators/core/verification.js';
import { initialRules } from '../../src/topology/derive.js';
import { UNTOUCHED } from '../../workflows/verification-contract.js';
import {
  createOnBoth,
  linkConfig,
  runLink,
  settled,
  startPair,
  unlogged,
  unrouted,
} from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';
import { exampleTopology } from '../support/topology.js';

describe.each(['mysql', 'mariadb'] as const)('verification of rows that nobody owns, on %s', (flavour) => {
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

  const verify = (table: string): Promise<TableProgress> =>
    verifyTable(
      {
        table,
        links: running.map(({ config }) => config),
        rules: async () => initialRules(exampleTopology()),
        linkStatus: async (link) => running.find(({ config }) => config.link === link)?.status(),
        repairs: true,
        keep: 100,
        keepLength: 400_000,
        onProgress: () => undefined,
        signal: new AbortController().signal,
      },
      UNTOUCHED,
      60_000,
    );

  it('raises no false alarm for a row that goes to and fro, and still finds what is wrong', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_fro',
      'CREATE TABLE t_fro.flag (id INT PRIMARY KEY, n INT NOT NULL)',
      'INSERT INTO t_fro.flag VALUES (1, 0), (2, 0), (3, 0)',
    ]);
    for (const from of ['a', 'b'] as const)
      running.push(await runLink(linkConfig(pair, from, 't_fro', unrouted('t_fro', ['flag']))));
    let writing = true;
    const toggle = async (id: number): Promise<void> => {
      const side = id === 1 ? pair.a : pair.b;
      while (writing) {
        try {
          await side.pool.query('UPDATE t_fro.flag SET n = 1 - n WHERE id = ?', [id]);
        } catch (error) {
          // The proof's lock is in the way now and then, as on any server.
          if (![1205, 1213].includes((error as { errno?: number }).errno ?? 0)) throw error;
        }
      }
    };
    // The links lag by fits: what is on its way is often seen.
    const slow = async (side: Side, link: string): Promise<void> => {
      const holder = await side.pool.getConnection();
      while (writing) {
        await holder.query('START TRANSACTION');
        await holder.query('SELECT 1 FROM interlock.link_checkpoint WHERE link = ? FOR UPDATE', [link]);
        await new Promise((resolve) => setTimeout(resolve, 20));
        await holder.query('ROLLBACK');
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      holder.release();
    };
    const writers = [
      ...[toggle(1), toggle(2)],
      ...[slow(pair.b, running[0]!.config.link), slow(pair.a, running[1]!.config.link)],
    ];
    try {
      let reread = 0;
      for (let round = 0; round < 100; round++) {
        const found = await verify('t_fro.flag');
        expect(found).toMatchObject({ differing: 0, notComparable: null, done: true });
        reread += found.reread;
      }
      console.log(`${flavour}: ${reread} looked at again`);
      expect(reread, 'chunks were caught in between').toBeGreaterThan(0);
      await unlogged(pair.b, ['UPDATE t_fro.flag SET n = 7 WHERE id = 3']);
      expect(await verify('t_fro.flag')).toMatchObject({
        differing: 1,
        repaired: 0,
        differences: [{ key: { id: '3' }, owner: null, images: { 'dc-a': { n: '0' }, 'dc-b': { n: '7' } } }],
      });
    } finally {
      writing = false;
      await Promise.all(writers);
    }
    await settled(running[0]!, pair.a);
    await settled(running[1]!, pair.b);
  });
});
