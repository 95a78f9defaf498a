import { isInterlockError, messageOf } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import type { Rules } from '../routing/rules.js';
import { unitsOf } from '../routing/rules.js';
import type { DcId } from '../routing/units.js';
import type { HealthAnswer, Problem } from './api.js';
import type { RuleBook } from './rule-book.js';

/** One store's states, as the guard needs them; `FenceStates` of src/rule-center/fence-states.ts is one. */
export interface StatesPort {
  /** `dc-a mysql/main` */
  readonly name: string;
  readonly dc: DcId;
  /** The server that answers now, and on which servers the rows were asserted, with how many are write-disabled. */
  look(): Promise<{ server: string; asserted: { server: string; rows: number; writeDisabled: number }[] }>;
  /** Throws NeedsOperator: the store itself speaks against it. */
  reassert(rules: Rules): Promise<{ written: readonly string[]; server: string }>;
  /** FenceStore.mendReadOnly */
  mendReadOnly(): Promise<'turned on' | 'turned off' | undefined>;
}

export interface PeerPort {
  readonly dc: DcId;
  health(signal: AbortSignal): Promise<Pick<HealthAnswer, 'epoch' | 'hash' | 'storeEpoch'>>;
}

const POLL_MS = 2_000;
const PEER_TIMEOUT_MS = 1_500;

/**
 * A server can forget: after a failover to a replica that missed a fence, or a restore, the rows say that they were asserted on another server, and
 * every fenced write is refused. A restarted MySQL forgets `read_only`, a restarted Redis is another server. When nothing speaks against it, the states are asserted again from the rules in force; else an
 * operator is told.
 */
export class Reassertion {
  peer: HealthAnswer['peer'];
  /** Times that states were re-asserted, for metrics. */
  reasserted = 0;
  private found: Problem[] = [];
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  /** @param storeEpoch asks for the highest epoch of the control store; null: it does not answer */
  constructor(
    private readonly stores: readonly StatesPort[],
    private readonly peerPort: PeerPort,
    private readonly book: RuleBook,
    private readonly storeEpoch: () => Promise<number | null>,
    private readonly log: Logger,
    private readonly pollMs = POLL_MS,
  ) {
    this.peer = { dc: peerPort.dc, epoch: null, hash: null };
  }

  get problems(): readonly Problem[] {
    return this.found;
  }

  start(): void {
    this.schedule(0);
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  /** One look at the other DC and at each store. Never rejects. */
  async look(): Promise<void> {
    const problems: Problem[] = [];
    let peer: Awaited<ReturnType<PeerPort['health']>> | undefined;
    try {
      peer = await this.peerPort.health(AbortSignal.timeout(PEER_TIMEOUT_MS));
      this.peer = { dc: this.peerPort.dc, epoch: peer.epoch, hash: peer.hash };
    } catch (error) {
      this.peer = { dc: this.peerPort.dc, epoch: null, hash: null };
      problems.push({
        code: 'PeerUnavailable',
        message: `the rule center of ${this.peerPort.dc} does not answer: ${messageOf(error)}`,
      });
    }
    const entry = this.book.current;
    if (entry !== undefined && peer?.epoch === entry.rules.epoch && peer.hash !== entry.hash) {
      problems.push({
        code: 'EpochConflict',
        message: `${this.peerPort.dc} has other rules of epoch ${peer.epoch}: compare them with \`interlock rules show\``,
      });
    }
    for (const store of this.stores) {
      for (const problem of [await this.lookAt(store, peer), await this.mendReadOnly(store)])
        if (problem !== undefined) problems.push(problem);
    }
    this.report(problems);
  }

  private async lookAt(
    store: StatesPort,
    peer: Awaited<ReturnType<PeerPort['health']>> | undefined,
  ): Promise<Problem | undefined> {
    try {
      const { server, asserted } = await store.look();
      const foreign = asserted.filter((group) => group.server !== server);
      if (foreign.length === 0) return undefined;
      const objection = this.objection(asserted, await this.storeEpoch(), peer);
      if (objection !== undefined) {
        const rows = foreign.reduce((sum, group) => sum + group.rows, 0);
        return {
          code: 'ServerIdentityChanged',
          message:
            `${store.name}: ${rows} unit states were asserted on ${foreign.map((group) => group.server).join(', ')}, and ${server} answers; writes ` +
            `of these units are refused. Not re-asserted by itself: ${objection}. Compare both data centers, then run \`interlock rules reassert --dc ${store.dc}\` ` +
            '(a Redis that has lost its data also needs `--accept-loss redis/NAME`)',
        };
      }
      const { written } = await store.reassert(this.book.current!.rules);
      this.reasserted++;
      this.log.warn(
        { store: store.name, server, units: written.length, epoch: this.book.current!.rules.epoch },
        'the server has another identity: unit states asserted again',
      );
      return undefined;
    } catch (error) {
      if (isInterlockError(error, 'NeedsOperator'))
        return { code: 'ServerIdentityChanged', message: error.message };
      return { code: 'StoreUnavailable', message: `${store.name}: ${messageOf(error)}` };
    }
  }

  private async mendReadOnly(store: StatesPort): Promise<Problem | undefined> {
    try {
      const mended = await store.mendReadOnly();
      if (mended !== undefined) this.log.warn({ store: store.name }, `read_only ${mended}, as it should be`);
      return undefined;
    } catch (error) {
      return { code: 'ReadOnly', message: messageOf(error) };
    }
  }

  /** What speaks against re-asserting; undefined when nothing does. */
  private objection(
    asserted: readonly { rows: number; writeDisabled: number }[],
    storeEpoch: number | null,
    peer: Awaited<ReturnType<PeerPort['health']>> | undefined,
  ): string | undefined {
    const entry = this.book.current;
    if (entry === undefined) return 'no rules are known here';
    const { rules, hash } = entry;
    if (storeEpoch !== rules.epoch) {
      return `the control store has epoch ${storeEpoch ?? 'unknown'}, the rules in force are ${rules.epoch}`;
    }
    if (peer === undefined) return `the rule center of ${this.peerPort.dc} does not answer`;
    if (peer.epoch !== rules.epoch || peer.hash !== hash) {
      return `${this.peerPort.dc} has epoch ${peer.epoch ?? 'none'}${peer.epoch === rules.epoch ? ' with other content' : ''}, here it is ${rules.epoch}`;
    }
    if (peer.storeEpoch !== rules.epoch) {
      return `the control store of ${this.peerPort.dc} has epoch ${peer.storeEpoch ?? 'unknown'}, the rules in force are ${rules.epoch}`;
    }
    if (rules.holder !== null) {
      return `units are write-disabled by switchover run ${rules.holder.runId}`;
    }
    if (asserted.some((group) => group.writeDisabled > 0)) {
      return 'units are write-disabled in this store, though not in the rules';
    }
    // Hazard: a server without its rows may have lost data with them; opening it would serve the loss.
    const rows = asserted.reduce((sum, group) => sum + group.rows, 0);
    const wanted = unitsOf(rules).length;
    if (rows !== wanted) return `it has ${rows} unit states of ${wanted}`;
    return undefined;
  }

  private report(problems: Problem[]): void {
    const known = new Set(this.found.map((problem) => problem.message));
    for (const problem of problems) {
      if (!known.has(problem.message)) this.log.error({ code: problem.code }, problem.message);
    }
    if (problems.length === 0 && this.found.length > 0) this.log.info('stores and peer are well again');
    this.found = problems;
  }

  private schedule(afterMs: number): void {
    if (this.stopped) return;
    this.timer = setTimeout(() => void this.look().then(() => this.schedule(this.pollMs)), afterMs);
  }
}
