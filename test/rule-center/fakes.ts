import { InterlockError } from '../../src/errors.js';
import type { StoredRules } from '../../src/fence/rules-store.js';
import { silentLogger } from '../../src/observability/logger.js';
import { rulesHash } from '../../src/routing/hash.js';
import { fenceRules, switchRules } from '../../src/routing/plan.js';
import type { Rules } from '../../src/routing/rules.js';
import type { GatewayPort } from '../../src/rule-center/gateway-pusher.js';
import type { RuleCenterOptions } from '../../src/rule-center/rule-center.js';
import { RuleCenter } from '../../src/rule-center/rule-center.js';
import { initialRules } from '../../src/topology/derive.js';
import { exampleTopology } from '../support/topology.js';

export const rules1 = initialRules(exampleTopology());
export const holder = { workflowId: 'switchover/example', runId: 'run-1' };
const moved = Array.from({ length: 100 }, (_, i) => `cn-east/${i}`);
export const rules2 = fenceRules(rules1, moved, 2, holder, 'fence');
export const rules3 = switchRules(rules2, moved, 'dc-b', 3, 'switch');

/** The rules table of a control store, in memory. */
export class FakeRulesTable {
  readonly name = 'dc-a mysql/main';
  down = false;
  readonly epochs = new Map<number, Rules>();
  /** Called when a document has been kept, before the caller hears of it. */
  afterPublish: () => void = () => {};

  constructor(...rules: Rules[]) {
    for (const each of rules) this.epochs.set(each.epoch, each);
  }

  async highestEpoch(): Promise<number> {
    this.check();
    return Math.max(0, ...this.epochs.keys());
  }

  async current(): Promise<StoredRules | undefined> {
    const rules = this.epochs.get(await this.highestEpoch());
    return rules && { rules, hash: rulesHash(rules), createdAt: '2026-01-01T00:00:00.000000Z' };
  }

  async publish(rules: Rules): Promise<void> {
    const highest = await this.highestEpoch();
    const same = this.epochs.get(rules.epoch);
    if (same !== undefined && rulesHash(same) !== rulesHash(rules)) {
      throw new InterlockError('EpochConflict', 'the store has other rules of this epoch');
    }
    if (rules.epoch < highest) throw new InterlockError('StaleEpoch', `the store has epoch ${highest}`);
    this.epochs.set(rules.epoch, rules);
    this.afterPublish();
  }

  private check(): void {
    if (this.down)
      throw new InterlockError('Unavailable', `${this.name} does not answer`, { retryable: true });
  }
}

/** A gateway's admin endpoint, in memory: as guarded as the real one. */
export class FakeGateway {
  rules: { epoch: number; hash: string } | undefined;
  down = false;
  puts: number[] = [];

  async putRules(rules: Rules, hash: string): Promise<{ epoch: number; held: number }> {
    this.check();
    this.puts.push(rules.epoch);
    if (this.rules !== undefined && rules.epoch < this.rules.epoch) {
      throw new InterlockError('StaleEpoch', `gateway is at epoch ${this.rules.epoch}`);
    }
    if (this.rules?.epoch === rules.epoch && this.rules.hash !== hash) {
      throw new InterlockError('EpochConflict', 'gateway has other rules of this epoch');
    }
    this.rules = { epoch: rules.epoch, hash };
    return { epoch: rules.epoch, held: 3 };
  }

  async status(): ReturnType<GatewayPort['status']> {
    this.check();
    return {
      epoch: this.rules?.epoch ?? null,
      hash: this.rules?.hash ?? null,
      held: 0,
      heldBytes: 0,
      heldTotal: 5,
      refusedTotal: 1,
      failedTotal: 2,
      forwardedTotal: 7,
      unavailableMs: 11,
      requests: { 'dc-a': 90, 'dc-b': 10 },
    };
  }

  async close(): Promise<void> {}

  private check(): void {
    if (this.down) throw new InterlockError('Unavailable', 'connect ECONNREFUSED');
  }
}

export interface Center {
  center: RuleCenter;
  table: FakeRulesTable;
  gateways: Record<'gw-1' | 'gw-2', FakeGateway>;
  url: string;
  token: string;
}

/** A rule center on a free port over fakes, serving. */
export async function startCenter(
  table = new FakeRulesTable(rules1),
  options: Partial<RuleCenterOptions> = {},
): Promise<Center> {
  const gateways = { 'gw-1': new FakeGateway(), 'gw-2': new FakeGateway() };
  const token = 'a token of the rule center';
  const center = new RuleCenter({
    dc: 'dc-a',
    topology: 'example',
    domains: new Map([
      ['dc-a', 'dc-a.example'],
      ['dc-b', 'dc-b.example'],
    ]),
    token,
    listen: { host: '127.0.0.1', port: 0 },
    rules: table,
    states: [],
    gateways: new Map(Object.entries(gateways)),
    peer: {
      dc: 'dc-b',
      health: async () => ({ epoch: 1, hash: rulesHash(rules1), storeEpoch: 1 }),
    },
    log: silentLogger(),
    ...options,
  });
  return { center, table, gateways, token, url: await center.start() };
}

/** Polls until `probe` answers something; fails after `limitMs`. */
export async function eventually<T>(
  probe: () => T | undefined | Promise<T | undefined>,
  limitMs = 5_000,
): Promise<T> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > deadline) throw new Error(`not within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
