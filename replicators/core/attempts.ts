import { InterlockError } from '../../src/errors.js';
import type { LinkEvents, LinkStatus } from './contract.js';
import { pause } from './pause.js';
import type { LinkLag, StatusTracker } from './status.js';

const STATUS_MS = 500;
const BACKOFF_MS = { first: 100, most: 5_000 };
/** An attempt that has run for so long has not failed at once: the next one does not wait for long. */
const LASTED_MS = 10_000;
/** Of a link whose attempt has not begun, or that needs no binlog. */
export const UNKNOWN_LAG: LinkLag = {
  lagMs: 0,
  lagBytes: null,
  stalledMs: 0,
  checkpointAgeMs: null,
  binlog: null,
};
/** States that an error has set; they say more than `failed`. */
const STOPPED_FOR: ReadonlySet<string> = new Set(['diverged', 'resync-required', 'gap']);

export interface AttemptsOptions {
  tracker: StatusTracker;
  onStatus: LinkEvents['onStatus'];
  status: () => LinkStatus;
  /** Whether another attempt can mend it, and whether at once. Default: what is retryable, after a pause. */
  mends?: (error: InterlockError) => boolean | 'at once';
}

/**
 * A link as attempts: one after the other until the signal is aborted (returns), or one ends with what no other attempt mends (throws it). Lost
 * connections are mended here, without limit: only an operator knows when a server will not come back.
 */
export class Attempts {
  private cut: (error: InterlockError) => void = () => undefined;
  /** How far it was behind when it lost its connections, and when that was. */
  private lost: { lag: LinkLag; at: number } = { lag: UNKNOWN_LAG, at: Date.now() };

  constructor(private readonly options: AttemptsOptions) {}

  /** @param once one attempt; resolves when the signal is aborted */
  async run(signal: AbortSignal, once: () => Promise<void>): Promise<void> {
    const { tracker, onStatus, status, mends = ({ retryable }) => retryable } = this.options;
    const tell = (): void => onStatus(status(), tracker.tableRows());
    const timer = setInterval(tell, STATUS_MS);
    let backoff = BACKOFF_MS.first;
    try {
      while (!signal.aborted) {
        const startedAt = Date.now();
        try {
          await once();
        } catch (error) {
          tracker.failed(error);
          const again = error instanceof InterlockError && mends(error);
          if (again === false) {
            if (!STOPPED_FOR.has(tracker.state)) tracker.state = 'failed';
            throw error;
          }
          tracker.state = 'starting';
          tell();
          if (again === 'at once') continue;
          if (Date.now() - startedAt > LASTED_MS) backoff = BACKOFF_MS.first;
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

  /**
   * Runs what `disconnect` can end, whatever it waits for. Hazard: a query whose connection is destroyed is never answered.
   * @param openingMs how long the link may be `starting`
   */
  async cuttable(work: () => Promise<void>, openingMs?: number): Promise<void> {
    const cut = new Promise<never>((_resolve, reject) => (this.cut = reject));
    const deadline =
      openingMs === undefined
        ? undefined
        : setTimeout(() => {
            if (this.options.tracker.state === 'starting')
              this.disconnect(`a server has not answered in ${openingMs} ms while the link starts`);
          }, openingMs);
    try {
      await Promise.race([work(), cut]);
    } finally {
      clearTimeout(deadline);
    }
  }

  /** Ends the attempt whatever it waits for: its connections go, with what they had open. */
  disconnect(why: string): void {
    this.cut(new InterlockError('Unavailable', why, { retryable: true }));
  }

  /** @param attempt has ended; one that has not looked at its source knows nothing of the lag */
  ended(attempt: { hasLooked: boolean; lag: () => LinkLag } | undefined): void {
    if (attempt?.hasLooked === true) this.lost = { lag: attempt.lag(), at: Date.now() };
  }

  /** Of a link that is not connected. */
  lag(): LinkLag {
    const { lag, at } = this.lost;
    const since = Date.now() - at;
    return {
      ...lag,
      lagMs: Math.max(1, lag.lagMs + since),
      // With all applied when it was lost, nobody knows whether the source has more.
      stalledMs: lag.lagMs === 0 ? 0 : lag.stalledMs + since,
      checkpointAgeMs: lag.checkpointAgeMs === null ? null : lag.checkpointAgeMs + since,
    };
  }
}

/** The connections of an attempt. One that comes when the attempt has ended must not go on as a second one. */
export class Opened {
  private readonly endings: (() => void)[] = [];
  private closed = false;

  add<T>(connection: T, end: (connection: T) => void): T {
    this.endings.push(() => end(connection));
    if (this.closed) {
      end(connection);
      throw new InterlockError('Unavailable', 'the attempt has ended', { retryable: true });
    }
    return connection;
  }

  close(): void {
    this.closed = true;
    for (const end of this.endings) end();
  }
}

/** Ends the run, but not the link: the next run takes a generation of its own. */
export class TakeOverUnknown extends InterlockError {
  constructor(link: string) {
    super(
      'Unavailable',
      `${link}: the answer to its take-over was lost, and the generation is not the one it held; a new attempt takes the link over`,
      { retryable: true, details: { link } },
    );
  }
}
