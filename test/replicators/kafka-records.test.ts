import { describe, expect, it } from 'vitest';
import { Reader, Writer } from '../../replicators/kafka/client/bytes.js';
import type { Cluster } from '../../replicators/kafka/client/cluster.js';
import { crc32c } from '../../replicators/kafka/client/crc32c.js';
import { BatchBuilder, RecordCursor, readBatches } from '../../replicators/kafka/client/record-batch.js';
import { requireSameHistory } from '../../replicators/kafka/lineage.js';
import type { KafkaLinkConfig } from '../../replicators/kafka/link-config.js';
import { OffsetIndex } from '../../replicators/kafka/offset-index.js';
import { ORIGIN_KEY, OriginHeader, parseOrigin } from '../../replicators/kafka/origin.js';
import { SourcePartition } from '../../replicators/kafka/source-partition.js';
import { TopicFilter } from '../../replicators/kafka/topic-filter.js';

const identity = { producerId: 7n, producerEpoch: 1, baseSequence: 0 };

/** A batch as a broker gives it: at an offset, of a producer, perhaps a control batch. */
function at(offset: number, builder: BatchBuilder, producerId = 7n, control = false): Buffer {
  const batch = Buffer.from(builder.finish({ ...identity, producerId }));
  batch.writeInt32BE(offset, 4);
  if (control) batch.writeInt16BE(0x30, 21);
  batch.writeUInt32BE(crc32c(batch, 21, batch.length), 17);
  return batch;
}

function record(value: string, timestamp = 1000): BatchBuilder {
  const builder = new BatchBuilder(64);
  builder.add(timestamp, null, Buffer.from(value));
  return builder;
}

/** What ends a transaction of a producer. */
function marker(commit: boolean): BatchBuilder {
  const builder = new BatchBuilder(64);
  builder.add(1000, Buffer.from([0, 0, 0, commit ? 1 : 0]), Buffer.alloc(6));
  return builder;
}

describe('record batches', () => {
  it('have the checksum of the standard', () => {
    const bytes = Buffer.from('123456789');
    expect(crc32c(bytes, 0, 9)).toBe(0xe3069283);
    expect(crc32c(Buffer.from('xx123456789yy'), 2, 11)).toBe(0xe3069283);
  });

  it('are read as they were written, with the header of their origin', () => {
    const builder = new BatchBuilder(64);
    const rows: [number, Buffer | null, Buffer | null][] = [
      [1_700_000_000_000, null, Buffer.alloc(0)],
      [1_699_999_999_999, Buffer.alloc(0), null],
      [4_102_444_800_000, Buffer.from('key'), Buffer.alloc(5000, 'v')],
      [0, Buffer.alloc(300, 'k'), Buffer.from('x')],
      [-1, null, Buffer.from('no time')],
    ];
    for (const row of rows) builder.add(...row);
    const [source] = readBatches(at(1000, builder), 't');
    const copy = new BatchBuilder(64);
    const cursor = new RecordCursor();
    const origin = new OriginHeader('dc-a', 'orders', 3);
    cursor.open(source!);
    while (cursor.next()) {
      origin.set(cursor.offset);
      copy.copy(cursor, origin.bytes, origin.length);
    }
    const [copied] = readBatches(copy.finish(identity), 't');
    cursor.open(copied!);
    for (const [i, [timestamp, key, value]] of rows.entries()) {
      expect(cursor.next()).toBe(true);
      expect([cursor.timestamp, cursor.key(), cursor.value()]).toEqual([timestamp, key, value]);
      expect(parseOrigin(cursor.header(ORIGIN_KEY))).toEqual({
        ...{ dc: 'dc-a', topic: 'orders', partition: 3, offset: 1000 + i },
      });
    }
    expect(cursor.next()).toBe(false);
  });

  it('that came damaged are refused, and one that is cut at the end is left out', () => {
    const whole = at(0, record('one'));
    const damaged = Buffer.from(whole);
    damaged[damaged.length - 2]! ^= 1;
    expect(() => readBatches(damaged, 't')).toThrow(/damaged/);
    expect(readBatches(Buffer.concat([whole, whole.subarray(0, 40)]), 't')).toHaveLength(1);
  });

  it('have an origin whose length is written in as few bytes as it needs', () => {
    const header = new OriginHeader('dc-a', 't'.repeat(53), 0);
    for (const offset of [0, 9, 10, 99, 100, 2 ** 31, 2 ** 52, 5]) {
      header.set(offset);
      const reader = new Reader(header.bytes.subarray(0, header.length));
      expect(reader.take(reader.uvarint() / 2)).toEqual(ORIGIN_KEY);
      const before = reader.at;
      const length = reader.uvarint() / 2;
      expect(reader.at - before).toBe(length < 64 ? 1 : 2);
      expect(parseOrigin(reader.take(length))?.offset).toBe(offset);
      expect(reader.left).toBe(0);
    }
  });

  it('and what else the protocol has keeps numbers that do not fit 32 bits', () => {
    for (const value of [0, -1, -2, 2 ** 31, -(2 ** 31) - 1, 2 ** 52 + 1]) {
      expect(new Reader(new Writer().int64(value).done()).int64()).toBe(value);
    }
    for (const value of [0, 127, 128, 2 ** 21, 2 ** 31 + 5])
      expect(new Reader(new Writer().uvarint(value).done()).uvarint()).toBe(value);
  });
});

describe('a partition of the source', () => {
  const fetched = (records: Buffer[], aborted: { producerId: bigint; firstOffset: number }[] = []) => ({
    ...{ topic: 't', partition: 0, error: 0, highWatermark: 100, lastStableOffset: 100, logStartOffset: 0 },
    aborted,
    records: Buffer.concat(records),
  });
  const partition = () => new SourcePartition('dc-a', 't', 0, 'dc-a.t', { offset: 0, leaderEpoch: -1 });

  it('holds back what belongs to a transaction whose end it has not seen', () => {
    const source = partition();
    source.take(fetched([at(0, record('a'), 1n), at(1, record('b'), 2n), at(2, marker(true), 1n, true)]), 0);
    expect([source.takeable(true), source.takeable(false)]).toEqual([0, 3]);
    source.take(fetched([at(3, record('c'), 2n), at(4, marker(true), 2n, true), at(5, record('d'), 3n)]), 0);
    expect(source.takeable(true)).toBe(5);
    expect(source.toNextClosed()).toBe(5);
    // So few bytes that one fits; then it cannot end where it is closed.
    expect(source.shift(5, 1)).toHaveLength(1);
  });

  it('leaves out what was undone, and its markers, and goes on behind them', () => {
    const source = partition();
    const undone = [{ producerId: 1n, firstOffset: 0 }];
    source.take(
      fetched([at(0, record('a'), 1n), at(1, marker(false), 1n, true), at(2, record('b'), 1n)], undone),
      0,
    );
    expect(source.queue.map(({ batch, next }) => [batch === null, next])).toEqual([
      [true, 1],
      [true, 2],
      [false, 3],
    ]);
  });

  it('is not misled by an answer that begins before what it has', () => {
    const source = partition();
    const undone = [{ producerId: 1n, firstOffset: 0 }];
    const log = [at(0, record('a'), 1n), at(1, marker(false), 1n, true), at(2, record('b'), 1n)];
    source.take(fetched(log.slice(0, 2), undone), 0);
    source.take(fetched(log, undone), 0);
    expect(source.queue.map(({ batch, next }) => [batch === null, next])).toEqual([
      [true, 1],
      [true, 2],
      [false, 3],
    ]);
  });

  it('waits for no transaction whose end was removed with a gap', () => {
    const source = partition();
    source.take(fetched([at(0, record('a'), 1n)]), 0);
    source.passGap(10, 0);
    source.take(fetched([at(10, record('b'), 2n), at(11, marker(true), 2n, true)]), 0);
    expect(source.takeable(true)).toBe(4);
  });

  it.each([
    ['does not know the epoch of what was copied', -1, -1],
    ['knows an earlier one only', 1, 30],
    ['has less of it', 2, 9],
  ])('has another history where its leader %s', async (_how, leaderEpoch, offset) => {
    const copied = Object.assign(partition(), { position: 10, positionEpoch: 2, leader: 1 });
    const answer = { topic: 't', partition: 0, error: 0, leaderEpoch, offset };
    const source = { call: () => Promise.resolve([answer]) } as unknown as Cluster;
    const config = { link: 'kafka/x:dc-a>dc-b', from: 'dc-a' } as KafkaLinkConfig;
    await expect(requireSameHistory(config, source, [copied])).rejects.toMatchObject({
      details: { state: 'diverged' },
    });
    Object.assign(answer, { leaderEpoch: 2, offset: 10 });
    await requireSameHistory(config, source, [copied]);
  });
});

describe('the index of a copy', () => {
  it('finds where a position is, where the originals have no gaps', () => {
    const index = new OffsetIndex();
    index.add({ first: 100, last: 109, base: 50, count: 10 });
    index.add({ first: 120, last: 129, base: 61, count: 5 });
    index.add({ first: 140, last: 140, base: 70, count: 1 });
    const found = [100, 101, 110, 115, 120, 121, 130, 140, 141, 999].map((offset) => index.find(offset));
    expect(found).toEqual([undefined, 51, 60, 60, 60, undefined, 66, 66, 71, 71]);
  });
});

describe('the topics of a link', () => {
  it('are those of its patterns, without our own and without copies of the target', () => {
    const filter = new TopicFilter({
      from: 'dc-a',
      to: 'dc-b',
      include: ['orders*', 'dc-*'],
      exclude: ['*.tmp'],
    });
    const carried = [
      'orders',
      'orders.x',
      'orders.tmp',
      'dc-b.orders',
      'dc-c.x',
      'interlock.markers',
      '__x',
      'other',
    ];
    expect(carried.filter((topic) => filter.carries(topic))).toEqual(['orders', 'orders.x', 'dc-c.x']);
    expect(filter.copyOf('orders')).toBe('dc-a.orders');
    const same = new TopicFilter({
      from: 'dc-a',
      to: 'dc-b',
      include: ['*'],
      exclude: [],
      naming: '{topic}',
    });
    expect([same.copyOf('orders'), same.carries('dc-b.orders')]).toEqual(['orders', true]);
  });
});
