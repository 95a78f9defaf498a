import type { Api } from './connection.js';
import { byTopic } from './data-api.js';
import type { PartitionRef } from './data-api.js';
import { check } from './protocol-errors.js';

export interface ProducerIdentity {
  id: bigint;
  epoch: number;
}

const NOT_ATTEMPTED = 55;

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
      r.throttle();
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
      r.throttle();
      const refused = r
        .array(() => {
          const topic = r.string();
          return r.array(() => ({ name: `${topic}-${r.int32()}`, code: r.int16() }));
        })
        .flat()
        .filter(({ code }) => code !== 0);
      // One that is refused keeps the others from being tried: theirs says nothing.
      const first = refused.find(({ code }) => code !== NOT_ATTEMPTED) ?? refused[0];
      if (first !== undefined)
        check(first.code, `adding ${first.name} to a transaction of ${transactionalId}`);
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
      r.throttle();
      check(r.int16(), `the ${commit ? 'commit' : 'abort'} of ${transactionalId}`);
    },
  };
}
