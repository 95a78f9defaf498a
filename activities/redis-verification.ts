import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { NOBODY, formatLinkId } from '../replicators/core/contract.js';
import { redisLinkConfig } from '../replicators/redis/configure.js';
import { RedisConnection } from '../replicators/redis/connection.js';
import { CommandFilter } from '../replicators/redis/filter.js';
import { KeyUnitReader } from '../replicators/redis/key-units.js';
import type { RedisLinkConfig } from '../replicators/redis/link-config.js';
import { PASSAGE_KEY } from '../replicators/redis/markers.js';
import type { KeyOwner } from '../replicators/redis/verify/repair.js';
import { NOTHING_COMPARED } from '../replicators/redis/verify/verification.js';
import type { RedisVerifyProgress } from '../replicators/redis/verify/verification.js';
import { verifyRedis } from '../replicators/redis/verify/verify-redis.js';
import { InterlockError } from '../src/errors.js';
import { infoField, redisUnavailable } from '../src/fence/redis-client.js';
import type { RedisFence } from '../src/fence/redis-fence.js';
import { formatMarker } from '../src/fence/redis-units.js';
import { Router } from '../src/routing/rules.js';
import type { Rules } from '../src/routing/rules.js';
import { parseScope, scopeUnits } from '../src/routing/scope.js';
import type { DcId, UnitId } from '../src/routing/units.js';
import { dcIds, wantedRedisLinks } from '../src/topology/derive.js';
import type { Topology } from '../src/topology/schema.js';
import type { VerifyPlan, VerifyRequest, VerifyStoreInput } from '../workflows/verification-contract.js';
import type { VerificationDeps } from './verification.js';

/** A link that begins, or whose worker was lost, is waited for. */
const LINK_WAIT_MS = 15_000;
const LINK_POLL_MS = 250;
const MARKER_MS = 60_000;
const MARKER_POLL_MS = { first: 2, most: 50 };

/** The pairs of Redis stores between which links run, and the units of the scope. @throws InterlockError BadInput when there are none */
export function planStores(topology: Topology, rules: Rules, request: VerifyRequest): VerifyPlan {
  const wanted = request.redis!.stores;
  const links = wantedRedisLinks(topology).filter(
    ({ store }) => wanted.length === 0 || wanted.includes(store),
  );
  if (links.length === 0) {
    throw new InterlockError(
      'BadInput',
      `--store ${wanted.join(',')}: no link of the topology is of such a Redis store`,
      { details: { field: '--store' } },
    );
  }
  return {
    tables: [],
    stores: [...new Set(links.map(({ store }) => store))].map((store) => ({
      store,
      links: links.filter((link) => link.store === store).map((link) => formatLinkId(link)),
      progress: NOTHING_COMPARED,
    })),
    units: request.scope === null ? null : scopeUnits(rules, parseScope(request.scope)),
  };
}

/** Compares a store pair from where `progress` is, for so long; at the next call it goes on. */
export async function compareStore(
  deps: VerificationDeps,
  rules: Rules,
  input: VerifyStoreInput,
  progress: RedisVerifyProgress,
  sliceMs: number,
  { onProgress, signal }: { onProgress: (now: RedisVerifyProgress) => void; signal: AbortSignal },
): Promise<RedisVerifyProgress> {
  const { store, redis, repair, keep, keepLength } = input;
  const links = linksOf(deps, input);
  const passage = new Passage(deps, store, links, signal);
  const obstacle = await passage.obstacle();
  if (obstacle !== undefined) return { ...progress, done: true, notComparable: obstacle };
  const keys = new ComparedKeys(links, rules, input.units);
  const [source, target] = dcIds(deps.topology) as [DcId, DcId];
  const opened: RedisConnection[] = [];
  const side = async (dc: DcId): Promise<{ dc: DcId; connection: RedisConnection }> => {
    const address = links[0]!.from === dc ? links[0]!.source : links[0]!.target;
    const connection = await RedisConnection.open(address, 'interlock-verify');
    opened.push(connection);
    return { dc, connection };
  };
  try {
    const { mode, sample, expiryToleranceMs } = redis;
    const answer = await verifyRedis(
      {
        ...{ source: await side(source), target: await side(target), mode, expiryToleranceMs },
        ...(sample !== undefined && { sample }),
        carried: (db, key) => keys.isCompared(db, key),
        ownerOf: (_, key) => keys.ownerOf(key),
        minTtlMs: Math.max(...links.map(({ minTtlMs }) => minTtlMs)),
        awaitMarker: (from) => passage.pass(from),
        ...{ repair, keep, keepLength, onProgress, signal },
      },
      progress,
      sliceMs,
    );
    const behind = answer.notComparable === null ? undefined : await passage.whyBehind();
    return behind === undefined ? answer : { ...answer, notComparable: behind };
  } finally {
    for (const connection of opened) connection.destroy();
  }
}

function linksOf(
  { topology, secret }: VerificationDeps,
  { store, links }: VerifyStoreInput,
): RedisLinkConfig[] {
  const found = wantedRedisLinks(topology).filter((link) => links.includes(formatLinkId(link)));
  if (found.length === 0) {
    throw new InterlockError(
      'BadInput',
      `redis/${store}: the topology of this worker has none of the links ${links.join(', ')}`,
      { details: { field: 'links' } },
    );
  }
  return found.map((link) => redisLinkConfig(topology, link, secret));
}

/** Which keys the links between two stores keep the same, and whose each is. */
class ComparedKeys {
  private readonly units: KeyUnitReader;
  private readonly router: Router;
  private readonly filters: { from: DcId; filter: CommandFilter }[];
  private readonly scope: ReadonlySet<UnitId> | null;

  constructor(links: readonly RedisLinkConfig[], rules: Rules, scope: readonly UnitId[] | null) {
    this.units = new KeyUnitReader(links[0]!.keys, links[0]!.mapping);
    this.router = new Router(rules);
    this.filters = links.map(({ from, filters }) => ({ from, filter: new CommandFilter(filters) }));
    this.scope = scope === null ? null : new Set(scope);
  }

  /** What its owner writes is carried; of a key that nobody owns, what either side writes. */
  isCompared(db: number, key: Buffer): boolean {
    const text = key.toString('latin1');
    const unit = this.units.unitOf(text) ?? undefined;
    if (this.scope !== null && (unit === undefined || !this.scope.has(unit))) return false;
    const owner = unit === undefined ? undefined : this.router.assignmentOf(unit)?.owner;
    return this.filters.some(
      ({ from, filter }) =>
        (owner === undefined || owner === from) && filter.carriesDatabase(db) && filter.carriesKey(text),
    );
  }

  /** A key without a unit is its source's where one link alone runs. */
  ownerOf(key: Buffer): KeyOwner {
    const unit = this.units.unitOf(key.toString('latin1')) ?? undefined;
    if (unit !== undefined) return { unit, owner: this.router.assignmentOf(unit)?.owner ?? null };
    return { unit: null, owner: this.filters.length === 1 ? this.filters[0]!.from : null };
  }
}

/** Waits for the links of a store pair: what one side has now is on the other when its link has passed a marker. */
class Passage {
  private behind: string | undefined;

  constructor(
    private readonly deps: VerificationDeps,
    private readonly store: string,
    private readonly links: readonly RedisLinkConfig[],
    private readonly signal: AbortSignal,
  ) {}

  async pass(from: DcId): Promise<boolean> {
    const one = this.links.find((link) => link.from === from);
    if (one === undefined) return true;
    const deadline = Date.now() + MARKER_MS;
    const before = await this.mark(one);
    const target = this.fence(one.to);
    for (let wait = MARKER_POLL_MS.first; ; wait = Math.min(wait * 2, MARKER_POLL_MS.most)) {
      this.signal.throwIfAborted();
      const [checkpoint] = await target.checkpointMarkers([one.link]);
      const [replid, offset] = (checkpoint?.position ?? '').split(':');
      if (replid === before.replid && Number(offset) >= before.offset) return true;
      if (Date.now() > deadline) {
        this.behind = one.link;
        return false;
      }
      await sleep(wait, undefined, { signal: this.signal });
    }
  }

  /**
   * Hazard: a link writes its checkpoint with data and markers alone, so that one that drops all may stand for ever; and a switchover's marker may be
   * the last one that a checkpoint names. Guard: a marker of nobody makes the link write down how far it is, and that is what is waited for.
   * @returns the end of the source's stream before the marker
   */
  private async mark({ from }: RedisLinkConfig): Promise<{ replid: string; offset: number }> {
    const source = this.fence(from);
    const marker = { id: `verify-${randomUUID()}`, workflowId: NOBODY, runId: '', epoch: 0 };
    try {
      const replies = await source.client
        .multi()
        .info('replication')
        .set(PASSAGE_KEY, formatMarker(marker))
        .exec();
      for (const [error] of replies!) if (error !== null) throw error;
      const info = String(replies![0]![1]);
      return {
        replid: infoField(info, 'master_replid')!,
        offset: Number(infoField(info, 'master_repl_offset')),
      };
    } catch (error) {
      throw redisUnavailable(source.name, error);
    }
  }

  /** Why a link cannot be waited for. */
  async obstacle(): Promise<string | undefined> {
    const deadline = Date.now() + LINK_WAIT_MS;
    for (;;) {
      const states = await Promise.all(
        this.links.map(async ({ link }) => ({ link, status: await this.deps.readLinkStatus(link) })),
      );
      const down = states.find(({ status }) => status?.state !== 'streaming');
      if (down === undefined) return undefined;
      const { link, status } = down;
      const final = status !== undefined && status.state !== 'starting';
      // The comparison then answers where it is.
      if (this.signal.aborted) return undefined;
      if (final || Date.now() > deadline)
        return `${link} is ${status?.state ?? 'not running'}: what it has not carried yet would look like a difference. See \`interlock replicate status ${link}\`; start or resume it, then verify again`;
      await sleep(LINK_POLL_MS, undefined, { signal: this.signal }).catch(() => undefined);
    }
  }

  /** Undefined: no link was. */
  async whyBehind(): Promise<string | undefined> {
    if (this.behind === undefined) return undefined;
    const status = await this.deps.readLinkStatus(this.behind).catch(() => undefined);
    const how = status === undefined ? 'not running' : `${status.state}, lag ${status.lagMs} ms`;
    return `${this.behind} did not pass a marker in ${MARKER_MS / 1000} s (${how}): see \`interlock replicate status ${this.behind}\`; verify again when it has caught up`;
  }

  private fence(dc: DcId): RedisFence {
    return this.deps.stores.get(dc)!.redis.get(this.store)!;
  }
}
