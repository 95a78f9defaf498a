import { hostname, userInfo } from 'node:os';
import type { VerifyMode } from '../../replicators/redis/verify/verification.js';
import type { RedisVerification, VerifyRequest } from '../../workflows/verification-contract.js';
import { InterlockError, messageOf } from '../errors.js';
import { parseScope, scopeUnits } from '../routing/scope.js';
import { initialRules, wantedMysqlLinks, wantedRedisLinks } from '../topology/derive.js';
import type { Topology } from '../topology/schema.js';
import { TableFilter } from '../topology/table-filter.js';

interface Chosen {
  scope?: string;
  repair?: boolean;
  keep: number;
}

export interface TablesChosen extends Chosen {
  tables?: string[];
}

export interface StoresChosen extends Chosen {
  store?: string[];
  mode: VerifyMode;
  sample?: number;
  ttlTolerance: number;
}

export const MODES: readonly VerifyMode[] = ['full', 'length', 'existence', 'sample'];
/** Of the keys, when the mode is `sample` and nothing else is said. */
const SAMPLE = 0.01;

/** @throws InterlockError BadInput that names the flag */
export function tablesRequest(topology: Topology, chosen: TablesChosen): VerifyRequest {
  const tables = listed(chosen.tables);
  const carried = wantedMysqlLinks(topology).map(({ include, exclude }) => new TableFilter(include, exclude));
  const names = Object.keys(topology.tables).filter((name) => carried.some((filter) => filter.has(name)));
  if (names.length === 0) {
    throw new InterlockError(
      'BadInput',
      "the topology's `tables` declare none that a link carries: there is nothing to compare",
      { details: { field: 'tables' } },
    );
  }
  for (const pattern of tables) {
    if (names.some((name) => new TableFilter([pattern], []).has(name))) continue;
    throw bad(
      '--tables',
      pattern,
      `expected tables that the topology declares and a link carries: ${names.join(', ') || 'there are none'}`,
    );
  }
  return { ...common(topology, chosen), tables };
}

/** @throws InterlockError BadInput that names the flag */
export function storesRequest(topology: Topology, chosen: StoresChosen): VerifyRequest {
  const { mode, sample, ttlTolerance } = chosen;
  const stores = listed(chosen.store).map((name) => name.replace(/^redis\//, ''));
  const names = [...new Set(wantedRedisLinks(topology).map(({ store }) => store))];
  if (names.length === 0) {
    throw new InterlockError(
      'BadInput',
      "the topology's `links` name no Redis store: there is nothing to compare",
      { details: { field: 'links' } },
    );
  }
  for (const store of stores) {
    if (!names.includes(store))
      throw bad('--store', store, `expected Redis stores that have a link: ${names.join(', ')}`);
  }
  if (!MODES.includes(mode)) throw bad('--mode', mode, `expected one of ${MODES.join(', ')}`);
  if (sample !== undefined && mode !== 'sample')
    throw bad('--sample', `${sample * 100}%`, `expected with --mode sample alone, and the mode is ${mode}`);
  if (chosen.scope !== undefined && topology.keys.every((key) => 'unrouted' in key))
    throw bad('--scope', chosen.scope, "the topology's `keys` give no key a unit: leave it out");
  const redis: RedisVerification = { stores, mode, expiryToleranceMs: ttlTolerance };
  if (mode === 'sample') redis.sample = sample ?? SAMPLE;
  return { ...common(topology, chosen), tables: [], redis };
}

/** A share of a flag: `5%`, as a part of 1. @throws InterlockError BadInput that names the flag */
export function shareFlag(flag: string): (text: string) => number {
  return (text) => {
    const percent = /^(\d+(?:\.\d+)?)%$/.exec(text)?.[1];
    const share = Number(percent) / 100;
    if (percent !== undefined && share > 0 && share <= 1) return share;
    throw bad(flag, text, 'expected a share of the keys such as 5%, above 0% and up to 100%');
  };
}

function common(topology: Topology, { scope, repair, keep }: Chosen): Omit<VerifyRequest, 'tables'> {
  // Who owns what now is for the verification to find; what the scope names has to be in the topology.
  if (scope !== undefined) {
    try {
      scopeUnits(initialRules(topology), parseScope(scope));
    } catch (error) {
      throw bad('--scope', scope, messageOf(error).replace(/^scope "[^"]*": /, ''));
    }
  }
  return {
    topology: topology.name,
    scope: scope ?? null,
    repair: repair === true,
    keep,
    startedBy: `${userInfo().username}@${hostname()}`,
  };
}

/** Separated by commas or blanks. */
function listed(values: readonly string[] = []): string[] {
  return values
    .flatMap((text) => text.split(','))
    .map((text) => text.trim())
    .filter(Boolean);
}

function bad(flag: string, value: string, expected: string): InterlockError {
  return new InterlockError('BadInput', `${flag}: ${JSON.stringify(value)}: ${expected}`, {
    details: { field: flag, value },
  });
}
