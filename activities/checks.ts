import type { RowDataPacket } from 'mysql2/promise';
import { stuckSummary } from '../replicators/core/alerts.js';
import { messageOf } from '../src/errors.js';
import type { FenceStore } from '../src/fence/fence-store.js';
import { redisChecks } from '../src/fence/redis-preflight.js';
import type { UnitFence } from '../src/fence/unit-fence.js';
import { checkGrants, checkReadOnly } from '../src/fence/preflight.js';
import type { DcId, UnitId } from '../src/routing/units.js';
import { mappingDifference } from '../src/topology/derive.js';
import type { Check, SwitchPlan } from '../workflows/contract.js';
import { checkDefinitions, checkTables } from './carried-tables.js';
import type { DatacenterDeps } from './dependencies.js';
import { checkpointOf, kafkaMember, planLink, relaysOf } from './links.js';

const ASK_LIMIT_MS = 3_000;
/** The rule center is asked for so many of the moved units; the stores for all. */
const SAMPLE = 8;

/** A check that names its failure instead of throwing it. */
async function check(name: string, look: () => Promise<string | { wrong: string }>): Promise<Check> {
  try {
    const seen = await look();
    return typeof seen === 'string'
      ? { name, ok: true, detail: seen }
      : { name, ok: false, detail: seen.wrong };
  } catch (error) {
    return { name, ok: false, detail: messageOf(error) };
  }
}

/** Step 2: what this DC can see before anything is fenced. `beat` is called between the checks. */
export async function checkDatacenter(
  deps: DatacenterDeps,
  plan: SwitchPlan,
  beat: () => void,
): Promise<Check[]> {
  const { dc } = deps;
  const own = deps.stores.get(dc)!;
  const checks: Check[] = [];
  const add = async (name: string, look: () => Promise<string | { wrong: string }>): Promise<void> => {
    checks.push(await check(name, look));
    beat();
  };

  await add(`${dc}: rules`, async () => {
    const stored = await own.rules.current();
    if (stored === undefined) return { wrong: 'no rules: run `interlock rules init`' };
    if (stored.rules.epoch !== plan.baseEpoch || stored.hash !== plan.baseHash) {
      return {
        wrong: `epoch ${stored.rules.epoch} is in force, the plan was made for epoch ${plan.baseEpoch}: plan again`,
      };
    }
    return `epoch ${plan.baseEpoch}`;
  });
  await add(`${dc}: mapping of users to units`, async () => {
    const wrong = mappingDifference(deps.topology, plan.rules);
    if (wrong === undefined) return 'as in the topology';
    return { wrong: `${wrong}: the links map by the topology. Undo the change in the topology file` };
  });
  for (const fence of own.fences.values()) {
    const { store } = fence;
    await add(`${fence.name}: identity and unit states`, () => checkStates(fence, dc, plan));
    await add(`${fence.name}: prepared XA transactions`, async () => {
      const prepared = await fence.preparedXa();
      if (prepared.length === 0) return 'none';
      return { wrong: `${prepared.join(', ')}: XA COMMIT or XA ROLLBACK them` };
    });
    await add(`${fence.name}: routed tables`, () => checkTables(fence.pool, deps, store));
    if (dc === plan.to) await add(`${fence.name}: definitions`, () => checkDefinitions(deps, store));
    await add(`${fence.name}: binlog`, () => checkBinlog(fence));
    await add(`${fence.name}: read_only`, () => checkReadOnly(fence, dc === plan.to));
    if (plan.scope === `dc:${dc}`)
      await add(`${fence.name}: grants`, () => checkGrants(fence.pool, fence.flavour, deps.topology));
    await add(`${fence.name}: auto-increment`, () => checkAutoIncrement(deps, store));
  }
  for (const fence of own.redis.values()) {
    await add(`${fence.name}: identity and unit states`, () => checkStates(fence, dc, plan));
    for (const { name, look } of redisChecks(fence)) await add(`${fence.name}: ${name}`, look);
  }
  for (const member of deps.kafka.get(dc)?.values() ?? []) {
    await add(`${member.name}: identity`, async () => {
      const cluster = await member.identity();
      const planned = plan.servers[member.name];
      if (planned === cluster) return `cluster ${cluster}`;
      return {
        wrong: `cluster ${cluster} answers, the plan was made for ${planned ?? 'none'}: plan again`,
      };
    });
  }
  if (dc === plan.from) {
    for (const { link } of plan.links) {
      const member = kafkaMember(deps, dc, link);
      if (member === undefined) continue;
      await add(`${member.name}: what its groups have left`, async () => {
        const target = kafkaMember(deps, plan.to, link)!;
        const uncopied = await member.uncopied(target, { link, units: plan.units });
        return uncopied === undefined ? `${link} has it` : { wrong: uncopied };
      });
    }
  }
  const inbound = [...plan.links, ...plan.reverseLinks].filter(({ link }) => link.endsWith(`>${dc}`));
  for (const { link } of inbound) {
    await add(`link ${link}`, async () => {
      const status = await planLink(link, deps);
      const before = plan.links.concat(plan.reverseLinks).find((one) => one.link === link)!;
      if (status.state !== 'streaming') {
        return {
          wrong: `${status.state}: run \`interlock replicate status\`, then \`interlock replicate start '${link}'\``,
        };
      }
      if (status.generation !== before.generation) {
        return { wrong: `restarted since the plan (generation ${status.generation}): plan again` };
      }
      const checkpoint = await checkpointOf(link, deps);
      const { conflicts, quarantined } = checkpoint ?? { conflicts: 0, quarantined: 0 };
      if (quarantined > 0)
        return {
          wrong: `${quarantined} transactions are kept aside: \`interlock quarantine list '${link}'\``,
        };
      if (conflicts > 0)
        return { wrong: `${conflicts} open conflicts: \`interlock conflicts list '${link}'\`` };
      const stuck = (await deps.readLinkStatus(link))?.kafka?.stuck ?? [];
      // Behind the fence the drain would wait for it.
      if (stuck.length > 0) return { wrong: stuckSummary(stuck) };
      return `streaming, ${status.lagMs} ms behind`;
    });
  }
  for (const relay of relaysOf(deps.topology, dc)) {
    await add(`link ${relay}`, async () => {
      const { state, lagMs } = await planLink(relay, deps);
      if (state === 'streaming') return `streaming, ${lagMs} ms behind`;
      return {
        wrong: `${state}: run \`interlock replicate status\`, then \`interlock replicate start '${relay}'\``,
      };
    });
  }
  await add(`${dc}: gateways`, () => checkGateways(deps, plan.baseEpoch));
  return checks;
}

async function checkStates(
  fence: UnitFence,
  dc: DcId,
  plan: SwitchPlan,
): Promise<string | { wrong: string }> {
  const server = await fence.identity();
  const planned = plan.servers[fence.name];
  if (planned !== server) {
    return { wrong: `server ${server} answers, the plan was made for ${planned ?? 'none'}: plan again` };
  }
  const states = await fence.states(plan.units);
  const rowOf = new Map(states.map((row) => [row.unit, row]));
  const expected = dc === plan.from ? 'open' : 'remote';
  for (const unit of plan.units) {
    const row = rowOf.get(unit);
    if (row === undefined) return { wrong: `${unit} has no row: run \`interlock rules init\`` };
    if (row.server !== server) {
      return {
        wrong: `${unit} was asserted on server ${row.server}: run \`interlock rules reassert --dc ${dc}\``,
      };
    }
    if (row.state !== expected || row.owner !== plan.from) {
      return {
        wrong: `${unit} is ${row.state} of ${row.owner} at epoch ${row.epoch}, the rules say ${expected} of ${plan.from}: run \`interlock fence status\``,
      };
    }
    if (row.epoch > plan.baseEpoch) {
      return {
        wrong: `${unit} is at epoch ${row.epoch}, above the rules' ${plan.baseEpoch}: run \`interlock fence release\``,
      };
    }
  }
  return `${plan.units.length} units ${expected} on server ${server}`;
}

async function checkBinlog(fence: FenceStore): Promise<string | { wrong: string }> {
  const [rows] = await fence.pool.query<RowDataPacket[]>(
    `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format', 'binlog_row_image', 'gtid_mode')`,
  );
  const values = new Map(rows.map((row) => [String(row['Variable_name']), String(row['Value'])]));
  const wanted: [string, string][] = [
    ['log_bin', 'ON'],
    ['binlog_format', 'ROW'],
    ['binlog_row_image', 'FULL'],
  ];
  if (fence.flavour === 'mysql') wanted.push(['gtid_mode', 'ON']);
  const wrong = wanted.filter(([name, value]) => values.get(name) !== value);
  if (wrong.length > 0) {
    return {
      wrong: wrong
        .map(([name, value]) => `${name} is ${values.get(name) ?? 'unknown'}, needs ${value}`)
        .join('; '),
    };
  }
  return 'row format, full images';
}

/** Two DCs that take turns at the same keys would collide after a switch: their offsets must differ under one increment. */
async function checkAutoIncrement(deps: DatacenterDeps, store: string): Promise<string | { wrong: string }> {
  const settings = await Promise.all(
    [...deps.stores.values()].map(async (dc) => {
      const [rows] = await dc
        .fence(store)
        .pool.query<RowDataPacket[]>(
          'SELECT @@global.auto_increment_increment AS increment, @@global.auto_increment_offset AS `offset`',
        );
      return { increment: Number(rows[0]!['increment']), offset: Number(rows[0]!['offset']) };
    }),
  );
  const increments = new Set(settings.map(({ increment }) => increment));
  const offsets = new Set(settings.map(({ increment, offset }) => offset % increment));
  const text = settings.map(({ increment, offset }) => `${offset} by ${increment}`).join(' and ');
  if (increments.size !== 1 || offsets.size !== settings.length) {
    return {
      wrong: `${text}: keys of the two data centers can collide; set auto_increment_increment=2 and offsets 1 and 2`,
    };
  }
  return text;
}

async function checkGateways(deps: DatacenterDeps, epoch: number): Promise<string | { wrong: string }> {
  const wanted = Object.keys(deps.topology.datacenters[deps.dc]!.gateways);
  const views = await deps.ruleCenters.get(deps.dc)!.gateways(AbortSignal.timeout(ASK_LIMIT_MS));
  const behind = wanted.filter((name) => {
    const view = views.find(({ gateway }) => gateway === name);
    return view === undefined || view.epoch !== epoch;
  });
  if (behind.length > 0) {
    const seen = behind.map((name) => {
      const view = views.find(({ gateway }) => gateway === name);
      return `${name} has epoch ${view?.epoch ?? 'unknown'} (${view?.detail ?? 'unknown to the rule center'})`;
    });
    return { wrong: `not at epoch ${epoch}: ${seen.join('; ')}` };
  }
  return `${wanted.length} at epoch ${epoch}`;
}

/** Step 9: the stores, the rule center and the gateways of this DC agree on who owns the units. */
export async function checkOutcome(
  deps: DatacenterDeps,
  input: { dc: DcId; owner: DcId; units: UnitId[]; epoch: number },
): Promise<Check[]> {
  const { dc, owner, units, epoch } = input;
  const own = deps.stores.get(dc)!;
  const expected = dc === owner ? 'open' : 'remote';
  const stores = own.all.map((fence) =>
    check(`${fence.name}: ${units.length} units ${expected}`, async () => {
      const { states, server } = await fence.evidence(units);
      const wrong = states.filter(
        (row) => row.state !== expected || row.owner !== owner || row.epoch < epoch || row.server !== server,
      );
      if (states.length === units.length && wrong.length === 0) return `at epoch ${epoch} or above`;
      const first = wrong[0];
      const seen =
        first === undefined
          ? 'rows are missing'
          : `${first.unit} is ${first.state} of ${first.owner} at epoch ${first.epoch}`;
      return { wrong: `${wrong.length + units.length - states.length} units differ: ${seen}` };
    }),
  );
  const ruleCenter = deps.ruleCenters.get(dc)!;
  const routes = check(`${dc}: rule center`, async () => {
    const asked = sample(units);
    const answers = await Promise.all(
      asked.map((unit) => ruleCenter.owns(unit, AbortSignal.timeout(ASK_LIMIT_MS))),
    );
    const wrong = answers.find((one) => one.owner !== owner || one.state !== 'open' || one.epoch < epoch);
    if (wrong === undefined) return `routes ${asked.length} of the units to ${owner}`;
    return { wrong: `${wrong.unit} is ${wrong.state} of ${wrong.owner} at epoch ${wrong.epoch}` };
  });
  const gateways = check(`${dc}: gateways`, async () => {
    const views = await ruleCenter.gateways(AbortSignal.timeout(ASK_LIMIT_MS));
    const behind = views.filter((view) => view.epoch === null || view.epoch < epoch);
    if (behind.length === 0) return `${views.length} at epoch ${epoch} or above`;
    return {
      wrong: behind
        .map((view) => `${view.gateway} has epoch ${view.epoch ?? 'unknown'}: ${view.detail}`)
        .join('; '),
    };
  });
  return Promise.all([...stores, routes, gateways]);
}

function sample(units: readonly UnitId[]): UnitId[] {
  const step = Math.max(1, Math.floor(units.length / SAMPLE));
  return units.filter((_, i) => i % step === 0).slice(0, SAMPLE);
}
