import type { Api } from './connection.js';
import { byTopic } from './data-api.js';
import type { PartitionRef } from './data-api.js';
import { check } from './protocol-errors.js';

export interface ProducerIdentity {
  id: bigint;
  epoch: number;
}

function writeInt64(value: bigint): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigInt64BE(value);
  return bytes;
}

/**
 * Takes a transactional id: what another process had open with it is undone, and nothing of it is taken from then on.
 * @param held only when it is still the one of this producer
 */
export function initProducerId(
  transactionalId: string,
  timeoutMs: number,
  held: ProducerIdentity | undefined,
): Api<ProducerIdentity> {
  return {
    key: 22,
    version: 4,
    flexible: true,
    name: 'InitProducerId',
    write: (w) =>
      void w
        .compactString(transactionalId)
        .int32(timeoutMs)
        .raw(writeInt64(held?.id ?? -1n))
        .int16(held?.epoch ?? -1)
        .tags(),
    read: (r) => {
      r.int32();
      check(r.int16(), `taking the transactional id ${transactionalId}`);
      return { id: r.take(8).readBigInt64BE(0), epoch: r.int16() };
    },
  };
}

export function addPartitions(
  transactionalId: string,
  producer: ProducerIdentity,
  partitions: readonly PartitionRef[],
): Api<void> {
  return {
    key: 24,
    version: 2,
    name: 'AddPartitionsToTxn',
    write: (w) => {
      w.string(transactionalId).raw(writeInt64(producer.id)).int16(producer.epoch);
      w.array(byTopic(partitions), ([topic, of]) => {
        w.string(topic).array(of, (p) => w.int32(p.partition));
      });
    },
    read: (r) => {
      r.int32();
      r.array(() => {
        const topic = r.string();
        r.array(() => {
          const partition = r.int32();
          check(r.int16(), `adding ${topic}-${partition} to a transaction of ${transactionalId}`);
        });
      });
    },
  };
}

export function endTransaction(
  transactionalId: string,
  producer: ProducerIdentity,
  commit: boolean,
): Api<void> {
  return {
    key: 26,
    version: 2,
    name: 'EndTxn',
    write: (w) =>
      void w.string(transactionalId).raw(writeInt64(producer.id)).int16(producer.epoch).bool(commit),
    read: (r) => {
      r.int32();
      check(r.int16(), `the ${commit ? 'commit' : 'abort'} of ${transactionalId}`);
    },
  };
}
