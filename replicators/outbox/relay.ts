import { InterlockError, isInterlockError, messageOf } from '../../src/errors.js';
import { Attempts, UNKNOWN_LAG } from '../core/attempts.js';
import type { LinkStatus } from '../core/contract.js';
import { StatusTracker } from '../core/status.js';
import type { LinkLag } from '../core/status.js';
import { Cluster } from '../kafka/client/cluster.js';
import type { LinkEvents } from '../core/contract.js';
import { requireLineage } from '../mysql/lineage.js';
import { queueBudget } from '../mysql/queue-budget.js';
import { connect } from '../mysql/session.js';
import type { StopAt } from '../core/stop-points.js';
import { isUnavailable } from '../mysql/target-errors.js';
import type { SqlError } from '../mysql/target-errors.js';
import { LinkHold } from '../kafka/claim.js';
import { readPosition } from './position.js';
import { RelayAttempt } from './relay-attempt.js';
import type { RelayConfig } from './relay-config.js';

/**
 * The relay of a store's outbox to the Kafka of the same data center: the rows of its own transactions, in the order of their commits, each once.
 * Those that the other data center wrote come with its link's mark and are dropped: its own relay has them. Contract as of a link.
 */
export class OutboxRelay {
  private readonly tracker: StatusTracker;
  private attempt: RelayAttempt | undefined;
  private readonly hold: LinkHold;
  private lastLag: LinkLag = { ...UNKNOWN_LAG, lagMs: 1 };
  private readonly attempts: Attempts;

  constructor(
    private readonly config: RelayConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: StopAt,
  ) {
    this.hold = new LinkHold(config.link);
    this.tracker = new StatusTracker(config.link);
    this.attempts = new Attempts({
      tracker: this.tracker,
      onStatus: events.onStatus,
      status: () => this.status(),
    });
  }

  status(): LinkStatus {
    return this.tracker.snapshot(this.attempt?.lag() ?? this.lastLag);
  }

  /** Runs until `signal` is aborted (returns) or the relay has to stop (throws an InterlockError that is not retryable). */
  async run(signal: AbortSignal): Promise<void> {
    await this.attempts.run(signal, () => this.once(signal));
  }

  disconnect(why: string): void {
    this.attempts.disconnect(why);
  }

  private async once(signal: AbortSignal): Promise<void> {
    const cluster = new Cluster(this.config.target);
    const leave = queueBudget.join();
    let ended = false;
    let closeSource = (): void => undefined;
    const open = async (): Promise<void> => {
      const { config } = this;
      const { link } = config;
      // Taken first: an attempt that is gone can commit nothing behind the position that is read now.
      const producer = await this.hold.take(cluster);
      const { found, leader, claimedBy } = await readPosition(cluster, link);
      this.hold.requireClaim(claimedBy);
      if (found === undefined) {
        throw new InterlockError(
          'Refused',
          `${link} has no position in ${config.dc}'s Kafka; run: interlock replicate start ${link} --from now`,
          { details: { link } },
        );
      }
      const source = await connect(config.source);
      closeSource = () => source.destroy();
      if (ended) closeSource();
      await requireLineage(lineageOf(config), source, found.position);
      const { events, stopAt, tracker } = this;
      const attempt = new RelayAttempt(
        ...([config, events, stopAt, tracker, source, cluster, producer] as const),
        { ...found, generation: found.generation + 1, started: true },
        leader,
      );
      this.attempt = attempt;
      await attempt.run(signal);
    };
    try {
      await this.attempts.cuttable(open);
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

function lineageOf({ link, dc, source }: RelayConfig): Parameters<typeof requireLineage>[0] {
  return {
    link,
    from: dc,
    flavour: source.flavour,
    mend: {
      diverged:
        'Look which events Kafka lacks, then start the relay with --from POSITION --discard-checkpoint',
      purged:
        'The events of the purged part are in the outbox tables only: send what Kafka lacks, then start the relay with --from POSITION --discard-checkpoint',
    },
  };
}
