import { expect, it } from 'vitest';
import { Writer } from '../../replicators/kafka/client/bytes.js';
import type { Cluster } from '../../replicators/kafka/client/cluster.js';
import type { Api } from '../../replicators/kafka/client/connection.js';
import type { FetchAnswer } from '../../replicators/kafka/client/data-api.js';
import { Fetcher } from '../../replicators/kafka/fetcher.js';
import { SourcePartition } from '../../replicators/kafka/source-partition.js';

interface Asked {
  version: number;
  maxWaitMs: number;
  sessionEpoch: number;
}

const ID = Buffer.alloc(16, 1).toString('base64url');

/** What a fetcher of so many partitions asks, up to the last answer; each answer is whether there are records. */
async function asked(
  count: number,
  answers: readonly boolean[],
  topicId: string | null = ID,
): Promise<Asked[]> {
  const found: Asked[] = [];
  const end = new AbortController();
  const call = (api: Api<FetchAnswer>): Promise<FetchAnswer> => {
    const writer = new Writer();
    api.write(writer);
    const bytes = writer.done();
    found.push({
      version: api.version,
      maxWaitMs: bytes.readInt32BE(4),
      sessionEpoch: bytes.readInt32BE(21),
    });
    const hasRecords = answers[found.length - 1]!;
    if (found.length === answers.length) end.abort();
    const partition = {
      ...{ topic: 't', partition: 0, error: 0, highWatermark: 1, lastStableOffset: 1, logStartOffset: 0 },
      ...{ aborted: [], records: Buffer.alloc(hasRecords ? 1 : 0) },
    };
    return Promise.resolve({ error: 0, sessionId: 7, partitions: [partition] });
  };
  const cluster = { broker: () => Promise.resolve({ call }) } as unknown as Cluster;
  const fetcher = new Fetcher(cluster, 1, {
    onFetched: () => undefined,
    room: () => Promise.resolve(),
  });
  const partitions = Array.from({ length: count }, (_, i) =>
    Object.assign(new SourcePartition('dc-a', 't', i, 'dc-a.t', { offset: 0, leaderEpoch: -1 }), { topicId }),
  );
  fetcher.setPartitions(partitions);
  await fetcher.run(end.signal);
  return found;
}

it('waits at the broker of a few partitions, in a session', async () => {
  expect(await asked(8, [true, true, false])).toEqual([
    { version: 13, maxWaitMs: 500, sessionEpoch: 0 },
    { version: 13, maxWaitMs: 500, sessionEpoch: 1 },
    { version: 13, maxWaitMs: 500, sessionEpoch: 2 },
  ]);
});

it('of many, waits at the broker only while nothing comes', async () => {
  const waits = (await asked(201, [false, true, true, false, false])).map(({ maxWaitMs }) => maxWaitMs);
  expect(waits).toEqual([500, 500, 0, 0, 500]);
});

it('names topics to a broker that gives them no ids', async () => {
  expect((await asked(1, [true], null))[0]).toMatchObject({ version: 11 });
});
