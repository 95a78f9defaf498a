import type { Connection } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { LinkEvents, LinkStatus, RunnableLink } from '../core/contract.js';
import { StatusTracker } from '../core/status.js';
import type { LinkLag } from '../core/status.js';
import { Attempt } from './attempt.js';
import { heldByOther, readCheckpoint, takeGeneration } from './checkpoint.js';
import { keepTombstones, preflightLink } from './initialise.js';
import { requireLineage } from './lineage.js';
import type { LinkConfig } from './link-config.js';
import { pause } from './pause.js';
import { queueBudget } from './queue-budget.js';
import { connect, connectTarget, takeLock } from './session.js';
import type { StopPoint } from '../core/stop-points.js';
import { LOCK_ERRORS, isUnavailable } from './target-errors.js';
import type { SqlError } from './target-errors.js';

const STATUS_MS = 500;
/** From the first connection to the stream. */
const OPENING_MS = 60_000;
const BACKOFF_MS = { first: 100, most: 5_000 };

/**
 * One directed replicator, as attempts: each takes the next generation of the checkpoint, streams from there and applies, until the
 * source or the target is lost; then the next attempt begins at the checkpoint. What is in memory is never needed again.
 */
export class Link implements RunnableLink {
  private readonly config: LinkConfig;
  private readonly events: LinkEvents;
  private readonly stopAt: (point: StopPoint) => void;
  private readonly tracker: StatusTracker;
  private attempt: Attempt | undefined;
  private cut: (error: InterlockError) => void = () => undefined;
  /** The generation that this link took last. */
  private held: number | undefined;
  /** The next generation was asked for, and the answer has not come: it may be taken. */
  private taking = false;
  /** How far it was behind when it lost its connections, and when that was. */
  private lost: { lag: LinkLag; at: number } = { lag: UNKNOWN_LAG, at: Date.now() };

  constructor(config: LinkConfig, events: LinkEvents, stopAt: (point: StopPoint) => void) {
    this.config = config;
    this.events = events;
    this.stopAt = stopAt;
    this.tracker = new StatusTracker(config.link);
  }

  status(): LinkStatus {
    if (this.attempt !== undefined) return this.tracker.snapshot(this.attempt.lag());
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
   * Runs until `signal` is aborted (returns) or the link has to stop (throws an InterlockError that is not retryable; it is retryable
   * when only a new run can tell who holds the link).
   * Lost connections are mended here, without limit: only an operator knows when a server will not come back.
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
          this.tracker.failed(error);
          if (!(error instanceof InterlockError) || !error.retryable || error instanceof TakeOverUnknown) {
            if (this.tracker.state !== 'diverged' && this.tracker.state !== 'resync-required')
              this.tracker.state = 'failed';
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
    const opened = new Sessions();
    const leave = queueBudget.join();
    const cut = new Promise<never>((_resolve, reject) => (this.cut = reject));
    const deadline = setTimeout(() => {
      if (this.tracker.state === 'starting')
        this.disconnect(`a server has not answered in ${OPENING_MS} ms while the link starts`);
    }, OPENING_MS);
    try {
      // Hazard: a query whose connection is destroyed is never answered.
      await Promise.race([this.open(opened, signal), cut]);
    } catch (error) {
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
      clearTimeout(deadline);
      leave();
      if (this.attempt?.hasLooked === true) this.lost = { lag: this.attempt.lag(), at: Date.now() };
      this.attempt = undefined;
      opened.close();
    }
  }

  /** Ends the attempt whatever it waits for: its sessions go, with what they had open. */
  disconnect(why: string): void {
    this.cut(new InterlockError('Unavailable', why, { retryable: true }));
  }

  /** @param opened takes the connections, for the caller to close */
  private async open(opened: Sessions, signal: AbortSignal): Promise<void> {
    const { source: sourceServer, target: targetServer, link } = this.config;
    const target = opened.add(await connectTarget(targetServer));
    await this.requireHeld(target);
    await takeLock(target, link);
    const source = opened.add(await connect(sourceServer));
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

/** The connections of an attempt. One that comes when the attempt has ended must not go on as a second one. */
class Sessions {
  private readonly connections: Connection[] = [];
  private closed = false;

  add(connection: Connection): Connection {
    this.connections.push(connection);
    if (this.closed) {
      connection.destroy();
      throw new InterlockError('Unavailable', 'the attempt has ended', { retryable: true });
    }
    return connection;
  }

  close(): void {
    this.closed = true;
    for (const connection of this.connections) connection.destroy();
  }
}

const UNKNOWN_LAG: LinkLag = { lagMs: 0, lagBytes: null, stalledMs: 0, checkpointAgeMs: null, binlog: null };

/** Ends the run, but not the link: the next run takes a generation of its own. */
class TakeOverUnknown extends InterlockError {
  constructor(link: string) {
    super(
      'Unavailable',
      `${link}: the answer to its take-over was lost, and the generation is not the one it held; a new attempt takes the link over`,
      { retryable: true, details: { link } },
    );
  }
}
