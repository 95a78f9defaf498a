import type { Command } from 'commander';
import { InterlockError, isInterlockError } from '../errors.js';
import { openAllStores } from '../fence/connect.js';
import type { DcStores } from '../fence/connect.js';
import { diagnose } from '../fence/diagnosis.js';
import { initialise, newest } from '../fence/init.js';
import { reassertFresh } from '../fence/redis-freshness.js';
import type { StoredRules } from '../fence/rules-store.js';
import type { DcId } from '../routing/units.js';
import { datacenter, dcIds, initialRules, otherDc } from '../topology/derive.js';
import { loadTopology, resolveSecret } from '../topology/load.js';
import type { Topology } from '../topology/schema.js';
import { EXIT, print, printJson, progress, table, topologyFile, topologyOption } from './output.js';

interface Options {
  topology?: string;
  json?: boolean;
}

/** `interlock rules init | show`. */
export function register(program: Command): void {
  const rules = program
    .command('rules')
    .description('the versioned document that maps users to units and units to owners');
  topologyOption(rules.command('init'))
    .description('create the schema, the rules of epoch 1 and the unit states where they are missing')
    .option('--json', 'print one JSON document')
    .action(init);
  topologyOption(rules.command('show'))
    .description('the rules in force, in every data center')
    .option('--json', 'print one JSON document')
    .action(show);
  topologyOption(rules.command('reassert'))
    .description(
      'write the unit states again on a server that is not the one they were asserted on (restore, failover)',
    )
    .requiredOption('--dc <dc>', 'the data center of the server')
    .option(
      '--accept-loss <store...>',
      'open redis/NAME although it has lost its states, or came back with older data',
    )
    .option('--json', 'print one JSON document')
    .addHelpText(
      'after',
      `
Examples:
  $ interlock rules reassert --dc dc-b
  $ interlock rules reassert --dc dc-b --accept-loss redis/cache`,
    )
    .action(reassert);
}

async function init(options: Options): Promise<void> {
  await withStores(options, async (topology, stores) => {
    const result = await initialise(stores, initialRules(topology), progress);
    if (options.json) printJson(result);
    else print(`Rules of epoch ${result.epoch} are in force in ${[...stores.keys()].join(' and ')}.`);
  });
}

async function show(options: Options): Promise<void> {
  await withStores(options, async (_topology, stores) => {
    const found = await Promise.all([...stores.values()].map(rulesOf));
    const silent = found.filter(({ problem }) => problem !== null);
    const current = newest(found.map((one) => one.stored));
    if (current === undefined) {
      const unreadable = silent[0]?.problem ?? null;
      if (unreadable !== null) throw unreadable;
      throw new InterlockError('NoRules', 'there are no rules yet: run `interlock rules init`');
    }
    // A data center that does not answer may have rules of a higher epoch.
    if (silent.length > 0) process.exitCode = EXIT.needsOperator;
    const { rules, hash } = current;
    if (options.json) {
      printJson({
        rules,
        hash,
        datacenters: found.map(({ dc, stored, problem }) => ({
          dc,
          epoch: stored?.rules.epoch ?? null,
          hash: stored?.hash ?? null,
          problem: problem?.message ?? null,
        })),
      });
      return;
    }
    print(`Epoch ${rules.epoch} of topology ${rules.topology}: ${rules.reason}`);
    for (const { dc, stored, problem } of found) {
      const epoch = stored?.rules.epoch;
      if (problem !== null) print(`${dc}: ${problem.message}. Its rules are not known.`);
      else if (epoch !== rules.epoch) print(`${dc} is behind: it has epoch ${epoch ?? 'none'}.`);
    }
    const rows = [['units', 'owner', 'state']];
    for (const [region, ranges] of Object.entries(rules.regions)) {
      for (const range of ranges)
        rows.push([`${region} buckets ${range.from}–${range.to}`, range.owner, range.state]);
    }
    for (const [name, segment] of Object.entries(rules.segments)) {
      rows.push([`segment:${name} (${segment.members.length} users)`, segment.owner, segment.state]);
    }
    for (const [name, central] of Object.entries(rules.central))
      rows.push([`central:${name}`, central.owner, central.state]);
    print(table(rows));
  });
}

/** The newest rules of a data center. They have to be seen while the other one is down: a release by an operator's word is kept there. */
async function rulesOf({ dc, rules }: DcStores): Promise<{
  dc: DcId;
  stored: StoredRules | undefined;
  problem: InterlockError | null;
}> {
  try {
    return { dc, stored: await rules.current(), problem: null };
  } catch (error) {
    if (!isInterlockError(error, 'Unavailable')) throw error;
    return { dc, stored: undefined, problem: error };
  }
}

/** A restored server may have missed a fence or a hand-over: it opens only what the other data center, too, says is its own. */
async function reassert(options: Options & { dc: string; acceptLoss?: string[] }): Promise<void> {
  const accepted = options.acceptLoss ?? [];
  const known = (topology: Topology): void => {
    const { dc } = options;
    if (!dcIds(topology).includes(dc)) throw bad('--dc', dc, `one of ${dcIds(topology).join(', ')}`);
    const stores = Object.keys(datacenter(topology, dc).stores.redis).map((name) => `redis/${name}`);
    for (const name of accepted)
      if (!stores.includes(name))
        throw bad('--accept-loss', name, `a Redis store of ${dc} (${stores.join(', ') || 'it has none'})`);
  };
  const work = async (topology: Topology, stores: Map<DcId, DcStores>): Promise<void> => {
    const { current, findings, unreachable, rules } = await diagnose(stores);
    if (unreachable.length > 0) {
      throw new InterlockError(
        'NeedsOperator',
        `${unreachable.join(', ')} does not answer: without it nobody knows what ${options.dc} may have missed. Bring it back first`,
      );
    }
    if (current === undefined || findings.length > 0 || rules.some(({ hash }) => hash !== current.hash)) {
      throw new InterlockError(
        'NeedsOperator',
        'the data centers do not agree, or units are write-disabled: run `interlock fence status`, then `interlock fence release`',
        { details: { findings } },
      );
    }
    const result: { store: string; server: string; written: number }[] = [];
    const failures: unknown[] = [];
    const here = stores.get(options.dc)!;
    for (const fence of here.all) {
      const acceptLoss = accepted.includes(`${fence.kind}/${fence.store}`);
      const redis = acceptLoss || fence.kind !== 'redis' ? undefined : here.redis.get(fence.store);
      const asserting =
        redis === undefined
          ? fence.reassert(current.rules, acceptLoss)
          : reassertFresh(redis, current.rules, {
              history: here.rules,
              source: stores.get(otherDc(topology, options.dc))!.redis.get(fence.store),
            });
      const asserted = await asserting.catch((error: unknown) => void failures.push(error));
      if (asserted === undefined) continue;
      const { written, server } = asserted;
      result.push({ store: fence.name, server, written: written.length });
    }
    if (options.json) printJson({ epoch: current.rules.epoch, stores: result });
    else
      for (const { store, server, written } of result)
        print(`${store}: ${written} units asserted on server ${server}.`);
    if (failures.length > 0) throw failures[0];
  };
  await withStores(options, work, known);
}

async function withStores(
  options: Options,
  action: (topology: Topology, stores: Map<DcId, DcStores>) => Promise<void>,
  /** Throws what is wrong with the options, before anything is connected to. */
  check: (topology: Topology) => void = () => undefined,
): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  check(topology);
  const stores = openAllStores(topology, resolveSecret);
  try {
    await action(topology, stores);
  } finally {
    await Promise.all([...stores.values()].map((dc) => dc.close()));
  }
}

function bad(flag: string, value: string, expected: string): InterlockError {
  return new InterlockError('BadInput', `${flag}: ${JSON.stringify(value)}: expected ${expected}`, {
    details: { field: flag, value },
  });
}
