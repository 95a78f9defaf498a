import type { Connection } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import { Attempts, Opened, TakeOverUnknown } from '../core/attempts.js';
import type { LinkEvents, LinkStatus, RunnableLink } from '../core/contract.js';
import { StatusTracker } from '../core/status.js';
import { Attempt } from './attempt.js';
import { heldByOther, readCheckpoint, takeGeneration } from './checkpoint.js';
import { keepTombstones, preflightLink } from './initialise.js';
import { requireLineage } from './lineage.js';
import type { LinkConfig } from './link-config.js';
import { Patience } from './patience.js';
import { queueBudget } from './queue-budget.js';
import { answersInTime, connect, connectTarget, takeLock } from './session.js';
import { deletesFor } from './tombstones.js';
import type { StopAt } from '../core/stop-points.js';
import { LOCK_ERRORS, isUnavailable } from './target-errors.js';
import type { SqlError } from './target-errors.js';

/** From the first connection to the stream. */
const OPENING_MS = 60_000;

/**
 * One directed replicator, as attempts: each takes the next generation of the checkpoint, streams from there and applies, until the
 * source or the target is lost; then the next attempt begins at the checkpoint. What is in memory is never needed again.
 */
export class Link implements RunnableLink {
  private readonly config: LinkConfig;
  private readonly events: LinkEvents;
  private readonly stopAt: StopAt;
  private readonly tracker: StatusTracker;
  private readonly attempts: Attempts;
  private attempt: Attempt | undefined;
  private readonly patience: Patience;
  /** The generation that this link took last. */
  private held: number | undefined;
  /** The next generation was asked for, and the answer has not come: it may be taken. */
  private taking = false;

  constructor(config: LinkConfig, events: LinkEvents, stopAt: StopAt) {
    this.config = config;
    this.events = events;
    this.stopAt = stopAt;
    this.tracker = new StatusTracker(config.link);
    this.patience = new Patience(config.answerMs);
    this.attempts = new Attempts({
      tracker: this.tracker,
      onStatus: events.onStatus,
      status: () => this.status(),
      // When only a new run can tell who holds the link, this one ends.
      mends: (error) => error.retryable && !(error instanceof TakeOverUnknown),
    });
  }

  status(): LinkStatus {
    return this.tracker.snapshot(this.attempt?.lag() ?? this.attempts.lag());
  }

  /**
   * Runs until `signal` is aborted (returns) or the link has to stop (throws an InterlockError that is not retryable; it is retryable
   * when only a new run can tell who holds the link).
   */
  async run(signal: AbortSignal): Promise<void> {
    await this.attempts.run(signal, () => this.once(signal));
  }

  private async once(signal: AbortSignal): Promise<void> {
    const opened = new Opened();
    const leave = queueBudget.join();
    try {
      await this.attempts.cuttable(() => this.open(opened, signal), OPENING_MS);
    } catch (error) {
      this.patience.ended(error instanceof InterlockError ? error.cause : error, this.tracker.position);
      if (error instanceof InterlockError) throw error;
      // A server that shuts down, or that still undoes what the attempt before had open (its lock is waited for in vain), answers with an error.
      const { fatal, errno } = error as SqlError;
      const lost =
        fatal === true ||
        (errno !== undefined && (isUnavailable(error as SqlError) || LOCK_ERRORS.has(errno)));
      throw new InterlockError(lost ? 'Unavailable' : 'Internal', (error as Error).message, {
        cause: error,
        retryable: lost,
      });
    } finally {
      leave();
      this.attempts.ended(this.attempt);
      this.attempt = undefined;
      opened.close();
    }
  }

  disconnect(why: string): void {
    this.attempts.disconnect(why);
  }

  /** @param opened takes the connections, for the caller to close */
  private async open(opened: Opened, signal: AbortSignal): Promise<void> {
    const { source: sourceServer, target: targetServer, link } = this.config;
    const target = opened.add(await connectTarget(targetServer), destroy);
    await this.requireHeld(target);
    await takeLock(target, link);
    await deletesFor(target, link);
    const source = opened.add(answersInTime(await connect(sourceServer)), destroy);
    await keepTombstones(this.config, source, target);
    await preflightLink(this.config, source, target, 'goes on');
    this.taking = true;
    const checkpoint = await takeGeneration(target, link, this.held);
    this.taking = false;
    if (checkpoint === undefined) {
      await this.requireHeld(target);
      throw new InterlockError(
        'Refused',
        `${link} has no checkpoint; run: interlock replicate start ${link} --from now`,
      );
    }
    this.held = checkpoint.generation;
    await requireLineage(
      {
        link,
        from: this.config.from,
        flavour: sourceServer.flavour,
        mend: {
          diverged: `Reconcile the data, then: interlock replicate start ${link} --from POSITION --discard-checkpoint`,
          purged: `Copy what is missing: interlock replicate resync ${link}`,
        },
      },
      source,
      checkpoint.position,
    );
    this.attempt = new Attempt(
      this.config,
      this.events,
      this.stopAt,
      this.tracker,
      source,
      target,
      checkpoint,
      this.patience,
    );
    await this.attempt.run(signal);
  }

  /**
   * A link that lost its connection while another process took over must not take it back: the two would end each other's sessions for
   * ever. Only a new run (a new activity attempt) may take a generation that is not its own.
   */
  private async requireHeld(target: Connection): Promise<void> {
    if (this.held === undefined) return;
    const found = await readCheckpoint(target, this.config.link);
    if (found?.generation === this.held) return;
    // Hazard: the generation may be this link's own, its answer lost: as final, nobody would run the link.
    if (this.taking) throw new TakeOverUnknown(this.config.link);
    throw heldByOther(this.config.link);
  }
}

function destroy(connection: Connection): void {
  connection.destroy();
}
