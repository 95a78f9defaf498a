import { InterlockError } from '../../src/errors.js';
import { NOBODY } from '../core/contract.js';
import type { LinkEvents } from '../core/contract.js';
import { Pace } from '../core/pace.js';
import type { LinkLag, StatusTracker } from '../core/status.js';
import type { StopAt } from '../core/stop-points.js';
import { Applier, BlockRefused } from './applier.js';
import type { Applied } from './applier.js';
import { ApplyLoop } from './apply-loop.js';
import { Arrivals } from './arrivals.js';
import { attach, statesOf } from './attach.js';
import { Block } from './block.js';
import type { Marker } from './markers.js';
import { mendsKey, positionOf } from './checkpoint.js';
import type { RedisCheckpoint, StreamPlace } from './checkpoint.js';
import { CommandTable } from './commands.js';
import { textOf } from './connection.js';
import type { RedisConnection } from './connection.js';
import { FullSync } from './full-sync.js';
import { Judge } from './judge.js';
import type { RedisLinkConfig } from './link-config.js';
import { Mending } from './mending.js';
import { BEFORE_ALL, Mends } from './mends.js';
import { Ownership } from './ownership.js';
import { conflictsKey, quarantineKey } from './quarantine.js';
import type { QuarantineRecord } from './quarantine.js';
import { isUnread } from './refusals.js';
import type { Replica } from './replica.js';
import type { Resync } from './replica.js';
import type { Reply } from './resp/reply-reader.js';
import { ShortLived } from './short-lived.js';
import { info } from './source-info.js';
import type { Info } from './source-info.js';
import { SourceStream, noCounts } from './source-stream.js';
import type { StreamBegin, StreamCounts } from './source-stream.js';
import { targetLimits } from './target-limits.js';
import type { TargetLimits } from './target-limits.js';

const LOOK_MS = 1000;
/** A server that has not answered a question for so long is gone, or behind a dead network. */
const SILENCE_MS = 5_000;
/**
 * Hazard: a server stands still while it forks, for a copy of the link or by itself; a copy that begins again has it fork again, for ever. Guard: while the
 * link copies, it waits for longer than any fork takes.
 */
const COPY_SILENCE_MS = 5 * 60_000;
/** The source is ahead, and sends nothing. */
const STREAM_SILENCE_MS = 15_000;
/** A key that a block makes live longer may have expired on the target when the block comes so late. */
const LATE_MS = 1_000;

export interface AttemptConnections {
  /** For questions. */
  source: RedisConnection;
  target: RedisConnection;
  /** Blocks go over it, and nothing else. */
  data: RedisConnection;
  /** Takes the replication, for the caller to close. */
  add: (replica: Replica) => void;
}

/** One attempt: a generation, a replica of the source, blocks for the target. */
export class Attempt {
  private readonly pace: Pace | null;
  private readonly ownership: Ownership;
  private judge!: Judge;
  private shortLived!: ShortLived;
  private applier!: Applier;
  private replica!: Replica;
  private stream: SourceStream | undefined;
  private loop: ApplyLoop | undefined;
  private arrivals: Arrivals | undefined;
  private wake: (() => void) | undefined;
  private failure: Error | undefined;
  private rejectFailed!: (error: Error) => void;
  private readonly failed: Promise<never>;
  /** Everything up to here is applied. */
  private applied: number;
  /** From here on the source's stream is read. */
  private begin: StreamPlace;
  private replid: string;
  private movedAt = Date.now();
  private checkpointAt: number | undefined;
  /** The source's clock, less this one. */
  private skewMs = 0;
  private sourceOffset: number | undefined;
  private behindSince: number | undefined;
  private looking = false;
  private open = { conflicts: 0, quarantined: 0 };
  private markerOfCopy: Marker | null = null;
  private readonly mends = new Mends();
  private mending: Mending | undefined;
  /** What the source had written up to here, the target got late. */
  private lateUntil = 0;
  private copiedUntil = 0;
  private silenceMs = SILENCE_MS;
  /** That of the source when it was looked at last. */
  private lastOffset = 0;
  /** The source was looked at. */
  hasLooked = false;

  constructor(
    private readonly config: RedisLinkConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: StopAt,
    private readonly tracker: StatusTracker,
    private readonly connections: AttemptConnections,
    private readonly checkpoint: RedisCheckpoint,
    /** What the target refused before EXEC in an attempt before: offset → its words. */
    private readonly refused: Map<number, string>,
  ) {
    this.pace = config.throttle === undefined ? null : new Pace(config.throttle);
    this.ownership = new Ownership(config.from, []);
    this.applied = checkpoint.offset;
    this.begin = { offset: checkpoint.offset, db: checkpoint.db };
    this.replid = checkpoint.replid;
    this.failed = new Promise<never>((_resolve, reject) => (this.rejectFailed = reject));
    this.failed.catch(() => undefined);
  }

  async run(signal: AbortSignal): Promise<void> {
    const { config, tracker, checkpoint, connections } = this;
    const { source, target, data } = connections;
    for (const connection of [source, target, data]) connection.onBroken = (error) => this.fail(error);
    tracker.generation = checkpoint.generation;
    tracker.position = positionOf(checkpoint);
    tracker.lastMarker = checkpoint.marker;
    this.judge = new Judge(config, this.ownership);
    this.shortLived = new ShortLived(config.minTtlMs, () => Date.now() + this.skewMs);
    await this.look();
    const table = new CommandTable(await source.ask('COMMAND'));
    const limits = await targetLimits(target);
    this.applier = new Applier(data, config.link, checkpoint, this.stopAt);
    const poll = setInterval(() => void this.look(), LOOK_MS);
    const onAbort = (): void => this.wake?.();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await this.guard(this.applier.ready());
      if (config.onQuarantine === 'stop') await this.guard(this.stopAtUnread(checkpoint));
      this.stopAt('before-read');
      const resync = await this.guard(this.attach());
      if (resync.kind === 'partial') await this.guard(this.repeatMarker());
      if (resync.kind === 'full') await this.guard(this.sync(resync, limits, signal));
      else this.mends.load(await this.guard(this.dueMends()));
      const from = resync.kind === 'full' ? { offset: resync.offset, db: 0 } : this.begin;
      this.replid = resync.replid;
      this.applied = resync.kind === 'full' ? resync.offset : checkpoint.offset;
      this.arrivals = new Arrivals(from.offset);
      this.arrivals.came(this.replica.intake.bytes, Date.now());
      this.lateUntil = Math.max(this.lastOffset, this.arrivals.received);
      if (resync.kind === 'full') this.copiedUntil = this.lateUntil;
      this.stream = new SourceStream(
        ...([config, table, this.judge, this.ownership, this.shortLived, from] as const),
        limits,
        this.mends,
        this.streamBegin(resync),
        this.refused,
      );
      const now = { ...this.applier.latest, offset: this.applied };
      const onError = (error: unknown): void => this.fail(error as Error);
      this.loop = new ApplyLoop(
        this.replica,
        this.stream,
        this.applier,
        this.pace,
        now,
        resync.replid,
        { onApplied: (offset, block, applied) => this.reached(offset, block, applied), onError },
        this.stopAt,
      );
      const { loop, arrivals, stream, mends, judge } = this;
      this.mending = new Mending({ judge, mends, stream, source, pump: () => loop.pump(), onError });
      this.showUnread(checkpoint);
      if (!stream.isRereading) stream.answered(this.applied);
      this.mending.ask();
      this.replica.acknowledged = this.applied;
      this.replica.onData = (bytes) => {
        if (bytes > 0) arrivals.came(bytes, Date.now());
        loop.pump();
      };
      tracker.state = 'streaming';
      tracker.lastError = null;
      tracker.position = positionOf({ ...now, replid: resync.replid });
      this.events.onStatus(tracker.snapshot(this.lag()), tracker.tableRows());
      this.replica.acknowledge();
      loop.pump();
      await this.guard(
        new Promise<void>((resolve) => {
          this.wake = resolve;
          if (signal.aborted) resolve();
        }),
      );
    } finally {
      clearInterval(poll);
      signal.removeEventListener('abort', onAbort);
      this.loop?.end();
    }
  }

  private async attach(): Promise<Resync> {
    const { config, checkpoint, connections, tracker, ownership } = this;
    const attached = await attach({
      ...{ config, checkpoint, source: connections.source, target: connections.target },
      add: (replica) => {
        this.replica = replica;
        connections.add(replica);
      },
      onCopy: () => {
        // The source may fork before it answers.
        this.silenceMs = COPY_SILENCE_MS;
        tracker.state = 'copying';
        return COPY_SILENCE_MS;
      },
      silenceMs: SILENCE_MS,
    });
    const { resync, units, marker } = attached;
    for (const [unit, state] of units) ownership.set(unit, state);
    this.begin = attached.begin;
    this.markerOfCopy = marker;
    if (resync.kind === 'partial') this.silenceMs = SILENCE_MS;
    // Offsets of another history say nothing in this one.
    else this.refused.clear();
    return resync;
  }

  private streamBegin({ kind }: Resync): StreamBegin {
    const { answersFrom, heldMarker } = this.checkpoint;
    if (kind === 'full')
      return { appliedTo: this.applied, answersFrom: Infinity, heldMarker: this.heldOfCopy };
    return {
      appliedTo: this.applied,
      answersFrom: answersFrom?.offset ?? Infinity,
      heldMarker: heldMarker ?? null,
    };
  }
  private heldOfCopy: Marker | null = null;

  private async dueMends(): Promise<Buffer[]> {
    return (await this.connections.target.call('SMEMBERS', mendsKey(this.config.link))) as Buffer[];
  }

  /** The source no longer has what it sent when the attempt before ended: nobody knows what the target answered. */
  private showUnread({ answersFrom }: RedisCheckpoint): void {
    if (this.copiedUntil > 0 || !answersFrom || this.begin.offset <= answersFrom.offset) return;
    this.stream!.unmended(
      null,
      'a link ended before it had read whether keys could be made to live longer, and the source no longer says which',
    );
  }

  private async sync(resync: Resync, limits: TargetLimits, signal: AbortSignal): Promise<void> {
    const { config, tracker, checkpoint, replica, applier } = this;
    tracker.state = 'copying';
    tracker.lastError = null;
    this.behindSince = Date.now();
    const prune = checkpoint.prune || checkpoint.phase === 'streaming';
    let wake: (() => void) | undefined;
    replica.onData = () => wake?.();
    const sync = new FullSync({
      config,
      replica,
      resync,
      applier,
      target: this.connections.target,
      judge: this.judge,
      tracker,
      pace: this.pace,
      limits,
      prune,
      sourceNow: () => Date.now() + this.skewMs,
      silenceMs: this.silenceMs,
      wait: async () => new Promise<void>((resolve) => (wake = resolve)),
      failed: this.failed,
      signal,
    });
    await sync.run();
    const last = new Block();
    last.endOffset = resync.offset;
    last.unitsCleared = true;
    for (const [unit, state] of this.ownership.all()) last.units.set(unit, state);
    for (const { key, db } of sync.leftOutAlive()) this.mends.add(key, db, BEFORE_ALL);
    last.mendsCleared = true;
    last.mendsDue.push(...this.mends.takeFresh());
    if (this.mends.size > 0) last.heldMarker = this.heldOfCopy = this.markerOfCopy;
    else if (this.markerOfCopy !== null) last.markers.push(this.markerOfCopy);
    applier.unwatchUnits();
    const { open } = await sync.write(last, { phase: 'streaming', replid: resync.replid, prune: false });
    this.silenceMs = SILENCE_MS;
    this.checkpointAt = Date.now();
    this.behindSince = undefined;
    this.replid = resync.replid;
    tracker.position = positionOf(resync);
    for (const marker of last.markers) this.tellMarker(marker, open!);
  }

  private reached(offset: number, block: Block | null, applied: Applied | null): void {
    const { tracker, replica, arrivals, stream } = this;
    const late = block === null ? null : this.lateness(block);
    this.applied = offset;
    this.movedAt = Date.now();
    replica.acknowledged = offset;
    arrivals?.applied(offset);
    tracker.position = positionOf({ replid: this.replid, offset });
    this.copyCounts();
    if (stream?.wantsAck === true) {
      stream.wantsAck = false;
      replica.acknowledge();
    }
    if (this.behindSince !== undefined && offset >= (this.sourceOffset ?? Infinity))
      this.behindSince = undefined;
    if (applied !== null) this.mending?.applied(block!, applied, late);
    stream?.answered(offset);
    this.mending?.ask();
    tracker.mends = this.mends.size;
    if (block === null || applied === null) return;
    this.checkpointAt = this.movedAt;
    tracker.rows += block.rows;
    tracker.transactions += block.transactions;
    for (const [db, rows] of block.rowsByDb) tracker.count(`db${db}`, rows);
    for (const { record, offset: at } of applied.refusals) {
      record.id = at === null ? `${offset}-own` : String(at + this.base);
      if (at === null && block.mendsDone.length > 0)
        stream!.block.unmended.push({ ...record, reason: 'unmended' });
      else stream!.block.record(record);
    }
    if (applied.unread !== null) {
      if (applied.unread.isNamed) stream!.block.settled.push(applied.unread.id);
      this.open.quarantined += 1;
    }
    this.open.quarantined += block.unmended.length - block.settled.length;
    for (const record of block.records) {
      if (record.reason === 'not-owned') this.open.conflicts += 1;
      else this.open.quarantined += 1;
    }
    if (applied.open !== null) this.open = applied.open;
    tracker.conflicts = this.open.conflicts;
    tracker.quarantined = this.open.quarantined;
    for (const marker of block.markers) this.tellMarker(marker, applied.open!);
    if (block.records.length > 0 && this.config.onQuarantine === 'stop') this.fail(this.putAside(block));
  }

  private lateness({ start }: Block): 'copied' | 'late' | null {
    if (start.offset < this.copiedUntil) return 'copied';
    const now = Date.now();
    const isLate = start.offset < this.lateUntil || now - (this.arrivals?.oldestAt ?? now) > LATE_MS;
    return isLate ? 'late' : null;
  }

  private tellMarker(marker: Marker, open: { conflicts: number; quarantined: number }): void {
    if (marker.workflowId === NOBODY) return;
    const { tracker } = this;
    tracker.lastMarker = marker.id;
    this.stopAt('before-acknowledge');
    this.events.onMarker(
      { markerId: marker.id, link: this.config.link, ...open, position: tracker.position },
      marker,
    );
    this.stopAt('after-acknowledge');
  }

  /** An attempt may end between the commit and the signal: the marker of the checkpoint is said again. */
  private async repeatMarker(): Promise<void> {
    if (this.checkpoint.marker === null) return;
    const { marker } = await statesOf(this.connections.source);
    if (marker?.id === this.checkpoint.marker) this.tellMarker(marker, await this.countOpen());
  }

  /** What is open on the target. */
  private async countOpen(): Promise<{ conflicts: number; quarantined: number }> {
    const { link } = this.config;
    const [conflicts, quarantined] = await this.connections.target.askAll([
      ['HLEN', conflictsKey(link)],
      ['HLEN', quarantineKey(link)],
    ]);
    return { conflicts: Number(conflicts), quarantined: Number(quarantined) };
  }

  /** An attempt has ended before it had read what the target refused: the link stops now, as it would have then, and once. */
  private async stopAtUnread({ offset, db, ...kept }: RedisCheckpoint): Promise<void> {
    const { link } = this.config;
    const { target } = this.connections;
    const ids = (await target.call('HKEYS', quarantineKey(link))) as Buffer[];
    const block = new Block();
    const { rereadFrom, answersFrom, heldMarker } = kept;
    Object.assign(block, { endOffset: offset, db, rereadFrom, answersFrom, heldMarker });
    for (const id of ids.map(textOf).filter(isUnread)) {
      const record = JSON.parse(
        textOf(await target.call('HGET', quarantineKey(link), id)),
      ) as QuarantineRecord;
      block.settled.push(id);
      block.records.push({ ...record, id: `${id}-told` });
    }
    if (block.records.length === 0) return;
    await this.applier.apply(block).done;
    throw this.putAside(block);
  }

  private get base(): number {
    return this.stream?.base ?? 0;
  }

  private putAside(block: Block): InterlockError {
    const { link } = this.config;
    const [first] = block.records;
    const { command, key, db, reason, detail } = first!;
    const what = `${command.toUpperCase()}${key === null ? '' : ` of ${key}`} in database ${db}`;
    return new InterlockError(
      'LinkStopped',
      `${link} stopped: ${what} was put aside (${reason}${detail === null ? '' : `: ${detail}`}); it is in ${reason === 'not-owned' ? conflictsKey(link) : quarantineKey(link)} on the target. Decide it there, then start the link: it goes on behind it`,
      { details: { link, id: first!.id, reason, key } },
    );
  }

  private copyCounts(): void {
    const { stream, tracker } = this;
    if (stream === undefined) return;
    const { commands, transactions, foreign, conflicts, filtered, lateDeletions } = stream.counts;
    tracker.rowsRead += commands - this.counted.commands;
    tracker.transactionsRead += transactions - this.counted.transactions;
    tracker.droppedForeign += foreign - this.counted.foreign;
    tracker.conflictsRecorded += conflicts - this.counted.conflicts;
    tracker.filtered! += filtered - this.counted.filtered;
    tracker.lateDeletions! += lateDeletions - this.counted.lateDeletions;
    this.counted = { ...stream.counts };
  }
  private counted: StreamCounts = noCounts();

  lag(): LinkLag {
    const now = Date.now();
    const oldest = this.arrivals?.oldestAt ?? this.behindSince;
    const lagMs = oldest === undefined ? 0 : Math.max(now - oldest, 1);
    const sourceAt = Math.max(this.sourceOffset ?? 0, this.arrivals?.received ?? 0);
    return {
      lagMs,
      lagBytes:
        this.sourceOffset === undefined || this.stream === undefined
          ? null
          : Math.max(0, sourceAt - this.applied),
      stalledMs: lagMs === 0 ? 0 : now - Math.max(this.movedAt, oldest!),
      checkpointAgeMs: this.checkpointAt === undefined ? null : now - this.checkpointAt,
      binlog: null,
    };
  }

  fail(error: Error): void {
    if (this.failure !== undefined) return;
    if (error instanceof BlockRefused) {
      for (const { offset, message } of error.refusals) {
        if (offset !== null) this.refused.set(offset + this.base, message);
      }
      const isOurs = error.refusals.every(({ offset }) => offset === null);
      error = new InterlockError(
        isOurs ? 'LinkStopped' : 'Unavailable',
        `the target refuses a command: ${error.message}${isOurs ? '' : '; it is put aside'}`,
        { retryable: !isOurs, details: { again: 'at once' } },
      );
    }
    this.failure = error;
    this.rejectFailed(error);
  }

  private async guard<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.failed]);
  }

  /** Of what nobody says by itself: how far the source is, whether both servers still answer, what is open in the quarantine. */
  private async look(): Promise<void> {
    if (this.looking) return;
    this.looking = true;
    const { source, data } = this.connections;
    const asked = Date.now();
    const timer = setInterval(() => {
      if (Date.now() - asked >= this.silenceMs) this.silent('a server', this.silenceMs);
    }, LOOK_MS);
    try {
      const [replication, [time], open] = await Promise.all([
        info(source, 'replication'),
        source.askAll([['TIME']]),
        this.countOpen(),
      ]);
      this.noteClock(time, asked);
      this.noteSource(replication);
      this.open = open;
      this.tracker.conflicts = this.open.conflicts;
      this.tracker.quarantined = this.open.quarantined;
      this.shortLived.sweep();
      // The first look comes before there is one.
      if (this.hasLooked) this.applier.keepAlive();
      this.hasLooked = true;
      this.mending?.ask();
      const mostMs = Math.max(STREAM_SILENCE_MS, this.silenceMs);
      if (data.dueSince !== undefined && Date.now() - data.dueSince > mostMs)
        this.silent('the target', mostMs);
    } catch (error) {
      this.fail(error as Error);
    } finally {
      clearInterval(timer);
      this.looking = false;
    }
  }

  private silent(who: string, ms: number): void {
    this.fail(
      new InterlockError('Unavailable', `${this.config.link}: ${who} has not answered in ${ms} ms`, {
        retryable: true,
      }),
    );
  }

  private noteClock(time: Reply | undefined, asked: number): void {
    if (!Array.isArray(time)) return;
    const there = Number(textOf(time[0])) * 1000 + Math.floor(Number(textOf(time[1])) / 1000);
    this.skewMs = there - (asked + Date.now()) / 2;
  }

  private noteSource(replication: Info): void {
    const { tracker, replica } = this;
    const now = Date.now();
    const offset = Number(replication.get('master_repl_offset') ?? replication.get('slave_repl_offset') ?? 0);
    this.sourceOffset = offset;
    tracker.sourcePosition = positionOf({ replid: replication.get('master_replid') ?? '', offset });
    // It is a look behind.
    if (this.stream !== undefined && this.applied < this.lastOffset) this.lateUntil = offset;
    this.lastOffset = offset;
    if (this.stream === undefined) return;
    if (this.applied >= offset) this.behindSince = undefined;
    else this.behindSince ??= now;
    if (offset > (this.arrivals?.received ?? offset) && now - replica.lastHeardAt > STREAM_SILENCE_MS)
      this.silent("the source's replication", STREAM_SILENCE_MS);
  }
}
