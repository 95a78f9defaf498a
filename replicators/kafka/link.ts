import { InterlockError, isInterlockError, messageOf } from '../../src/errors.js';
import { Attempts } from '../core/attempts.js';
import type { LinkStatus } from '../core/contract.js';
import { StatusTracker } from '../core/status.js';
import type { StopAt } from '../core/stop-points.js';
import { Attempt } from './attempt.js';
import type { LinkEvents } from './attempt.js';
import { readCheckpoint } from './checkpoint.js';
import { LinkHold } from './claim.js';
import { Cluster } from './client/cluster.js';
import type { KafkaLinkConfig } from './link-config.js';
import { ensureMarkerTopic } from './markers.js';

export type { LinkEvents } from './attempt.js';

/**
 * One directed replicator, as attempts: each takes the link's transactional id, reads the checkpoint, copies from there, until a broker is
 * lost or answers what a new attempt mends. What is in memory is never needed again.
 */
export class KafkaLink {
  private readonly tracker: StatusTracker;
  private readonly attempts: Attempts;
  private attempt: Attempt | undefined;
  private readonly hold: LinkHold;
  /** The last attempt had the link. */
  private ran = false;

  constructor(
    private readonly config: KafkaLinkConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: StopAt,
  ) {
    this.hold = new LinkHold(config.link);
    this.tracker = new StatusTracker(config.link);
    this.attempts = new Attempts({
      tracker: this.tracker,
      onStatus: events.onStatus,
      status: () => this.status(),
      mends: (error) => error.retryable || this.mayStillHold(error),
    });
  }

  status(): LinkStatus {
    if (this.attempt?.hasLooked === true) {
      this.attempt.showPositions();
      this.tracker.kafka = this.attempt.kafka();
      return this.tracker.snapshot(this.attempt.lag());
    }
    return this.tracker.snapshot(this.attempts.lag());
  }

  /** Runs until `signal` is aborted (returns) or the link has to stop (throws an InterlockError that is not retryable). */
  async run(signal: AbortSignal): Promise<void> {
    await this.attempts.run(signal, () => this.once(signal));
  }

  private async once(signal: AbortSignal): Promise<void> {
    const source = new Cluster(this.config.source);
    const target = new Cluster(this.config.target);
    try {
      await this.attempts.cuttable(() => this.open(source, target, signal));
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof InterlockError) throw error;
      throw new InterlockError('Internal', messageOf(error), { cause: error });
    } finally {
      this.attempts.ended(this.attempt);
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

  disconnect(why: string): void {
    this.attempts.disconnect(why);
  }

  private async open(source: Cluster, target: Cluster, signal: AbortSignal): Promise<void> {
    const { link, from } = this.config;
    await ensureMarkerTopic(source);
    const producer = await this.hold.take(target);
    const { checkpoint, leader, claimedBy } = await readCheckpoint(target, link);
    this.hold.requireClaim(claimedBy);
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
      { ...checkpoint, generation: checkpoint.generation + 1, gaps: [...(checkpoint.gaps ?? [])] },
      leader,
    );
    this.ran = true;
    await this.attempt.run(signal);
  }
}
