import type { PartitionPosition } from './checkpoint.js';
import type { Fetched, PartitionRef } from './client/data-api.js';
import { readBatches } from './client/record-batch.js';
import type { SourceBatch } from './client/record-batch.js';
import { CommittedOnly } from './committed-only.js';
import { OffsetIndex } from './offset-index.js';
import { OriginHeader } from './origin.js';

/** A batch that is to be copied, or to be passed over. */
export interface QueuedBatch {
  /** null: a control record, or one of a transaction that was undone. */
  batch: SourceBatch | null;
  /** The next offset after it. */
  next: number;
  leaderEpoch: number;
  /** No source transaction has records on both sides of its end. */
  closed: boolean;
  /** On the wire. */
  bytes: number;
  /** By the monotonic clock. */
  arrivedAt: number;
}

/** One partition of the source: what was read and is not applied yet, and how far it is. */
export class SourcePartition implements PartitionRef {
  readonly origin: OriginHeader;
  readonly index = new OffsetIndex();
  leader = -1;
  leaderEpoch = -1;
  /** The next one to fetch. */
  fetchOffset: number;
  /** The next one to apply: all before is committed on the target, or dropped. */
  position: number;
  /** Of the record before `position`. */
  positionEpoch: number;
  /** Of the topic that is copied; null: not known. */
  topicId: string | null;
  /** Where the link began; undefined: not known. */
  private readonly begun: number | undefined;
  /** What a batch of the copy may have that is not of one record. */
  maxBatchBytes = 2 ** 20;
  /** As `position`, with what the transaction under way has. */
  reached: number;
  reachedEpoch: number;
  /** As last told by the broker; -1: not yet. */
  highWatermark = -1;
  lastStableOffset = -1;
  /** Since when a transaction has kept the stable offset where it is, by the monotonic clock. */
  stuckSince: number | undefined;
  /** Since when there has been something to apply; undefined: there is nothing. */
  behindSince: number | undefined;
  queue: QueuedBatch[] = [];
  queuedBytes = 0;
  private readonly committed = new CommittedOnly();
  private readonly open = new Set<bigint>();

  constructor(
    dc: string,
    readonly topic: string,
    readonly partition: number,
    readonly copy: string,
    at: Omit<PartitionPosition, 'topic' | 'partition'>,
  ) {
    this.origin = new OriginHeader(dc, topic, partition);
    this.fetchOffset = this.position = this.reached = at.offset;
    this.positionEpoch = this.reachedEpoch = at.leaderEpoch;
    this.topicId = at.topicId ?? null;
    this.begun = at.begun;
  }

  /** Where it is when what was reached is committed. */
  checkpoint(): PartitionPosition {
    const { topic, partition, reached, reachedEpoch, topicId, begun } = this;
    return {
      ...{ topic, partition, offset: reached, leaderEpoch: reachedEpoch },
      ...(topicId !== null && { topicId }),
      ...(begun !== undefined && { begun }),
    };
  }

  /** It is behind where the link began. */
  get hasMoved(): boolean {
    return this.position > (this.begun ?? 0);
  }

  get name(): string {
    return `${this.topic}-${this.partition}`;
  }

  /** What a fetch has brought. @returns bytes queued */
  take(fetched: Fetched, now: number): number {
    this.note(fetched, now);
    this.committed.expect(fetched.aborted);
    let bytes = 0;
    for (const batch of readBatches(fetched.records, this.name)) {
      // Also of what is passed: the end of a transaction may be in it.
      const held = this.committed.holds(batch);
      // A broker gives whole batches: the first one may begin before what was asked for.
      if (batch.lastOffset < this.fetchOffset) continue;
      if (batch.transactional) {
        if (batch.control) this.open.delete(batch.producerId);
        else if (held) this.open.add(batch.producerId);
      }
      this.fetchOffset = batch.lastOffset + 1;
      const size = batch.payload.length + 61;
      bytes += size;
      this.queue.push({
        batch: held && batch.count > 0 ? batch : null,
        next: this.fetchOffset,
        leaderEpoch: batch.leaderEpoch,
        closed: this.open.size === 0,
        bytes: size,
        arrivedAt: now,
      });
    }
    this.queuedBytes += bytes;
    return bytes;
  }

  private note({ highWatermark, lastStableOffset }: Fetched, now: number): void {
    const stuck = lastStableOffset < highWatermark;
    if (!stuck) this.stuckSince = undefined;
    else if (this.stuckSince === undefined || lastStableOffset !== this.lastStableOffset)
      this.stuckSince = now;
    this.highWatermark = highWatermark;
    this.lastStableOffset = lastStableOffset;
    if (this.position < highWatermark) this.behindSince ??= now;
  }

  /** How many batches of the queue may be taken. @param hold only up to where no source transaction is half there */
  takeable(hold: boolean): number {
    let count = this.queue.length;
    if (hold) while (count > 0 && !this.queue[count - 1]!.closed) count--;
    return count;
  }

  /** How many, up to where the source transactions that are half taken end; all, when the end has not come yet. */
  toNextClosed(): number {
    const at = this.queue.findIndex(({ closed }) => closed);
    return at < 0 ? this.queue.length : at + 1;
  }

  /** Takes some off the queue: `most` batches, and no more than so many bytes but for the first; where it can, up to where it is closed. */
  shift(most: number, bytes: number): QueuedBatch[] {
    let count = 0;
    let size = 0;
    let closed = 0;
    while (count < most && (count === 0 || size + this.queue[count]!.bytes <= bytes)) {
      size += this.queue[count++]!.bytes;
      if (this.queue[count - 1]!.closed) closed = count;
    }
    if (closed > 0) while (count > closed) size -= this.queue[--count]!.bytes;
    this.queuedBytes -= size;
    return this.queue.splice(0, count);
  }

  /** What comes next is gone from the source. */
  passGap(to: number, now: number): void {
    this.fetchOffset = to;
    // The ends of the transactions that were open may be gone with it.
    this.open.clear();
    this.queue.push({ batch: null, next: to, leaderEpoch: -1, closed: true, bytes: 0, arrivedAt: now });
  }

  /** The transaction that is being made goes up to here. */
  reach(next: number, leaderEpoch: number): void {
    this.reached = next;
    this.reachedEpoch = leaderEpoch;
  }

  /** What was reached is committed on the target, or was only dropped. */
  applied(now: number): void {
    this.position = this.reached;
    this.positionEpoch = this.reachedEpoch;
    this.behindSince = this.position >= this.highWatermark ? undefined : (this.queue[0]?.arrivedAt ?? now);
  }
}
