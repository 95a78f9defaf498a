import type { StopAt } from '../core/stop-points.js';
import { CHECKPOINTS, checkpointBatches, checkpointPartition } from './checkpoint.js';
import type { Checkpoint } from './checkpoint.js';
import type { Outgoing, TransactionalProducer } from './client/producer.js';
import type { SourcePartition } from './source-partition.js';

/** Positions over what was dropped are written after so long, when nothing else makes a transaction. */
const CHECKPOINT_MS = 5_000;

/** Writes copies into the target, and where the source is in the transaction that holds them. */
export class TargetWriter {
  /** The last one that was reached. */
  marker: Checkpoint['marker'];
  /** Reached, and in no checkpoint that was committed. */
  private readonly dirty = new Set<SourcePartition>();
  private checkpointAt = performance.now();

  /** @param leader of the checkpoints' partition: node id */
  constructor(
    private readonly link: string,
    private readonly producer: TransactionalProducer,
    private readonly checkpoint: Checkpoint,
    private readonly leader: number,
    private readonly stopAt: StopAt,
  ) {
    this.marker = checkpoint.marker;
  }

  /** Nothing is open. */
  get isEmpty(): boolean {
    return this.producer.isEmpty;
  }

  get isCheckpointDue(): boolean {
    return this.dirty.size > 0 && this.checkpointAgeMs > CHECKPOINT_MS;
  }

  get checkpointAgeMs(): number {
    return performance.now() - this.checkpointAt;
  }

  /** Its position is written with the next transaction. */
  reached(partition: SourcePartition): void {
    this.dirty.add(partition);
  }

  /** The first transaction of the generation: nothing of an older one can be committed any more, and whoever reads the checkpoint sees it. */
  async commitGeneration(): Promise<void> {
    for (const batch of this.positions()) await this.producer.send([batch]);
    await this.producer.commit();
  }

  /** @param rounds batches of the copies, one of a partition in each */
  async send(rounds: readonly Outgoing[][]): Promise<void> {
    for (const round of rounds) await this.producer.send(round);
  }

  /** Where the source is when what was reached is committed: to be sent with the last of the copies, one in each round. */
  positions(): Outgoing[] {
    const { link, leader, marker } = this;
    const { generation, sourceCluster, gaps } = this.checkpoint;
    const positions = [...this.dirty].map((partition) => partition.checkpoint());
    const about = { generation, sourceCluster, marker, ...(gaps !== undefined && { gaps }) };
    return checkpointBatches(link, about, positions).map((builder) => {
      return { topic: CHECKPOINTS, partition: checkpointPartition(link), leader, builder };
    });
  }

  async commit(): Promise<void> {
    await this.producer.flush();
    this.stopAt('before-target-commit');
    await this.producer.commit();
    this.stopAt('after-target-commit');
    this.dirty.clear();
    this.checkpointAt = performance.now();
  }
}
