import { CHECKPOINTS, CLAIM } from './checkpoint.js';
import type { LinkRecord, PartitionPosition } from './checkpoint.js';
import type { Cluster } from './client/cluster.js';
import { CommittedReader, offsetAt } from './read-committed.js';

interface TailedCheckpoint {
  about: LinkRecord | undefined;
  /** By `topic-partition` of the source. */
  positions: Map<string, PartitionPosition>;
}

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
    const ref = { topic: CHECKPOINTS, partition };
    const end = await offsetAt(this.cluster, leader, ref, 'latest', true);
    const before = this.offsets.get(partition);
    // A topic that ends before what was read of it was made anew.
    const from =
      before === undefined || before > end
        ? await offsetAt(this.cluster, leader, ref, 'earliest', true)
        : before;
    const reader = new CommittedReader(this.cluster, leader, ref, from, 0);
    while (reader.offset < end) {
      await reader.fetch((cursor) => this.take(cursor.key(), cursor.value()));
      this.offsets.set(partition, reader.offset);
    }
  }

  private take(key: Buffer | null, value: Buffer | null): void {
    const [link, topic, partition] = JSON.parse(key?.toString() ?? '[]') as [string?, string?, number?];
    if (link === undefined || link === CLAIM) return;
    let found = this.links.get(link);
    if (found === undefined) this.links.set(link, (found = { about: undefined, positions: new Map() }));
    const document = value === null ? undefined : (JSON.parse(value.toString()) as unknown);
    const name = `${topic}-${partition}`;
    if (topic === undefined) found.about = document as LinkRecord | undefined;
    else if (document === undefined) found.positions.delete(name);
    else found.positions.set(name, document as PartitionPosition);
  }
}
