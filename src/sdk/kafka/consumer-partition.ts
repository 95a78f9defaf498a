import type { KafkaMessage } from 'kafkajs';
import { messageOf } from '../../errors.js';
import {
  consumerTransactionalId,
  CONSUMERS,
  ORIGIN_HEADER,
  partitionOfSubscription,
} from '../../kafka/consumer-records.js';
import type { RecordKey, StoredState } from '../../kafka/consumer-records.js';
import type { PartitionProgress, Range } from '../../kafka/partition-progress.js';
import type { Router } from '../../routing/rules.js';
import type { UnitId } from '../../routing/units.js';
import { ProducerConnection } from './connection.js';
import { CopyPlaces } from './copy-places.js';
import { Grants } from './grants.js';
import type { FetchedBatch, PartitionParts } from './partition-parts.js';
import { isWritable } from './writable.js';

/** Records that are handled between two commits, at most. */
const MOST = 500;
/** And so long at most. What was handled since is handled again, marked, by the next member when this one dies. */
const COMMIT_MS = 1_000;
/** Nothing has come for so long: is there anything still to come? */
const SILENCE_MS = { first: 1_000, most: 10_000 };
const BACKOFF_MS = { first: 50, most: 5_000 };

/** One assigned partition, of this DC's own topic or of the copy. One thing at a time. */
export class ConsumerPartition {
  private readonly progress: PartitionProgress;
  private writer: ProducerConnection | undefined;
  private turn: Promise<unknown> = Promise.resolve();
  private isInterrupted = false;
  private isClosed = false;
  private readonly grants: Grants;
  private isLooking = false;
  /** The last states that were sent; one of them was committed last, when nobody else has. */
  private written: string[] = [];
  /** What was committed last: without a commit nothing else is handled. */
  private announced: Range | null = null;
  private committed: { apart: string; position: number | null } = { apart: '', position: null };
  /** When the commit was sent that succeeded last. */
  private committedAt = 0;
  /** Records since then. */
  private handled = 0;
  private timer: NodeJS.Timeout | undefined;
  private opening: Promise<void> = Promise.resolve();
  /** What is fetched next: of a local partition the cursor itself. */
  private nextFetch: number | undefined;
  private readonly places = new CopyPlaces();
  private failures = 0;
  /** Until then nothing is read. */
  private rest: NodeJS.Timeout | undefined;
  /** Of a copy: what was to be fetched next is removed, and the first record that is still there was not seen yet. */
  private isCut = false;
  private silence: NodeJS.Timeout | undefined;

  constructor(private readonly parts: PartitionParts) {
    this.progress = parts.group.at(parts.origin, parts.partition);
    this.grants = new Grants(parts.dc);
    parts.setPaused(true);
  }

  /** Takes the partition: a member that had it before commits nothing any more. Tries until it succeeds, or is closed. */
  async open(): Promise<void> {
    for (let wait = BACKOFF_MS.first; !this.isClosed; wait = Math.min(wait * 2, BACKOFF_MS.most)) {
      try {
        return await this.exclusive(() => this.take());
      } catch (error) {
        this.parts.onWarning(`${this.name}: ${messageOf(error)}`, error);
        await this.lose();
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  }

  /** The rules have changed: what they give is granted when every hand-over that belongs to them has been read. */
  grant(): Promise<void> {
    return this.guarded(async () => {
      if (this.grants.isDue) await this.readAll();
      await this.adopt();
      this.goOn(true);
    });
  }

  /** Something that was waited for may be there. @param isNew the group has assigned it anew */
  async look(isNew = false): Promise<void> {
    if (this.isLooking && !isNew) return;
    this.isLooking = true;
    await this.guarded(async () => {
      this.isLooking = false;
      await this.adopt();
      this.goOn(isNew);
    });
    // A partition that is being taken again has not looked; it does so when it is taken.
    this.isLooking = false;
  }

  /** Resolves when nothing is under way by older rules, and what was handled is committed, or will be handled again. */
  async settle(router: Router): Promise<void> {
    this.grants.learned(router);
    this.isInterrupted = true;
    await this.guarded(() => this.flush());
    await this.opening;
  }

  /** Another member may get it next: ends at the next record, and commits what was handled. */
  letGo(): Promise<void> {
    this.isInterrupted = true;
    return this.exclusive(async () => {
      // Who has it already knows what was announced.
      if (this.writer !== undefined && this.isDue) await this.commit(null).catch(() => undefined);
    });
  }

  async close(): Promise<void> {
    this.isClosed = true;
    clearTimeout(this.silence);
    clearTimeout(this.rest);
    await this.letGo();
    await this.exclusive(() => this.lose());
  }

  read(batch: FetchedBatch): Promise<void> {
    return this.guarded(async () => {
      const { progress, parts } = this;
      if (progress.cursor === null) return;
      if (batch.fetchedOffset > this.nextFetch!) {
        // Hazard: it was asked for before a seek, and leaves out what is between. Or the topic has removed that: then it begins there.
        if (batch.fetchedOffset > (await parts.range()).first) return parts.seek(this.nextFetch!);
        await this.removed(batch.fetchedOffset);
      }
      const isWhole = await this.readRecords(batch);
      this.failures = 0;
      // What units are apart for may be passed: others wait for that, in another process perhaps.
      if (JSON.stringify(progress.state().apart) !== this.committed.apart) await this.commit(null);
      else if (this.isDue) this.commitLater();
      if (isWhole) batch.resolve();
      this.goOn(!isWhole);
    });
  }

  /** Hazard: kafkajs gives no batch of which nothing is left when what was undone is filtered out, and fetches what follows. */
  passedUnseen(first: number, next: number): void {
    const { nextFetch, progress } = this;
    // Else it was asked for before a seek.
    if (nextFetch === undefined || nextFetch < first || nextFetch >= next) return;
    this.nextFetch = next;
    if (!progress.isLocal || progress.cursor === null) return;
    // Else it would be missed when it is removed.
    this.passed(next);
    this.commitLater();
  }

  /** @returns whether all of it was read */
  private async readRecords(batch: FetchedBatch): Promise<boolean> {
    const { progress, parts } = this;
    const records = batch.messages.map((message) => ({ message, offset: this.offsetOf(message) }));
    if (this.isCut && records.length > 0) {
      await this.leaveOut(Math.min(records[0]!.offset, this.owedUpTo()));
      this.isCut = false;
    }
    let next = progress.cursor!;
    try {
      for (const [i, { message, offset }] of records.entries()) {
        if (offset < next) continue;
        if (this.isInterrupted || !batch.isAlive()) return false;
        next = offset;
        const unit = parts.unitOf(message);
        const isReleased = parts.group.isReleased(unit, parts.origin, parts.partition, offset);
        if (progress.decide(offset, unit, () => isReleased && this.isActive(unit)) === 'handle') {
          if (!this.mayHandle(offset)) {
            this.passed(next);
            await this.commit(
              this.attemptFrom(offset, records[Math.min(i + MOST, records.length) - 1]!.offset + 1),
            );
            // The commit took time, in which a fence may have come.
            if (this.isInterrupted || !batch.isAlive() || !this.isActive(unit)) return false;
          }
          try {
            await parts.handle(message, offset, progress.isDoubtful(offset));
          } catch (error) {
            this.passed(next);
            progress.doubt([offset, offset + 1]);
            await this.commit(null);
            throw new HandlerFailed(messageOf(error), { cause: error });
          }
          this.handled += 1;
        }
        next = offset + 1;
      }
    } finally {
      this.passed(next);
    }
    this.nextFetch = batch.next;
    // Behind what was filtered out.
    if (progress.isLocal) this.passed(Math.max(batch.next, progress.cursor!));
    return true;
  }

  /** The topic that is read begins behind what was to be fetched next. */
  private async removed(first: number): Promise<void> {
    // What is lost of a copy, its first record says: the offsets are others.
    if (!this.progress.isLocal) this.isCut = true;
    else await this.leaveOut(first);
    this.nextFetch = first;
  }

  /** What is before `to` and not read is not there: it is told, noted and passed. */
  private async leaveOut(to: number): Promise<void> {
    const { progress, parts } = this;
    const from = progress.isLocal ? this.nextFetch! : progress.cursor!;
    if (from >= to) return;
    try {
      await parts.onGap(from, to);
    } catch (error) {
      throw new HandlerFailed(messageOf(error), { cause: error });
    }
    progress.leave([from, to]);
    this.passed(to);
  }

  /** Up to where this pass has to come, by the hand-overs. */
  private owedUpTo(): number {
    const { group, origin, partition } = this.parts;
    const mayEnd = (unit: UnitId): boolean => !this.progress.isBehind(unit) && this.isRunnable(unit);
    const owed = group.owed(origin, partition).filter(mayEnd);
    return Math.max(0, ...owed.map((unit) => group.limitOf(unit, origin, partition)));
  }

  /** @param seen what was to be fetched next when this was begun */
  private watch(waitMs = SILENCE_MS.first, seen = this.nextFetch): void {
    this.silence ??= setTimeout(() => {
      this.silence = undefined;
      void this.guarded(async () => {
        if (this.progress.cursor === null || this.owedUpTo() === 0) return;
        if (this.nextFetch !== seen) return this.watch();
        await this.lookForEnd();
        this.watch(Math.min(2 * waitMs, SILENCE_MS.most));
      });
    }, waitMs).unref();
  }

  /**
   * Hazard: retention, or a gap at the source, has removed the end of what the old owner left: others wait for it, and it never comes. Guard: where
   * the copy ends is asked for when the units are open here. The link had copied all of it then, so what is not before that end never comes.
   */
  private async lookForEnd(): Promise<void> {
    const { progress, parts } = this;
    const to = this.owedUpTo();
    const { first, end } = await parts.range();
    if (this.nextFetch! < first) {
      await this.removed(first);
      parts.seek(first);
    }
    if (this.nextFetch! < end) return;
    // A topic of this DC that ends before it has lost its end: what is written next gets those offsets.
    if (!progress.isLocal) await this.leaveOut(to);
    await this.commit(null);
    this.goOn(false);
  }

  /**
   * Who reads the state that was committed last has the record in doubt. Hazard: a process that was paused, or that Kafka has fenced, goes on where it was,
   * and who took over handles the same. Guard: after a pause, and now and then, a commit, which is refused then.
   */
  private mayHandle(offset: number): boolean {
    const { announced, committedAt } = this;
    const isAnnounced = announced !== null && announced[0] <= offset && offset < announced[1];
    return (
      isAnnounced &&
      this.handled < MOST &&
      committedAt >= this.parts.wokeAt() &&
      performance.now() - committedAt < COMMIT_MS
    );
  }

  /** What may be handled before the next commit: what is fetched, and twice as much as since the last one. */
  private attemptFrom(offset: number, fetched = offset): Range | null {
    const to = Math.max(fetched, offset + Math.min(2 * this.handled, MOST));
    return offset < to ? [offset, to] : null;
  }

  /** Something is not as it was committed. */
  private get isDue(): boolean {
    return (
      this.announced !== null ||
      this.handled > 0 ||
      this.progress.state().position !== this.committed.position
    );
  }

  private commitLater(): void {
    this.timer ??= setTimeout(() => void this.guarded(() => this.flush()), COMMIT_MS).unref();
  }

  private async flush(): Promise<void> {
    const { cursor } = this.progress;
    if (this.isDue) await this.commit(cursor === null ? null : this.attemptFrom(cursor));
  }

  private passed(next: number): void {
    const { progress, parts } = this;
    progress.passed(next, (unit) => parts.group.limitOf(unit, parts.origin, parts.partition));
    if (progress.isLocal) this.nextFetch = next;
  }

  private readonly isRunnable = (unit: UnitId): boolean => {
    const { group, origin, partition } = this.parts;
    return this.isActive(unit) && group.isReleased(unit, origin, partition, this.progress.positionOf(unit));
  };

  /** By the rules of now, and by those whose hand-overs are all read. */
  private isActive(unit: UnitId): boolean {
    const now = this.parts.rules.current();
    return now !== undefined && isWritable(unit, now, this.parts.dc) && this.grants.allows(unit);
  }

  /** Where to read next, or nothing. @param moves what is fetched next is not what the client would fetch */
  private goOn(moves: boolean): void {
    const { progress, parts } = this;
    if (this.isClosed) return;
    this.isInterrupted = false;
    if (progress.needsPass(this.isRunnable)) {
      const from = progress.start(this.isRunnable);
      if (from !== null) this.nextFetch = progress.isLocal ? from : this.places.before(from);
      this.isCut = false;
      moves = true;
    }
    // A copy is read only while something of it is left.
    const isIdle =
      progress.cursor === null || !(progress.isLocal || [...progress.unitsApart].some(this.isRunnable));
    if (moves && progress.cursor !== null) parts.seek(this.nextFetch!);
    parts.setPaused(isIdle || this.rest !== undefined);
    if (!isIdle) this.watch();
  }

  private offsetOf(message: KafkaMessage): number {
    if (this.progress.isLocal) return Number(message.offset);
    const header = message.headers?.[ORIGIN_HEADER];
    const text = (Array.isArray(header) ? header.at(-1) : header)?.toString() ?? '';
    const offset = Number(text.slice(text.lastIndexOf('/') + 1));
    if (text === '' || !Number.isSafeInteger(offset))
      throw new Error(`${this.name}: the record at ${message.offset} does not say where it comes from`);
    this.places.note(offset, Number(message.offset));
    return offset;
  }

  /** What fails is mended here: the partition is taken again, and what was committed counts. */
  private async guarded(work: () => Promise<void>): Promise<void> {
    await this.exclusive(async () => {
      if (this.writer === undefined || this.isClosed) return;
      try {
        await work();
      } catch (error) {
        const { parts } = this;
        parts.onWarning(`${this.name}: ${messageOf(error)}`, error);
        parts.setPaused(true);
        this.failures += 1;
        const waitMs = Math.min(BACKOFF_MS.first * 2 ** this.failures, BACKOFF_MS.most);
        if (error instanceof HandlerFailed) {
          clearTimeout(this.rest);
          this.rest = setTimeout(() => {
            this.rest = undefined;
            void this.look(true);
          }, waitMs).unref();
        } else {
          // Lost to another member, to a switchover, or to a broker that does not answer.
          await this.lose();
          // Not at once when that did not help: a record for which the application has no unit fails again.
          const restMs = this.failures > 1 ? waitMs : 0;
          this.opening = new Promise((resolve) => setTimeout(resolve, restMs)).then(() => this.open());
        }
      }
    });
  }

  private async lose(): Promise<void> {
    const { writer } = this;
    this.writer = undefined;
    this.announced = null;
    this.endTimer();
    await writer?.close().catch(() => undefined);
  }

  private async take(): Promise<void> {
    const { kafka, subscription, origin, partition, rules, states } = this.parts;
    if (this.isClosed) return;
    const id = consumerTransactionalId(subscription, origin, partition);
    this.writer = await ProducerConnection.take(kafka, id);
    await this.readAll();
    const stored = states.valueOf(this.key('state')) as StoredState | undefined;
    // Nobody has read on since this member's last commit: what it knows, is so. Else what was committed counts.
    if (stored === undefined || !this.written.includes(JSON.stringify(stored))) {
      const first = { adopted: 0, position: null, apart: [], doubtful: null };
      const position = this.progress.isLocal ? await this.parts.firstOffset() : null;
      this.progress.load(stored ?? { ...first, position });
    }
    this.parts.group.adopt(this.progress);
    await this.commit(null);
    // Hazard: a member that has just taken the partition knows the rules from before a fence, and a switchover that looks who holds it finds the one
    // before, who has acknowledged. Guard: it writes its name, then asks for the rules: either the switchover finds it, or it finds the fence.
    await rules.confirm();
    this.goOn(true);
  }

  private async adopt(): Promise<void> {
    if (this.parts.group.adopt(this.progress)) await this.commit(null);
  }

  private async readAll(): Promise<void> {
    const router = this.parts.rules.current();
    await this.parts.states.mark((value) => this.write(this.key('mark'), value));
    if (router !== undefined) this.grants.readUpTo(router);
  }

  private async commit(attempt: Range | null): Promise<void> {
    this.endTimer();
    const { progress, parts } = this;
    const epoch = parts.rules.current()?.epoch ?? 0;
    const state: StoredState = { ...progress.state(attempt), epoch, holder: parts.holder };
    const text = JSON.stringify(state);
    this.written = [...this.written.slice(-1), text];
    const sentAt = performance.now();
    await this.write(this.key('state'), text);
    this.committedAt = sentAt;
    this.announced = attempt;
    this.handled = 0;
    this.committed = { apart: JSON.stringify(state.apart), position: state.position };
    if (attempt !== null) this.commitLater();
    this.parts.onCommitted();
  }

  private endTimer(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private async write(key: RecordKey, value: string): Promise<void> {
    const { subscription } = this.parts;
    const message = { key: JSON.stringify(key), value, partition: partitionOfSubscription(subscription) };
    await this.writer!.commit([{ topic: CONSUMERS, messages: [message] }]);
  }

  private key<Kind extends 'state' | 'mark'>(kind: Kind): RecordKey {
    const { subscription, origin, partition } = this.parts;
    return [kind, subscription.group, subscription.topic, origin, partition];
  }

  private get name(): string {
    const { subscription, origin, partition } = this.parts;
    return `${subscription.group}: ${subscription.topic}-${partition} of ${origin}`;
  }

  private exclusive<R>(work: () => Promise<R>): Promise<R> {
    const result = this.turn.then(work);
    this.turn = result.catch(() => undefined);
    return result;
  }
}

class HandlerFailed extends Error {}
