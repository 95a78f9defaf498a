import { randomUUID } from 'node:crypto';
import { InterlockError, isInterlockError, messageOf } from '../../src/errors.js';
import type { LinkStatus } from '../core/contract.js';
import { StatusTracker } from '../core/status.js';
import type { LinkLag } from '../core/status.js';
import { pause } from '../mysql/pause.js';
import type { StopPoint } from '../core/stop-points.js';
import { Attempt } from './attempt.js';
import type { LinkEvents } from './attempt.js';
import { ensureCheckpointTopic, readCheckpoint } from './checkpoint.js';
import { Cluster } from './client/cluster.js';
import { TransactionalProducer } from './client/producer.js';
import type { ProducerIdentity } from './client/transaction-api.js';
import { TRANSACTION_TIMEOUT_MS, transactionalId } from './initialise.js';
import type { KafkaLinkConfig } from './link-config.js';
import { ensureMarkerTopic } from './markers.js';

export type { LinkEvents } from './attempt.js';

const STATUS_MS = 500;
const BACKOFF_MS = { first: 100, most: 5_000 };

/**
 * One directed replicator, as attempts: each takes the link's transactional id, reads the checkpoint, copies from there, until a broker is
 * lost or answers what a new attempt mends. What is in memory is never needed again.
 */
export class KafkaLink {
  private readonly tracker: StatusTracker;
  private attempt: Attempt | undefined;
  private cut: (error: InterlockError) => void = () => undefined;
  /** What this link took last. */
  private held: ProducerIdentity | undefined;
  private readonly holder = randomUUID();
  /** The last attempt had the link. */
  private ran = false;
  /** How far it was behind when it lost its connections, and when that was. */
  private lost: { lag: LinkLag; at: number } = { lag: UNKNOWN_LAG, at: Date.now() };

  constructor(
    private readonly config: KafkaLinkConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: (point: StopPoint) => void,
  ) {
    this.tracker = new StatusTracker(config.link);
  }

  status(): LinkStatus {
    if (this.attempt?.hasLooked === true) {
      this.attempt.showPositions();
      this.tracker.kafka = this.attempt.kafka();
      return this.tracker.snapshot(this.attempt.lag());
    }
    const { lag, at } = this.lost;
    const since = Date.now() - at;
    return this.tracker.snapshot({
      ...lag,
      lagMs: Math.max(1, lag.lagMs + since),
      // With all applied when it was lost, nobody knows whether the source has more.
      stalledMs: lag.lagMs === 0 ? 0 : lag.stalledMs + since,
      checkpointAgeMs: lag.checkpointAgeMs === null ? null : lag.checkpointAgeMs + since,
    });
  }

  private tellStatus(): void {
    this.events.onStatus(this.status(), this.tracker.tableRows());
  }

  /**
   * Runs until `signal` is aborted (returns) or the link has to stop (throws an InterlockError that is not retryable).
   * Lost connections are mended here, without limit: only an operator knows when a broker will not come back.
   */
  async run(signal: AbortSignal): Promise<void> {
    const timer = setInterval(() => this.tellStatus(), STATUS_MS);
    let backoff = BACKOFF_MS.first;
    try {
      while (!signal.aborted) {
        const startedAt = Date.now();
        try {
          await this.once(signal);
        } catch (error) {
          if (signal.aborted) break;
          this.tracker.failed(error);
          if (!(error instanceof InterlockError) || !(error.retryable || this.mayStillHold(error))) {
            if (!STOPPED_FOR.has(this.tracker.state)) this.tracker.state = 'failed';
            throw error;
          }
          this.tracker.state = 'starting';
          this.tellStatus();
          if (Date.now() - startedAt > 10_000) backoff = BACKOFF_MS.first;
          await pause(backoff, signal);
          backoff = Math.min(backoff * 2, BACKOFF_MS.most);
        }
      }
      this.tracker.state = 'stopped';
    } finally {
      clearInterval(timer);
      this.tellStatus();
    }
  }

  private async once(signal: AbortSignal): Promise<void> {
    const source = new Cluster(this.config.source);
    const target = new Cluster(this.config.target);
    const cut = new Promise<never>((_resolve, reject) => (this.cut = reject));
    try {
      await Promise.race([this.open(source, target, signal), cut]);
    } catch (error) {
      if (error instanceof InterlockError) throw error;
      throw new InterlockError('Internal', messageOf(error), { cause: error });
    } finally {
      if (this.attempt?.hasLooked === true) this.lost = { lag: this.attempt.lag(), at: Date.now() };
      this.attempt = undefined;
      source.close();
      target.close();
    }
  }

  /** Fenced while it ran: by another process, or by the coordinator; the next attempt tells. */
  private mayStillHold(error: InterlockError): boolean {
    const ran = this.ran;
    this.ran = false;
    return ran && isInterlockError(error, 'HeldByOther');
  }

  /** Ends the attempt whatever it waits for: its connections go; what it had open is undone by the next. */
  disconnect(why: string): void {
    this.cut(new InterlockError('Unavailable', why, { retryable: true }));
  }

  private async open(source: Cluster, target: Cluster, signal: AbortSignal): Promise<void> {
    const { link, from } = this.config;
    await ensureMarkerTopic(source);
    await ensureCheckpointTopic(target);
    const producer = await this.take(target);
    this.held = producer.identity;
    const { checkpoint, leader } = await readCheckpoint(target, link);
    if (checkpoint === undefined) {
      throw new InterlockError(
        'Refused',
        `${link} has no checkpoint; run: interlock replicate start ${link} --from now`,
      );
    }
    const { clusterId } = await source.metadata([]);
    if (clusterId !== checkpoint.sourceCluster) {
      throw new InterlockError(
        'NeedsOperator',
        `${link} has copied from cluster ${checkpoint.sourceCluster}, but ${from} is cluster ${clusterId} now. Reconcile the copies, then: interlock replicate start ${link} --from now --discard-checkpoint`,
        { details: { link, state: 'diverged' } },
      );
    }
    if (signal.aborted) return;
    this.attempt = new Attempt(
      this.config,
      this.events,
      this.stopAt,
      this.tracker,
      source,
      target,
      producer,
      { ...checkpoint, generation: checkpoint.generation + 1, holder: this.holder },
      leader,
    );
    this.ran = true;
    await this.attempt.run(signal);
  }

  /** Only when nobody else has the link since: two processes that take it back from each other would do so for ever. */
  private async take(target: Cluster): Promise<TransactionalProducer> {
    const { link } = this.config;
    const id = transactionalId(link);
    try {
      return await TransactionalProducer.take(target, id, TRANSACTION_TIMEOUT_MS, this.held);
    } catch (error) {
      if (this.held === undefined || !isInterlockError(error, 'HeldByOther')) throw error;
      // A coordinator that has undone a transaction that took too long fences its producer, too: then nobody else has claimed the link.
      const { checkpoint } = await readCheckpoint(target, link);
      if (checkpoint?.holder !== this.holder) throw error;
      return TransactionalProducer.take(target, id, TRANSACTION_TIMEOUT_MS);
    }
  }
}

const STOPPED_FOR = new Set(['diverged', 'resync-required', 'gap']);
const UNKNOWN_LAG: LinkLag = { lagMs: 0, lagBytes: null, stalledMs: 0, checkpointAgeMs: null, binlog: null };
