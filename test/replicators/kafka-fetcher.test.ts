import { expect, it } from 'vitest';
import { Reader, Writer } from '../../replicators/kafka/client/bytes.js';
import type { Cluster } from '../../replicators/kafka/client/cluster.js';
import type { Api } from '../../replicators/kafka/client/connection.js';
import type { FetchAnswer } from '../../replicators/kafka/client/data-api.js';
import { Fetcher } from '../../replicators/kafka/fetcher.js';
import { SourcePartition } from '../../replicators/kafka/source-partition.js';

interface Asked {
  version: number;
  maxWaitMs: number;
  sessionEpoch: number;
  /** Partitions of the one topic. */
  partitions: number[];
  forgotten: number[];
}

const ID = Buffer.alloc(16, 1).toString('base64url');
const SESSION_UNKNOWN = 70;

function read(api: Api<FetchAnswer>): Asked {
  const writer = new Writer();
  api.write(writer);
  const reader = new Reader(writer.done());
  reader.take(4);
  const maxWaitMs = reader.int32();
  reader.take(13);
  const sessionEpoch = reader.int32();
  const { version } = api;
  if (version < 13) {
    const named = (rest: number): number[] =>
      reader
        .array(() => {
          expect(reader.string()).toBe('t');
          return reader.array(() => {
            const partition = reader.int32();
            reader.take(rest);
            return partition;
          });
        })
        .flat();
    return { version, maxWaitMs, sessionEpoch, partitions: named(24), forgotten: named(0) };
  }
  const listed = (rest: () => void): number[] =>
    reader
      .compactArray(() => {
        expect(reader.take(16).toString('base64url')).toBe(ID);
        const of = reader.compactArray(() => {
          const partition = reader.int32();
          rest();
          return partition;
        });
        reader.tags();
        return of;
      })
      .flat();
  const partitions = listed(() => {
    reader.take(28);
    reader.tags();
  });
  return { version, maxWaitMs, sessionEpoch, partitions, forgotten: listed(() => undefined) };
}

interface Made {
  fetcher: Fetcher;
  partitions: SourcePartition[];
}

/** What a fetcher of so many partitions asks, up to the last answer; each answer is whether there are records, or an error. */
async function asked(
  count: number,
  answers: readonly (boolean | number)[],
  { topicId = ID, before }: { topicId?: string | null; before?: (question: number, made: Made) => void } = {},
): Promise<Asked[]> {
  const found: Asked[] = [];
  const end = new AbortController();
  const call = (api: Api<FetchAnswer>): Promise<FetchAnswer> => {
    found.push(read(api));
    const answer = answers[found.length - 1]!;
    if (found.length === answers.length) end.abort();
    const partition = {
      ...{ topic: 't', partition: 0, error: 0, highWatermark: 1, lastStableOffset: 1, logStartOffset: 0 },
      ...{ aborted: [], records: Buffer.alloc(answer === true ? 1 : 0) },
    };
    const error = typeof answer === 'number' ? answer : 0;
    return Promise.resolve({ error, sessionId: 7, partitions: error === 0 ? [partition] : [] });
  };
  const cluster = { broker: () => Promise.resolve({ call }) } as unknown as Cluster;
  const fetcher: Fetcher = new Fetcher(cluster, 1, {
    onFetched: () => undefined,
    room: () => {
      before?.(found.length, { fetcher, partitions });
      return Promise.resolve();
    },
  });
  const partitions = Array.from({ length: count }, (_, i) =>
    Object.assign(new SourcePartition('dc-a', 't', i, 'dc-a.t', { offset: 0, leaderEpoch: -1 }), { topicId }),
  );
  fetcher.setPartitions(partitions);
  await fetcher.run(end.signal);
  return found;
}

it('waits at the broker of a few partitions, in a session', async () => {
  expect(await asked(3, [true, true, false])).toEqual([
    { version: 13, maxWaitMs: 500, sessionEpoch: 0, partitions: [1, 2, 0], forgotten: [] },
    { version: 13, maxWaitMs: 500, sessionEpoch: 1, partitions: [], forgotten: [] },
    { version: 13, maxWaitMs: 500, sessionEpoch: 2, partitions: [], forgotten: [] },
  ]);
});

it('of many, waits at the broker only while nothing comes', async () => {
  const waits = (await asked(201, [false, true, true, false, false])).map(({ maxWaitMs }) => maxWaitMs);
  expect(waits).toEqual([500, 500, 0, 0, 500]);
});

it('says all anew when the broker has evicted the session, and begins with another one', async () => {
  const found = await asked(3, [true, SESSION_UNKNOWN, true]);
  expect(found.map(({ sessionEpoch, partitions }) => [sessionEpoch, partitions])).toEqual([
    [0, [1, 2, 0]],
    [1, []],
    [0, [2, 0, 1]],
  ]);
});

it.each([
  ['by topic ids', ID],
  ['by names, to a broker that has no ids', null],
])(
  'has the broker forget what it does not lead any more, and not what has come back: %s',
  async (_how, topicId) => {
    const found = await asked(3, [true, true, true], {
      topicId,
      before: (question, { fetcher, partitions }) => {
        if (question === 1) fetcher.setPartitions(partitions.slice(0, 1));
        if (question === 1) fetcher.setPartitions(partitions.slice(0, 2));
      },
    });
    expect(found.map(({ partitions, forgotten }) => [partitions, forgotten])).toEqual([
      [[1, 2, 0], []],
      [[1], [2]],
      [[], []],
    ]);
  },
);

it('names topics to a broker that gives them no ids, also when that shows later', async () => {
  expect((await asked(1, [true], { topicId: null }))[0]).toMatchObject({ version: 11, sessionEpoch: 0 });
  const found = await asked(1, [true, true], {
    before: (question, { fetcher, partitions }) => {
      if (question !== 1) return;
      Object.assign(partitions[0]!, { topicId: null });
      fetcher.setPartitions(partitions);
    },
  });
  expect(found.map(({ version, sessionEpoch }) => [version, sessionEpoch])).toEqual([
    [13, 0],
    [11, 0],
  ]);
});

it('gives nothing of an answer that comes when it has ended', async () => {
  const given: number[] = [];
  const end = new AbortController();
  const call = (): Promise<FetchAnswer> => {
    end.abort();
    const partition = {
      ...{ topic: 't', partition: 0, error: 0, highWatermark: 1, lastStableOffset: 1, logStartOffset: 0 },
      ...{ aborted: [], records: Buffer.alloc(1) },
    };
    return Promise.resolve({ error: 0, sessionId: 7, partitions: [partition] });
  };
  const cluster = { broker: () => Promise.resolve({ call }) } as unknown as Cluster;
  const fetcher = new Fetcher(cluster, 1, {
    onFetched: ({ partition }) => void given.push(partition),
    room: () => Promise.resolve(),
  });
  fetcher.setPartitions([new SourcePartition('dc-a', 't', 0, 'dc-a.t', { offset: 0, leaderEpoch: -1 })]);
  await fetcher.run(end.signal);
  expect(given).toEqual([]);
});
