import { createHash } from 'node:crypto';
import { ReplyError } from 'ioredis';
import type { Redis } from 'ioredis';
import { auxiliaryKey, parseCheckpoint, positionOf } from '../../replicators/redis/checkpoint.js';
import { conflictsKey, quarantineKey } from '../../replicators/redis/quarantine.js';
import { markerOf } from '../../replicators/redis/markers.js';
import { InterlockError, messageOf } from '../errors.js';
import { Router, unitsOf } from '../routing/rules.js';
import type { Rules } from '../routing/rules.js';
import type { DcId, UnitId } from '../routing/units.js';
import { assertedState, checkAssertion } from './assertion.js';
import { checkChange, verdictOf } from './guard.js';
import type { GuardContext } from './guard.js';
import { infoField, redisUnavailable } from './redis-client.js';
import { howToReopen } from './redis-loss.js';
import { MARKER_KEY, SERVER_FIELD, UNITS_KEY, WAS_PREFIX } from './redis-units.js';
import { formatMarker, formatUnit, parseUnit } from './redis-units.js';
import type { ChangeResult, FenceBudget, Marker, UnitChange, UnitState } from './types.js';
import type { Evidence, LinkCheckpoint, UnitFence } from './unit-fence.js';

/**
 * Writes states, the server's identity and the marker when everything is as it was read: the server (ARGV[1]), the identity on which the
 * states were asserted (ARGV[2]) and each unit's state ('' for none). The next identity is ARGV[3]; ARGV[4] is the marker, '' for none; then unit,
 * state, next state. Answers 1, or 0 when something was other than read: nothing is written then. On a server on which the states were not asserted,
 * what it came back with is kept beside what is written, until they are.
 */
const SWAP = `
local info = redis.call('INFO', 'server')
if not string.find(info, 'run_id:' .. ARGV[1], 1, true) then return 0 end
if (redis.call('HGET', KEYS[1], '${SERVER_FIELD}') or '') ~= ARGV[2] then return 0 end
local units = {}
for i = 5, #ARGV, 3 do units[#units + 1] = ARGV[i] end
for from = 1, #units, 500 do
  local last = math.min(from + 499, #units)
  local found = redis.call('HMGET', KEYS[1], unpack(units, from, last))
  for i = from, last do
    if (found[i - from + 1] or '') ~= ARGV[3 * i + 3] then return 0 end
  end
end
local fields = {}
for i = 5, #ARGV, 3 do
  if ARGV[i + 1] ~= ARGV[i + 2] then
    if ARGV[1] ~= ARGV[3] and ARGV[i + 1] ~= '' then
      redis.call('HSETNX', KEYS[1], '${WAS_PREFIX}' .. ARGV[i], ARGV[i + 1])
    end
    fields[#fields + 1] = ARGV[i]
    fields[#fields + 1] = ARGV[i + 2]
  end
end
if ARGV[2] ~= ARGV[3] then
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, ${WAS_PREFIX.length}) == '${WAS_PREFIX}' then redis.call('HDEL', KEYS[1], field) end
  end
  fields[#fields + 1] = '${SERVER_FIELD}'
  fields[#fields + 1] = ARGV[3]
end
for from = 1, #fields, 1000 do
  redis.call('HSET', KEYS[1], unpack(fields, from, math.min(from + 999, #fields)))
end
if ARGV[4] ~= '' then redis.call('SET', KEYS[2], ARGV[4]) end
return 1`;
const SWAP_SHA = createHash('sha1').update(SWAP).digest('hex');

const DEFAULT_BUDGET_MS = 5_000;
const ATTEMPTS = 5;
const LOOK_AGAIN_MS = 10;

/** What was read in one look. */
export interface Seen {
  /** run_id of the server that answers. */
  server: string;
  /** On which one the states were asserted; '' when there is none. */
  asserted: string;
  states: Map<UnitId, UnitState>;
  /** What the server came back with, where `states` was written since; with a look at all units. */
  was: Map<UnitId, UnitState>;
}

/**
 * The fence of one Redis store: the hash `interlock:units`, and what is written with it. A write of the SDK is one script that looks there first, and
 * Redis runs one script at a time: when a state is written, no write of before is under way.
 *
 * Hazard: a server that was restarted, flushed or promoted has lost states, or writes. Guard: the states count on the server alone on which they
 * were asserted; on another one every write is refused. There, units can be closed, and what a compensation opens is written and does not count yet:
 * the rule center asserts all of them again when nothing speaks against it.
 */
export class RedisFence implements UnitFence {
  readonly kind = 'redis';
  readonly name: string;

  constructor(
    readonly dc: DcId,
    readonly store: string,
    readonly client: Redis,
  ) {
    this.name = `${dc} redis/${store}`;
  }

  async identity(): Promise<string> {
    return (await this.look([])).server;
  }

  async warm(): Promise<void> {
    await this.guarded(async () => {
      await this.client.script('LOAD', SWAP);
    });
  }

  async states(units?: readonly UnitId[]): Promise<UnitState[]> {
    const { states } = await this.look(units ?? null);
    return [...states.values()].sort((a, b) => (a.unit < b.unit ? -1 : 1));
  }

  async evidence(units: readonly UnitId[]): Promise<Evidence> {
    const { states, server } = await this.look(units);
    return { states: [...states.values()], server, preparedXa: [], readOnlyForgotten: false };
  }

  /** How many states there are, of which server, and how many are write-disabled. */
  async summary(): Promise<{ server: string; asserted: string; rows: number; writeDisabled: number }> {
    const { server, asserted, states } = await this.look(null);
    const writeDisabled = [...states.values()].filter(({ state }) => state === 'write_disabled').length;
    return { server, asserted, rows: states.size, writeDisabled };
  }

  async highestEpoch(): Promise<number> {
    return (await this.states()).reduce((highest, { epoch }) => Math.max(highest, epoch), 0);
  }

  async checkpointMarkers(links: readonly string[]): Promise<LinkCheckpoint[]> {
    if (links.length === 0) return [];
    return this.guarded(async () => {
      const asked = links.flatMap((link) => [
        ['get', auxiliaryKey(link)],
        ['hlen', conflictsKey(link)],
        ['hlen', quarantineKey(link)],
      ]);
      const answers = answersOf(await this.client.pipeline(asked).exec());
      return links.flatMap((link, i) => {
        const [text, conflicts, quarantined] = answers.slice(3 * i) as [string | null, number, number];
        const checkpoint = parseCheckpoint(text, link);
        if (checkpoint === undefined) return [];
        const { generation, phase } = checkpoint;
        // A copy that is under way has put older values in the place of what the marker stood for.
        const marker = phase === 'streaming' ? checkpoint.marker : null;
        return [{ link, generation, position: positionOf(checkpoint), marker, conflicts, quarantined }];
      });
    });
  }

  /**
   * Changes the state of some units, and writes the marker with it, in one atomic step; idempotent, as FenceStore.change. Fails with StaleEpoch,
   * EpochConflict, HeldByOther, NotOwner, Refused (no states), ServerIdentityChanged (a fence alone) and changes nothing then; Unavailable
   * means that nobody knows: repeat it.
   */
  async change(change: UnitChange, budget?: FenceBudget): Promise<ChangeResult> {
    return this.carryOut(change, 'change', budget);
  }

  async raise(change: UnitChange, budget?: FenceBudget): Promise<ChangeResult> {
    return this.carryOut(change, 'raise', budget);
  }

  async reopen(change: UnitChange, budget?: FenceBudget): Promise<ChangeResult> {
    return this.carryOut(change, 'reopen', budget);
  }

  /**
   * @param known the data centers have rules already, so that a server without any state has lost them, or is new to the topology
   * @throws InterlockError NeedsOperator: a person has to say that it may be opened
   */
  async addMissing(rules: Rules, known = false): Promise<{ written: UnitId[]; server: string }> {
    return this.assert(rules, { foreign: false, mayBeLost: !known });
  }

  /**
   * @param on this server alone: the one that was judged
   * @throws InterlockError NeedsOperator: states are missing, and the data with them, unless `acceptLoss`; Unavailable: another server answers
   */
  async reassert(
    rules: Rules,
    acceptLoss = false,
    on?: string,
  ): Promise<{ written: UnitId[]; server: string }> {
    return this.assert(rules, { foreign: true, mayBeLost: acceptLoss, on });
  }

  /** Of the last fence here; null: there was none. */
  async lastMarker(): Promise<string | null> {
    const text = await this.guarded(() => this.client.get(MARKER_KEY));
    return text === null ? null : (markerOf(Buffer.from(text))?.id ?? null);
  }

  /**
   * Hazard: what takes the states away (FLUSHALL, eviction, a restart without persistence) takes the data with them; asserted again, an empty
   * server would be opened. Guard: that needs a person's word.
   */
  private async assert(
    rules: Rules,
    { foreign: foreignToo, mayBeLost, on }: { foreign: boolean; mayBeLost: boolean; on?: string | undefined },
  ): Promise<{ written: UnitId[]; server: string }> {
    const router = new Router(rules);
    return this.swapping(DEFAULT_BUDGET_MS, (seen) => {
      const { server, asserted, states } = seen;
      if (on !== undefined && server !== on)
        throw new InterlockError('Unavailable', `${this.name} was restarted again: look at it anew`, {
          ...{ retryable: true, details: { what: this.name } },
        });
      // States without a server are of nobody: the first assertion, or what was left of one.
      const foreign = asserted !== server && (foreignToo || states.size === 0);
      const units = unitsOf(rules);
      const missing = units.filter((unit) => !states.has(unit)).length;
      if (!mayBeLost && (foreignToo ? missing > 0 : states.size === 0))
        throw this.lost(missing, units.length);
      const next = new Map<UnitId, UnitState>();
      for (const unit of units) {
        const row = states.get(unit);
        if (row !== undefined && !foreign) continue;
        if (row !== undefined) checkAssertion(this.name, row, rules, router);
        next.set(unit, assertedState(unit, this.dc, rules, router, server));
      }
      const result = { written: [...next.keys()].sort(), server };
      return { next, asserted: foreign ? server : asserted, result };
    });
  }

  private lost(missing: number, of: number): InterlockError {
    return new InterlockError(
      'NeedsOperator',
      `${this.name} has no state of ${missing} of ${of} units: it has lost its data, or is new to the topology, and stays closed. ${howToReopen(this)}`,
      { details: { store: this.name, missing } },
    );
  }

  private async carryOut(
    change: UnitChange,
    mode: GuardContext['mode'],
    budget?: FenceBudget,
  ): Promise<ChangeResult> {
    checkChange(change, { store: this.name, dc: this.dc, server: '', mode });
    const started = performance.now();
    const { changed, server, missing } = await this.swapping(
      budget?.budgetMs ?? DEFAULT_BUDGET_MS,
      (seen) => {
        const next = new Map<UnitId, UnitState>();
        let missing = 0;
        for (const unit of new Set(change.units)) {
          const row = seen.states.get(unit);
          // Where there is no state no write passes; what a person asserts there is asserted whole.
          if (row === undefined && change.to !== 'write_disabled') {
            missing += 1;
            continue;
          }
          // A fence has to be of the server that answers; all else may be written where it does not count.
          const answering = change.to === 'write_disabled' ? seen.server : seen.asserted;
          const context = { store: this.name, dc: this.dc, server: answering, mode };
          if (verdictOf(unit, row, change, context) === 'unchanged') continue;
          const { to: state, owner, epoch, holder } = change;
          const mappingVersion = change.mappingVersions?.[unit] ?? row!.mappingVersion;
          next.set(unit, { ...row!, state, owner, epoch, holder, mappingVersion });
        }
        const result = { changed: next.size > 0, server: seen.server, missing };
        return { next, asserted: seen.asserted, result };
      },
      change.units,
      change.marker,
    );
    const info = await this.guarded(() => this.client.info('replication'));
    const position = `${infoField(info, 'master_replid')}:${infoField(info, 'master_repl_offset')}`;
    return { changed, position, server, blockers: [], waitedMs: performance.now() - started, missing };
  }

  /** Reads, decides and writes, until nobody else has written in between. */
  private async swapping<T>(
    budgetMs: number,
    decide: (seen: Seen) => { next: Map<UnitId, UnitState>; asserted: string; result: T },
    units: readonly UnitId[] | null = null,
    marker?: Marker,
  ): Promise<T> {
    const deadline = performance.now() + budgetMs;
    for (let attempt = 1; ; attempt++) {
      try {
        const seen = await this.look(units);
        const { next, asserted, result } = decide(seen);
        const repeated = marker !== undefined && next.size === 0 && (await this.hasMarker(marker));
        if ((next.size === 0 && marker === undefined && asserted === seen.asserted) || repeated)
          return result;
        if (await this.swap(seen, asserted, next, marker)) return result;
      } catch (error) {
        const passing = error instanceof InterlockError && error.code === 'Unavailable';
        if (!passing || attempt >= ATTEMPTS || performance.now() > deadline) throw error;
        await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
      }
      if (performance.now() > deadline) {
        throw new InterlockError('Unavailable', `${this.name}: others change its states all the time`, {
          ...{ retryable: true, details: { what: this.name } },
        });
      }
    }
  }

  /** A repeat must not write its marker again: the link would meet it twice, the second time behind later writes. */
  private async hasMarker(marker: Marker): Promise<boolean> {
    return (await this.guarded(() => this.client.get(MARKER_KEY))) === formatMarker(marker);
  }

  private async swap(
    seen: Seen,
    asserted: string,
    next: ReadonlyMap<UnitId, UnitState>,
    marker: Marker | undefined,
  ): Promise<boolean> {
    const states = [...next].flatMap(([unit, state]) => {
      const before = seen.states.get(unit);
      return [unit, before === undefined ? '' : formatUnit(before), formatUnit(state)];
    });
    const given = [
      seen.server,
      seen.asserted,
      asserted,
      marker === undefined ? '' : formatMarker(marker),
      ...states,
    ];
    return this.guarded(async () => {
      try {
        return (await this.client.evalsha(SWAP_SHA, 2, UNITS_KEY, MARKER_KEY, ...given)) === 1;
      } catch (error) {
        if (!(error instanceof ReplyError) || !messageOf(error).startsWith('NOSCRIPT')) throw error;
        return (await this.client.eval(SWAP, 2, UNITS_KEY, MARKER_KEY, ...given)) === 1;
      }
    });
  }

  /** The server, and the states of `units`; of all: null. */
  async look(units: readonly UnitId[] | null): Promise<Seen> {
    return this.guarded(async () => {
      const pipeline = this.client.pipeline().info('server').hget(UNITS_KEY, SERVER_FIELD);
      if (units === null) pipeline.hgetall(UNITS_KEY);
      else if (units.length > 0) pipeline.hmget(UNITS_KEY, ...units);
      const answers = answersOf(await pipeline.exec());
      const server = infoField(String(answers[0]), 'run_id')!;
      const asserted = (answers[1] as string | null) ?? '';
      const found: [UnitId, string | null][] =
        units === null
          ? Object.entries(answers[2] as Record<string, string>)
          : units.map((unit, i) => [unit, (answers[2] as (string | null)[])[i]!]);
      const states = new Map<UnitId, UnitState>();
      const was = new Map<UnitId, UnitState>();
      for (const [field, text] of found) {
        if (text === null) continue;
        const unit = field.startsWith(WAS_PREFIX) ? field.slice(WAS_PREFIX.length) : field;
        if (unit.startsWith('#')) continue;
        (unit === field ? states : was).set(unit, parseUnit(this.name, unit, text, asserted));
      }
      return { server, asserted, states, was };
    });
  }

  private async guarded<T>(operation: () => Promise<T>): Promise<T> {
    try {
      return await operation();
    } catch (error) {
      throw redisUnavailable(this.name, error);
    }
  }
}

function answersOf(replies: [Error | null, unknown][] | null): unknown[] {
  return replies!.map(([error, answer]) => {
    if (error !== null) throw error;
    return answer;
  });
}
