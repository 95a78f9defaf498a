import { randomInt } from 'node:crypto';
import type { Connection } from 'mysql2/promise';
import { InterlockError, messageOf } from '../../src/errors.js';
import { NOBODY } from '../core/contract.js';
import type { StatusTracker } from '../core/status.js';
import type { LinkLag } from '../core/status.js';
import { TableFilter } from '../../src/topology/table-filter.js';
import type { Cluster } from '../kafka/client/cluster.js';
import type { TransactionalProducer } from '../kafka/client/producer.js';
import { isKafkaError } from '../kafka/client/protocol-errors.js';
import type { LinkEvents } from '../core/contract.js';
import { BinlogFiles } from '../mysql/binlog-place.js';
import { contains, parsePosition, pass } from '../mysql/position.js';
import type { MysqlPosition } from '../mysql/position.js';
import { queueBudget } from '../mysql/queue-budget.js';
import { collationCharsets, executedPosition } from '../mysql/session.js';
import type { StopAt } from '../core/stop-points.js';
import { BinlogStream } from '../mysql/stream.js';
import type { MarkerEvent, RowChange, SourceTransaction } from '../mysql/transaction.js';
import { OutgoingEvents } from './outgoing.js';
import { eventOf } from './outbox-row.js';
import { sendPosition } from './position.js';
import type { RelayPosition } from './position.js';
import type { RelayConfig } from './relay-config.js';
import { TopicMap } from './topic-map.js';

const SILENCE_MS = 10_000;
const LOOK_MS = 1_000;
/** Bytes of source transactions in one Kafka transaction; one that is larger goes alone, and whole. */
const BATCH_BYTES = 4 * 1024 * 1024;
const PIECE_ROWS = 5_000;
/** A store that writes no events moves the position too: its binlog does not wait for the relay. */
const PERSIST_MS = 10_000;
const MESSAGE_TOO_LARGE = 10;

/** Statements and tables outside of the outbox's schemas are no matter of the relay. */
class OutboxFilter extends TableFilter {
  private readonly schemas: ReadonlySet<string>;

  constructor(tables: readonly string[]) {
    super(tables, []);
    this.schemas = new Set(tables.map((table) => table.slice(0, table.indexOf('.'))));
  }

  override mayCarry(schema: string): boolean {
    return this.schemas.has(schema);
  }
}

/** From the position that Kafka has up to the end of the connections. */
export class RelayAttempt {
  private readonly queue: SourceTransaction[] = [];
  private readonly topics: TopicMap;
  private readonly files: BinlogFiles;
  private position: MysqlPosition;
  private marker: MarkerEvent | null;
  private executed: MysqlPosition;
  private stream: BinlogStream | undefined;
  private failure: InterlockError | undefined;
  private wake: (() => void) | undefined;
  private persistedAt = Date.now();
  private persisted: string;
  private movedAt = Date.now();
  private behindSince: number | undefined = Date.now();
  private currentAt = Date.now();

  constructor(
    private readonly config: RelayConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: StopAt,
    private readonly tracker: StatusTracker,
    private readonly source: Connection,
    cluster: Cluster,
    private readonly producer: TransactionalProducer,
    /** As this attempt found it; the generation is its own. */
    private readonly stored: RelayPosition,
    private readonly leader: number,
  ) {
    this.topics = new TopicMap(cluster, config.link);
    this.files = new BinlogFiles(source);
    this.position = parsePosition(config.source.flavour, stored.position);
    this.executed = this.position.clone();
    this.persisted = stored.position;
    this.marker = stored.marker;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { config, tracker, source, stored } = this;
    tracker.generation = stored.generation;
    tracker.position = stored.position;
    tracker.lastMarker = this.marker?.id ?? null;
    await this.commit(stored.position);
    // The relay may have ended between the commit and the word.
    if (this.marker !== null) this.reached(this.marker);
    const stream = new BinlogStream({
      ...config.source,
      position: stored.position,
      serverId: randomInt(2 ** 31, 2 ** 32 - 1),
      filter: new OutboxFilter(config.tables),
      reading: { charsets: await collationCharsets(source, config.source.flavour), jsonAsText: false },
      byteBudget: queueBudget.share,
      silenceMs: SILENCE_MS,
      onTransaction: (transaction) => {
        this.queue.push(transaction);
        if (!transaction.foreign) {
          tracker.transactionsRead += 1;
          tracker.rowsRead += transaction.changes.length;
        }
        this.stopAt('after-read');
        this.notify();
      },
      onError: (error) => this.fail(error),
    });
    this.stream = stream;
    const onAbort = (): void => this.notify();
    signal.addEventListener('abort', onAbort, { once: true });
    const timer = setInterval(() => void this.look(), LOOK_MS);
    try {
      this.stopAt('before-read');
      await stream.start();
      await this.look();
      tracker.state = 'streaming';
      tracker.lastError = null;
      this.events.onStatus(tracker.snapshot(this.lag()), tracker.tableRows());
      while (!signal.aborted) {
        if (this.queue.length > 0) await this.step(stream);
        else if (this.failure !== undefined) throw this.failure;
        else if (this.persistDue) await this.commit(this.position.toString());
        else await new Promise<void>((resolve) => (this.wake = resolve));
      }
    } finally {
      clearInterval(timer);
      signal.removeEventListener('abort', onAbort);
      stream.stop();
      for (const { spool } of this.queue) spool?.discard();
    }
  }

  private async step(stream: BinlogStream): Promise<void> {
    const { tracker } = this;
    const taken = this.gather();
    const position = this.position.clone();
    const outgoing = new OutgoingEvents(this.producer, this.topics);
    const markers: MarkerEvent[] = [];
    let events = 0;
    for (const transaction of taken) {
      pass(position, transaction);
      if (transaction.foreign) continue;
      if (transaction.violation !== null) throw this.stopped(transaction.gtid, transaction.violation);
      if (events === 0) this.stopAt('before-target-write');
      for await (const changes of changesOf(transaction)) {
        for (const change of changes) {
          const event = eventOf(change);
          if (event === null) continue;
          await outgoing.add(event, transaction.sourceTime);
          events += 1;
        }
      }
      markers.push(...transaction.markers.filter(({ workflowId }) => workflowId !== NOBODY));
    }
    if (events > 0 || markers.length > 0) {
      this.marker = markers.at(-1) ?? this.marker;
      try {
        await outgoing.send();
        await this.commit(position.toString());
      } catch (error) {
        throw this.explained(error, taken);
      }
    }
    this.position = position;
    this.movedAt = Date.now();
    this.queue.splice(0, taken.length);
    for (const { bytes, foreign, spool, changes } of taken) {
      stream.release(bytes);
      spool?.discard();
      if (foreign) tracker.droppedForeign += 1;
      else tracker.countRows(changes);
    }
    tracker.rows += events;
    tracker.transactions += taken.length;
    tracker.position = position.toString();
    for (const marker of markers) this.reached(marker);
    if (contains(this.position, this.executed)) this.behindSince = undefined;
  }

  private gather(): SourceTransaction[] {
    let bytes = 0;
    let count = 0;
    for (const transaction of this.queue) {
      bytes += transaction.bytes;
      if (count > 0 && bytes > BATCH_BYTES) break;
      count += 1;
    }
    return this.queue.slice(0, count);
  }

  /** The events that were sent and the position become one: both are seen, or neither. */
  private async commit(position: string): Promise<void> {
    const { stored, marker } = this;
    await sendPosition(this.producer, this.config.link, this.leader, {
      ...stored,
      position,
      marker,
    });
    await this.producer.flush();
    this.stopAt('before-target-commit');
    await this.producer.commit();
    this.stopAt('after-target-commit');
    this.persisted = position;
    this.persistedAt = Date.now();
  }

  private get persistDue(): boolean {
    return Date.now() - this.persistedAt >= PERSIST_MS && this.position.toString() !== this.persisted;
  }

  private reached(marker: MarkerEvent): void {
    const { tracker, config } = this;
    tracker.lastMarker = marker.id;
    this.stopAt('before-acknowledge');
    this.events.onMarker(
      {
        markerId: marker.id,
        link: config.link,
        conflicts: 0,
        quarantined: 0,
        position: this.position.toString(),
      },
      marker,
    );
    this.stopAt('after-acknowledge');
  }

  private stopped(gtid: string, why: InterlockError): InterlockError {
    return new InterlockError(why.code, `${this.config.link} stopped before ${gtid}: ${why.message}`, {
      cause: why,
      details: { ...why.details, link: this.config.link, position: gtid },
    });
  }

  private explained(error: unknown, taken: readonly SourceTransaction[]): unknown {
    if (!isKafkaError(error, MESSAGE_TOO_LARGE)) return error;
    return new InterlockError(
      'LinkStopped',
      `${this.config.link} stopped: ${messageOf(error)}, with an event of ${taken[0]!.gtid} to ${taken.at(-1)!.gtid}. Raise max.message.bytes of the topic (or message.max.bytes), then: interlock replicate resume ${this.config.link}`,
      { cause: error, details: { link: this.config.link, position: taken[0]!.gtid } },
    );
  }

  private fail(error: InterlockError): void {
    this.failure ??= error;
    this.notify();
  }

  private notify(): void {
    this.wake?.();
    this.wake = undefined;
  }

  lag(): LinkLag {
    const now = Date.now();
    const oldest = this.queue[0];
    const since = oldest?.arrivedAt ?? this.behindSince;
    const lagMs = since === undefined ? 0 : Math.max(1, now - since);
    const place = oldest?.start ?? this.stream?.reading.readTo ?? null;
    return {
      lagMs,
      lagBytes: lagMs === 0 ? 0 : this.files.bytesBehind(place),
      stalledMs: lagMs === 0 ? 0 : now - Math.max(this.movedAt, since!),
      checkpointAgeMs: now - this.persistedAt,
      binlog: this.files.need(place, oldest?.sourceTime ?? this.behindSince ?? this.currentAt),
    };
  }

  private async look(): Promise<void> {
    const { flavour } = this.config.source;
    try {
      const text = await executedPosition(this.source, flavour);
      this.executed = parsePosition(flavour, text);
      this.tracker.sourcePosition = text;
      if (contains(this.position, this.executed)) {
        this.behindSince = undefined;
        this.currentAt = Date.now();
      } else this.behindSince ??= Date.now();
      await this.files.look((this.queue[0]?.start ?? this.stream?.reading.readTo)?.file);
    } catch {
      // The stream's own watchdog ends the attempt when the source is gone.
      this.behindSince ??= Date.now();
    }
    if (this.persistDue) this.notify();
  }
}

async function* changesOf({ changes, spool }: SourceTransaction): AsyncGenerator<RowChange[]> {
  if (changes.length > 0) yield changes;
  if (spool !== null) yield* spool.pieces(PIECE_ROWS, BATCH_BYTES);
}
