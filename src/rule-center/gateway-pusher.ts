import { messageOf } from '../errors.js';
import type { GatewayAdmin, GatewayStatus } from '../gateway/admin-client.js';
import type { Logger } from '../observability/logger.js';
import type { Rules } from '../routing/rules.js';
import type { DcId } from '../routing/units.js';
import type { Confirmation, GatewayView } from './api.js';
import type { Entry, RuleBook } from './rule-book.js';

/** The admin endpoint of one gateway, with a deadline of its own: a GatewayAdmin. */
export type GatewayPort = Pick<GatewayAdmin, 'close'> & {
  putRules(rules: Rules, hash: string): Promise<{ epoch: number; held: number }>;
  status(): Promise<Status>;
};

type Status = Omit<GatewayStatus, 'topology' | 'dc' | 'gateway' | 'workers'>;

/** A gateway that has not answered a push or question by then has not confirmed. */
export const GATEWAY_TIMEOUT_MS = 1_000;
const POLL_MS = 1_000;

/**
 * Keeps one gateway at the rule book's epoch: pushes each epoch at once, looks every second whether the gateway has it (it may have been
 * started anew, or a push was lost), and pushes again on difference.
 */
export class GatewayPusher {
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;
  private asking: Promise<Status> | undefined;
  private pushing: { epoch: number; done: Promise<Confirmation> } | undefined;
  /** As of the last answer; undefined: never answered. */
  private last: { status: Status | undefined; problem: string | undefined } = {
    status: undefined,
    problem: 'not asked yet',
  };

  constructor(
    readonly dc: DcId,
    readonly name: string,
    private readonly admin: GatewayPort,
    private readonly book: RuleBook,
    private readonly log: Logger,
    private readonly pollMs = POLL_MS,
  ) {}

  start(): void {
    this.schedule(0);
  }

  async stop(): Promise<void> {
    this.stopped = true;
    clearTimeout(this.timer);
    await this.admin.close();
  }

  /** Pushes an entry now and answers what the gateway said. Never rejects. Two pushes of one epoch are one. */
  async push(entry: Entry): Promise<Confirmation> {
    const { epoch } = entry.rules;
    if (this.pushing?.epoch === epoch) return this.pushing.done;
    const done = this.pushOnce(entry);
    const mine = { epoch, done };
    this.pushing = mine;
    try {
      return await done;
    } finally {
      // Not for ever: a gateway that lost its rules is pushed the same epoch again.
      if (this.pushing === mine) this.pushing = undefined;
    }
  }

  private async pushOnce(entry: Entry): Promise<Confirmation> {
    const { epoch } = entry.rules;
    try {
      const answer = await this.admin.putRules(entry.rules, entry.hash);
      const { status } = this.last;
      if (status !== undefined && answer.epoch === epoch) {
        this.last = { status: { ...status, epoch, hash: entry.hash, held: answer.held }, problem: undefined };
      }
      return this.confirmation(answer.epoch, answer.epoch >= epoch, `has epoch ${answer.epoch}`);
    } catch (error) {
      const problem = `did not take epoch ${epoch}: ${messageOf(error)}`;
      this.last = { status: this.last.status, problem };
      this.log.warn({ gateway: this.name, epoch, error: messageOf(error) }, 'gateway did not take the rules');
      // A gateway that went ahead answers that the epoch is stale: then it has what was asked for.
      const seen = await this.ask().catch(() => undefined);
      if (seen?.epoch != null && seen.epoch > epoch) {
        return this.confirmation(seen.epoch, true, `is ahead at epoch ${seen.epoch}`);
      }
      return this.confirmation(seen?.epoch ?? null, false, problem);
    }
  }

  /** Asks the gateway now. Never rejects. */
  async look(): Promise<GatewayView> {
    await this.ask().catch(() => undefined);
    return this.view();
  }

  /** As of the last answer. */
  view(): GatewayView {
    const { status, problem } = this.last;
    const wanted = this.book.current;
    const detail = problem ?? differenceOf(status!, wanted);
    return {
      gateway: this.name,
      // Hazard: a gateway that no longer answers still counts as having its last epoch. Guard: its epoch is unknown then.
      epoch: problem === undefined ? status!.epoch : null,
      hash: problem === undefined ? status!.hash : null,
      ok: detail === undefined,
      detail: detail ?? `has epoch ${status!.epoch}`,
      held: status?.held ?? 0,
      heldTotal: status?.heldTotal ?? 0,
      refusedTotal: status?.refusedTotal ?? 0,
      failedTotal: status?.failedTotal ?? 0,
      forwardedTotal: status?.forwardedTotal ?? 0,
      unavailableMs: status?.unavailableMs ?? 0,
      requests: status?.requests ?? {},
    };
  }

  private ask(): Promise<Status> {
    this.asking ??= this.admin
      .status()
      .then(
        (status) => {
          this.last = { status, problem: undefined };
          return status;
        },
        (error: unknown) => {
          this.last = { status: this.last.status, problem: `does not answer: ${messageOf(error)}` };
          throw error;
        },
      )
      .finally(() => (this.asking = undefined));
    return this.asking;
  }

  private schedule(afterMs: number): void {
    if (this.stopped) return;
    this.timer = setTimeout(() => void this.round(), afterMs);
  }

  private async round(): Promise<void> {
    try {
      const status = await this.ask();
      const wanted = this.book.current;
      if (wanted !== undefined && needsPush(status, wanted)) {
        this.log.info(
          { gateway: this.name, has: status.epoch, epoch: wanted.rules.epoch },
          'gateway is behind: pushing again',
        );
        await this.push(wanted);
      }
    } catch {
      // Said by view() and health; the next round asks again.
    }
    this.schedule(this.pollMs);
  }

  private confirmation(epoch: number | null, ok: boolean, detail: string): Confirmation {
    return { dc: this.dc, gateway: this.name, epoch, ok, detail };
  }
}

/** An epoch that is ahead, or the same with other content, would be refused: that is for an operator. */
function needsPush(status: Status, wanted: Entry): boolean {
  return status.epoch === null || status.epoch < wanted.rules.epoch;
}

/** What is wrong with a gateway that answers; undefined when nothing is. */
function differenceOf(status: Status, wanted: Entry | undefined): string | undefined {
  if (wanted === undefined) return undefined;
  const { epoch } = wanted.rules;
  if (status.epoch === null) return `has no rules; ${epoch} is pushed again every second`;
  if (status.epoch < epoch)
    return `is behind at epoch ${status.epoch}; ${epoch} is pushed again every second`;
  if (status.epoch > epoch) return `is ahead at epoch ${status.epoch}; the rules here are ${epoch}`;
  if (status.hash !== wanted.hash) {
    return `has other rules of epoch ${epoch}; remove its rules file and start it anew`;
  }
  return undefined;
}
