import { Attempts, Opened, TakeOverUnknown } from '../core/attempts.js';
import type { LinkEvents, LinkStatus, RunnableLink } from '../core/contract.js';
import { StatusTracker } from '../core/status.js';
import type { StopAt } from '../core/stop-points.js';
import { Attempt } from './attempt.js';
import { heldByOther, neverStarted, readCheckpoint, takeGeneration } from './checkpoint.js';
import { RedisConnection } from './connection.js';
import type { RedisLinkConfig } from './link-config.js';

/** From the first connection to the stream. */
const OPENING_MS = 60_000;

/**
 * One directed replicator, as attempts: each takes the next generation of the checkpoint, replicates from there and applies, until the source or the
 * target is lost; then the next attempt begins at the checkpoint. What is in memory is never needed again.
 */
export class RedisLink implements RunnableLink {
  private readonly tracker: StatusTracker;
  private readonly attempts: Attempts;
  private attempt: Attempt | undefined;
  /** The generation that this link took last. */
  private held: number | undefined;
  /** The next generation was asked for, and the answer has not come: it may be taken. */
  private taking = false;
  /** What the target refused before EXEC: by its offset in the source's stream. */
  private readonly refused = new Map<number, string>();

  constructor(
    private readonly config: RedisLinkConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: StopAt,
  ) {
    this.tracker = new StatusTracker(config.link);
    this.tracker.filtered = 0;
    this.tracker.lateDeletions = 0;
    this.attempts = new Attempts({
      tracker: this.tracker,
      onStatus: events.onStatus,
      status: () => this.status(),
      // When only a new run can tell who holds the link, this one ends.
      mends: (error) => {
        if (!error.retryable || error instanceof TakeOverUnknown) return false;
        return error.details['again'] === 'at once' ? 'at once' : true;
      },
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
    try {
      await this.attempts.cuttable(() => this.open(opened, signal), OPENING_MS);
    } finally {
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
    const { config } = this;
    const { source: sourceServer, target: targetServer, link } = config;
    const target = opened.add(await RedisConnection.open(targetServer, 'interlock-link'), destroy);
    await this.requireHeld(target);
    const data = opened.add(
      await RedisConnection.open(targetServer, 'interlock-link-data', { skipsStrings: true }),
      destroy,
    );
    const source = opened.add(await RedisConnection.open(sourceServer, 'interlock-link'), destroy);
    this.taking = true;
    const checkpoint = await takeGeneration(target, link, this.held);
    this.taking = false;
    if (checkpoint === undefined) {
      await this.requireHeld(target);
      throw neverStarted(link);
    }
    this.held = checkpoint.generation;
    const connections = {
      source,
      target,
      data,
      add: (replica: { close: () => void }) => void opened.add(replica, (one) => one.close()),
    };
    this.attempt = new Attempt(
      config,
      this.events,
      this.stopAt,
      this.tracker,
      connections,
      checkpoint,
      this.refused,
    );
    await this.attempt.run(signal);
  }

  /**
   * A link that lost its connection while another process took over must not take it back: the two would end each other's work for
   * ever. Only a new run (a new activity attempt) may take a generation that is not its own.
   */
  private async requireHeld(target: RedisConnection): Promise<void> {
    if (this.held === undefined) return;
    const { link } = this.config;
    const found = await readCheckpoint(target, link);
    if (found?.generation === this.held) return;
    // Hazard: the generation may be this link's own, its answer lost: as final, nobody would run the link.
    if (this.taking) throw new TakeOverUnknown(link);
    throw found === undefined ? neverStarted(link, true) : heldByOther(link);
  }
}

function destroy(connection: RedisConnection): void {
  connection.destroy();
}
