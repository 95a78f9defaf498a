import type { Command } from 'commander';
import { messageOf } from '../errors.js';
import { openAllStores } from '../fence/connect.js';
import { preflightRedis, preflightRedisPair } from '../fence/redis-preflight.js';
import type { DcStores } from '../fence/connect.js';
import { preflightPair, preflightStore, preflightTables } from '../fence/preflight.js';
import type { Check } from '../fence/preflight.js';
import { GatewayAdmin } from '../gateway/admin-client.js';
import type { DcId } from '../routing/units.js';
import { RuleCenterClient } from '../rule-center/client.js';
import { dcIds, wantedLinks } from '../topology/derive.js';
import { loadTopology, resolveSecret } from '../topology/load.js';
import type { LoadedTopology } from '../topology/load.js';
import type { SecretReference, Topology } from '../topology/schema.js';
import { EXIT, print, printJson, table, topologyFile, topologyOption } from './output.js';

interface CheckOptions {
  topology?: string;
  live?: boolean;
  json?: boolean;
}

const ASK_LIMIT_MS = 3_000;

/** `interlock topology check [--live]` */
export function register(program: Command): void {
  const topology = program
    .command('topology')
    .description('the topology file: data centers, stores, applications');
  topologyOption(topology.command('check'))
    .description(
      'validate the topology file; with --live, connect to everything that it names and look whether it is fit',
    )
    .option('--live', 'connect to stores, gateways, rule centers and Temporal; changes nothing')
    .option('--json', 'print one JSON document')
    .action(check);
}

async function check(options: CheckOptions): Promise<void> {
  const loaded = await loadTopology(topologyFile(options));
  const checks = options.live ? await liveChecks(loaded.topology) : [];
  const ok = checks.every((one) => one.ok);
  if (options.json) {
    printJson({ topology: loaded.topology.name, hash: loaded.hash, ok, checks });
  } else {
    print(summary(loaded));
    if (checks.length > 0) {
      print(table(checks.map((one) => [one.ok ? 'ok' : 'WRONG', one.name, one.detail])));
      const wrong = checks.filter((one) => !one.ok).length;
      print(ok ? `All ${checks.length} checks are ok.` : `${wrong} of ${checks.length} checks are wrong.`);
    }
  }
  if (!ok) process.exitCode = EXIT.failed;
}

function summary({ topology, hash, file }: LoadedTopology): string {
  const counts = [
    `data centers ${dcIds(topology).join(' and ')}`,
    `${Object.keys(topology.regions).length} regions`,
    `${Object.keys(topology.applications).length} applications`,
    `${wantedLinks(topology).length} links`,
  ];
  return `${file}: topology ${topology.name} is valid (${counts.join(', ')}; hash ${hash.slice(0, 12)}).`;
}

/** Everything is asked at once; the answers are in a stable order. */
async function liveChecks(topology: Topology): Promise<Check[]> {
  // All secrets first: one that is missing is bad input, not a server that does not answer.
  const secrets = (reference: SecretReference): string => resolveSecret(reference);
  const stores = openAllStores(topology, secrets);
  try {
    const perDc = dcIds(topology).map(async (dc) => datacenterChecks(topology, dc, stores.get(dc)!));
    const all = await Promise.all([...perDc, pairChecks(topology, stores), temporalChecks(topology)]);
    return all.flat();
  } finally {
    await Promise.all([...stores.values()].map((dc) => dc.close()));
  }
}

async function datacenterChecks(topology: Topology, dc: DcId, stores: DcStores): Promise<Check[]> {
  const { gateways, ruleCenter } = topology.datacenters[dc]!;
  const checks = await Promise.all([
    ...[...stores.fences.values()].map((fence) => preflightStore(fence, topology)),
    ...[...stores.redis.values()].map((fence) => preflightRedis(fence)),
    preflightTables(dc, stores.fences.values(), topology),
    asked(`${dc} rule center`, async () => {
      const client = new RuleCenterClient({
        dc,
        url: ruleCenter.url,
        token: resolveSecret(ruleCenter.token),
      });
      try {
        const { status, epoch, problems } = await client.health(AbortSignal.timeout(ASK_LIMIT_MS));
        const said = problems.map((problem) => problem.message).join('; ');
        return { ok: status === 'ok', detail: `${status} at epoch ${epoch ?? 'none'}${said && `: ${said}`}` };
      } finally {
        await client.close();
      }
    }),
    ...Object.entries(gateways).map(([name, gateway]) =>
      asked(`${dc} gateway ${name}`, async () => {
        const admin = new GatewayAdmin({
          admin: gateway.admin,
          token: resolveSecret(gateway.token),
          timeoutMs: ASK_LIMIT_MS,
        });
        try {
          const { epoch } = await admin.status();
          if (epoch === null) return { ok: false, detail: 'has no rules; is the rule center running?' };
          return { ok: true, detail: `epoch ${epoch}` };
        } finally {
          await admin.close();
        }
      }),
    ),
  ]);
  return checks.flat();
}

/** Stores of one name in both data centers. */
async function pairChecks(topology: Topology, stores: ReadonlyMap<DcId, DcStores>): Promise<Check[]> {
  const [one, other] = [...stores.values()] as [DcStores, DcStores];
  const pairs = [...one.fences].flatMap(([name, fence]) => {
    const twin = other.fences.get(name);
    return twin === undefined ? [] : [preflightPair(fence, twin, topology)];
  });
  const redis = [...one.redis].flatMap(([name, fence]) => {
    const twin = other.redis.get(name);
    return twin === undefined ? [] : [preflightRedisPair(fence, twin)];
  });
  return (await Promise.all([...pairs, ...redis])).flat();
}

async function temporalChecks(topology: Topology): Promise<Check[]> {
  const { address, namespace, controlTaskQueue } = topology.temporal;
  return asked('Temporal', async () => {
    const { Connection } = await import('@temporalio/client');
    const connection = await Connection.connect({ address, connectTimeout: ASK_LIMIT_MS });
    try {
      const { workflowService } = connection;
      await workflowService.describeNamespace({ namespace });
      const queues = [controlTaskQueue, ...dcIds(topology).map((dc) => topology.datacenters[dc]!.taskQueue)];
      const polled = await Promise.all(
        queues.map(async (name) => {
          // Task queue type 2: activities. Only those of data centers and the control queue are asked for.
          const { pollers } = await workflowService.describeTaskQueue({
            namespace,
            taskQueue: { name },
            taskQueueType: 2,
          });
          return { name, pollers: pollers?.length ?? 0 };
        }),
      );
      const idle = polled.filter(({ pollers }) => pollers === 0).map(({ name }) => name);
      if (idle.length > 0) {
        return {
          ok: false,
          detail: `${address} answers, but no worker polls ${idle.join(', ')}: run \`interlock worker\``,
        };
      }
      return { ok: true, detail: `${address}, namespace ${namespace}; workers poll ${queues.join(', ')}` };
    } finally {
      await connection.close();
    }
  });
}

async function asked(name: string, look: () => Promise<{ ok: boolean; detail: string }>): Promise<Check[]> {
  try {
    return [{ name, ...(await look()) }];
  } catch (error) {
    return [{ name, ok: false, detail: messageOf(error) }];
  }
}
