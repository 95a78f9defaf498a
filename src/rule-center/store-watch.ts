import { isInterlockError, messageOf } from '../errors.js';
import type { StoredRules } from '../fence/rules-store.js';
import type { Logger } from '../observability/logger.js';
import type { Problem } from './api.js';
import type { RuleBook } from './rule-book.js';

/** The rules table of the control store: a RulesStore. */
export interface RulesSource {
  readonly name: string;
  current(): Promise<StoredRules | undefined>;
  highestEpoch(): Promise<number>;
}

const POLL_MS = 500;

/**
 * Looks twice a second whether the control store has a higher epoch than the rule book: a switchover commits the switch epoch there, and
 * whoever should have told the rule center of it may be dead.
 */
export class StoreWatch {
  /** Highest epoch of the store when last looked at; null: it did not answer. */
  storeEpoch: number | null = null;
  private problem: Problem | undefined;
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(
    private readonly store: RulesSource,
    private readonly book: RuleBook,
    private readonly log: Logger,
    private readonly pollMs = POLL_MS,
  ) {}

  get problems(): Problem[] {
    return this.problem === undefined ? [] : [this.problem];
  }

  /** Looks once now, then every half second. */
  async start(): Promise<void> {
    await this.look();
    this.schedule();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  /** One look. Never rejects; what is wrong is in `problems`. */
  async look(): Promise<void> {
    try {
      const known = this.book.current?.rules.epoch ?? 0;
      this.storeEpoch = await this.store.highestEpoch();
      if (this.storeEpoch > known) {
        const stored = await this.store.current();
        if (stored !== undefined) this.book.offer(stored);
        this.say(undefined);
      } else if (this.storeEpoch < known) {
        this.say({
          code: 'StoreBehind',
          message:
            `${this.store.name} has rules up to epoch ${this.storeEpoch}, ${known} was in force here: the store was restored or has lost ` +
            'commits. Compare both data centers (`interlock rules show`, `interlock fence status`) before anything is switched',
        });
      } else this.say(undefined);
    } catch (error) {
      if (!isInterlockError(error, 'EpochConflict')) this.storeEpoch = null;
      this.say({
        code: isInterlockError(error) ? error.code : 'Internal',
        message: `${this.store.name}: ${messageOf(error)}`,
      });
    }
  }

  private say(problem: Problem | undefined): void {
    const before = this.problem;
    this.problem = problem;
    if (before?.code === problem?.code) return;
    if (problem === undefined) this.log.info('the control store is well again');
    else this.log.error({ code: problem.code }, problem.message);
  }

  private schedule(): void {
    if (this.stopped) return;
    this.timer = setTimeout(() => void this.look().then(() => this.schedule()), this.pollMs);
  }
}
