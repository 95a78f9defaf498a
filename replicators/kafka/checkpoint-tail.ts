import { CHECKPOINTS } from './checkpoint.js';
import type { LinkRecord, PartitionPosition } from './checkpoint.js';
import type { Cluster } from './client/cluster.js';
import { fetch, listOffsets } from './client/data-api.js';
import { check } from './client/protocol-errors.js';
import { RecordCursor, readBatches } from './client/record-batch.js';
import { CommittedOnly } from './committed-only.js';

interface TailedCheckpoint {
  about: LinkRecord | undefined;
  /** `topic-partition` of the source → the next offset to be read. */
  positions: Map<string, number>;
}

const FETCH_BYTES = 2 ** 22;

/**
 * What links have committed last, read on from where the last look ended: a switchover looks often, and has no time. What an open transaction
 * hides is not committed, and not waited for.
 */
export class CheckpointTail {
  private readonly offsets = new Map<number, number>();
  private readonly links = new Map<string, TailedCheckpoint>();
  private readonly looking = new Map<number, Promise<void>>();

  constructor(private readonly cluster: Cluster) {}

  /** @returns undefined: the link was never started into this cluster */
  async read(link: string, partition: number): Promise<TailedCheckpoint | undefined> {
    // One at a time: each goes on where the other ended.
    const before = this.looking.get(partition) ?? Promise.resolve();
    const look = before.catch(() => undefined).then(() => this.look(partition));
    this.looking.set(partition, look);
    await look;
    const found = this.links.get(link);
    // A link without a record of its own is one that was forgotten.
    return found?.about === undefined ? undefined : found;
  }

  private async look(partition: number): Promise<void> {
    const topic = (await this.cluster.metadata([CHECKPOINTS])).topics[0];
    const leader = topic?.partitions.find((p) => p.partition === partition)?.leader;
    // No link was ever started into this cluster.
    if (topic === undefined || topic.error !== 0 || leader === undefined) return;
    const ref = { topic: CHECKPOINTS, partition, leaderEpoch: -1 };
    const bound = async (at: 'earliest' | 'latest'): Promise<number> => {
      const [found] = await this.cluster.call(leader, listOffsets([ref], at, true));
      check(found!.error, `the offsets of ${CHECKPOINTS}-${partition}`);
      return found!.offset;
    };
    const end = await bound('latest');
    const before = this.offsets.get(partition);
    // A topic that ends before what was read of it was made anew.
    let offset = before === undefined || before > end ? await bound('earliest') : before;
    const cursor = new RecordCursor();
    const committed = new CommittedOnly();
    while (offset < end) {
      const { partitions } = await this.cluster.call(
        leader,
        fetch([{ ...ref, offset, maxBytes: FETCH_BYTES }], {
          ...{ readCommitted: true, maxWaitMs: 0, maxBytes: FETCH_BYTES },
          ...{ session: { id: 0, epoch: -1 }, forgotten: [] },
        }),
      );
      const got = partitions[0]!;
      check(got.error, `reading ${CHECKPOINTS}-${partition}`);
      committed.expect(got.aborted);
      for (const batch of readBatches(got.records, `${CHECKPOINTS}-${partition}`)) {
        if (committed.holds(batch)) {
          cursor.open(batch);
          while (cursor.next()) if (cursor.offset >= offset) this.take(cursor.key(), cursor.value());
        }
        offset = batch.lastOffset + 1;
      }
      this.offsets.set(partition, offset);
    }
  }

  private take(key: Buffer | null, value: Buffer | null): void {
    const [link, topic, partition] = JSON.parse(key?.toString() ?? '[]') as [string?, string?, number?];
    if (link === undefined) return;
    let found = this.links.get(link);
    if (found === undefined) this.links.set(link, (found = { about: undefined, positions: new Map() }));
    const document = value === null ? undefined : (JSON.parse(value.toString()) as unknown);
    const name = `${topic}-${partition}`;
    if (topic === undefined) found.about = document as LinkRecord | undefined;
    else if (document === undefined) found.positions.delete(name);
    else found.positions.set(name, (document as PartitionPosition).offset);
  }
}
