import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, it } from 'vitest';
import { Backlog } from '../../replicators/mysql/backlog.js';
import { newTransaction } from '../../replicators/mysql/transaction.js';

const LIMITS = { rows: 1, bytes: 1, transactions: 1 };

function emptyBacklog(): Backlog {
  return new Backlog({
    tableOf: () => {
      throw new Error('no table is asked for');
    },
    standsAlone: () => true,
  });
}

it('gives transactions in their order, one after the other, and none twice', () => {
  const backlog = emptyBacklog();
  const ids: string[] = [];
  let pushed = 0;
  // More than are taken out at once.
  for (let round = 0; round < 30; round++) {
    for (let i = 0; i < 1000; i++) {
      const transaction = newTransaction(`t:${++pushed}`, 0);
      transaction.markers.push({ id: 'm', workflowId: 'w', runId: 'r' });
      backlog.push(transaction);
    }
    for (let i = 0; i < 900; i++) {
      const work = backlog.gather(LIMITS);
      ids.push(...backlog.of(work).map(({ gtid }) => gtid));
      backlog.take(work);
    }
  }
  expect(ids).toEqual(Array.from({ length: 27_000 }, (_, i) => `t:${i + 1}`));
  expect(backlog.oldest?.gtid).toBe('t:27001');
  expect([...backlog.all()]).toHaveLength(3000);
});

it('keeps nothing of what is done', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const backlog = emptyBacklog();
  const done: WeakRef<object>[] = [];
  for (let i = 0; i < 3; i++) {
    const transaction = newTransaction(`t:${i}`, 0);
    transaction.markers.push({ id: 'm', workflowId: 'w', runId: 'r' });
    backlog.push(transaction);
    if (i < 2) done.push(new WeakRef(transaction));
  }
  for (let i = 0; i < 2; i++) backlog.take(backlog.gather(LIMITS));
  await new Promise((resolve) => setImmediate(resolve));
  collect();
  expect(done.map((one) => one.deref())).toEqual([undefined, undefined]);
  expect(backlog.oldest?.gtid).toBe('t:2');
});
