import { InterlockError, isInterlockError, messageOf } from '../../src/errors.js';
import type { LinkStatus } from '../core/contract.js';
import { StatusTracker } from '../core/status.js';
import type { LinkLag } from '../core/status.js';
import { Cluster } from '../kafka/client/cluster.js';
import type { ProducerIdentity } from '../kafka/client/transaction-api.js';
import type { LinkEvents } from '../core/contract.js';
import { requireLineage } from '../mysql/lineage.js';
import { pause } from '../mysql/pause.js';
import { queueBudget } from '../mysql/queue-budget.js';
import { connect } from '../mysql/session.js';
import type { StopPoint } from '../core/stop-points.js';
import { isUnavailable } from '../mysql/target-errors.js';
import type { SqlError } from '../mysql/target-errors.js';
import { readPosition, takeRelay } from './position.js';
import { RelayAttempt } from './relay-attempt.js';
import type { RelayConfig } from './relay-config.js';

const STATUS_MS = 500;
const BACKOFF_MS = { first: 100, most: 5_000 };
const UNKNOWN_LAG: LinkLag = { lagMs: 1, lagBytes: null, stalledMs: 0, checkpointAgeMs: null, binlog: null };

/**
 * The relay of a store's outbox to the Kafka of the same data center: the rows of its own transactions, in the order of their commits, each once.
 * Those that the other data center wrote come with its link's mark and are dropped: its own relay has them. Contract as of a link.
 */
export class OutboxRelay {
  private readonly tracker: StatusTracker;
  private attempt: RelayAttempt | undefined;
  private held: ProducerIdentity | undefined;
  private lastLag = UNKNOWN_LAG;
  private cut: (error: InterlockError) => void = () => undefined;

  constructor(
    private readonly config: RelayConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: (point: StopPoint) => void,
  ) {
    this.tracker = new StatusTracker(config.relay);
  }

  status(): LinkStatus {
    return this.tracker.snapshot(this.attempt?.lag() ?? this.lastLag);
  }

  /**
   * Runs until `signal` is aborted (returns) or the relay has to stop (throws an InterlockError that is not retryable). Lost connections are
   * mended here, without limit.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { tracker } = this;
    const tell = (): void => this.events.onStatus(this.status(), tracker.tableRows());
    const timer = setInterval(tell, STATUS_MS);
    let backoff = BACKOFF_MS.first;
    try {
      while (!signal.aborted) {
        const startedAt = performance.now();
        try {
          await this.once(signal);
        } catch (error) {
          tracker.failed(error);
          if (!isInterlockError(error) || !error.retryable) {
            if (tracker.state !== 'diverged' && tracker.state !== 'resync-required') tracker.state = 'failed';
            throw error;
          }
          tracker.state = 'starting';
          tell();
          if (performance.now() - startedAt > 10_000) backoff = BACKOFF_MS.first;
          await pause(backoff, signal);
          backoff = Math.min(backoff * 2, BACKOFF_MS.most);
        }
      }
      tracker.state = 'stopped';
    } finally {
      clearInterval(timer);
      tell();
    }
  }

  /** Ends the attempt whatever it waits for. */
  disconnect(why: string): void {
    this.cut(new InterlockError('Unavailable', why, { retryable: true }));
  }

  private async once(signal: AbortSignal): Promise<void> {
    const cluster = new Cluster(this.config.target);
    const leave = queueBudget.join();
    const cut = new Promise<never>((_resolve, reject) => (this.cut = reject));
    let ended = false;
    let closeSource = (): void => undefined;
    const open = async (): Promise<void> => {
      const { config } = this;
      // Taken first: an attempt that is gone can commit nothing behind the position that is read now.
      const producer = await takeRelay(cluster, config.relay, this.held);
      this.held = producer.identity;
      const { found, leader } = await readPosition(cluster, config.relay);
      if (found === undefined) {
        throw new InterlockError(
          'Refused',
          `${config.relay} has no position in ${config.dc}'s Kafka; initialise it`,
          {
            details: { relay: config.relay },
          },
        );
      }
      const source = await connect(config.source);
      closeSource = () => source.destroy();
      if (ended) closeSource();
      await requireLineage(lineageOf(config), source, found.position);
      const { events, stopAt, tracker } = this;
      const attempt = new RelayAttempt(
        ...([config, events, stopAt, tracker, source, cluster, producer, found, leader] as const),
      );
      this.attempt = attempt;
      await attempt.run(signal);
    };
    try {
      // Hazard: a query whose connection is destroyed is never answered.
      await Promise.race([open(), cut]);
    } catch (error) {
      throw this.judged(error);
    } finally {
      ended = true;
      leave();
      if (this.attempt !== undefined) this.lastLag = this.attempt.lag();
      this.attempt = undefined;
      closeSource();
      cluster.close();
    }
  }

  private judged(error: unknown): unknown {
    // A coordinator that undid a transaction for its age says the same as one that gave the id to another process: the next take tells.
    if (isInterlockError(error, 'HeldByOther') && this.attempt !== undefined)
      return new InterlockError('Unavailable', error.message, { cause: error, retryable: true });
    if (isInterlockError(error)) return error;
    const lost = (error as SqlError).fatal === true || isUnavailable(error as SqlError);
    return new InterlockError(lost ? 'Unavailable' : 'Internal', messageOf(error), {
      cause: error,
      retryable: lost,
    });
  }
}

function lineageOf({ relay, dc, source }: RelayConfig): Parameters<typeof requireLineage>[0] {
  return {
    link: relay,
    from: dc,
    flavour: source.flavour,
    mend: {
      diverged: 'Look which events Kafka lacks, then initialise the relay at a position, discarding this one',
      purged:
        'The events of the purged part are in the outbox tables only: send what Kafka lacks, then initialise the relay at a position, discarding this one',
    },
  };
}
