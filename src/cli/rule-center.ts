import type { Command } from 'commander';
import { openRedisFences, openStores } from '../fence/connect.js';
import { GatewayAdmin } from '../gateway/admin-client.js';
import { createLogger } from '../observability/logger.js';
import { RuleCenterClient } from '../rule-center/client.js';
import { FenceStates, RedisStates } from '../rule-center/fence-states.js';
import { GATEWAY_TIMEOUT_MS } from '../rule-center/gateway-pusher.js';
import { RuleCenter } from '../rule-center/rule-center.js';
import { datacenter, otherDc } from '../topology/derive.js';
import { loadTopology, resolveSecret } from '../topology/load.js';
import { topologyFile, topologyOption } from './output.js';
import { untilStopped } from './until-stopped.js';

interface Options {
  dc: string;
  topology?: string;
  state?: string;
}

/** `interlock rule-center --dc dc-a` */
export function register(program: Command): void {
  topologyOption(program.command('rule-center'))
    .description('the HTTP service of a data center that serves its rules; runs until SIGTERM')
    .requiredOption('--dc <dc>', 'the data center')
    .option('--state <dir>', 'keep the last rules here, and serve them while the control store is down')
    .option('--json', 'accepted as everywhere: what it writes on stdout is its log, a JSON document per line')
    .action(run);
}

async function run(options: Options): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  const { dc } = options;
  const { ruleCenter, gateways } = datacenter(topology, dc);
  const other = otherDc(topology, dc);
  const log = createLogger('rule-center', dc);
  const listen = new URL(ruleCenter.url);
  const token = resolveSecret(ruleCenter.token);
  const admins = new Map(
    Object.entries(gateways).map(([name, gateway]) => [
      name,
      new GatewayAdmin({
        admin: gateway.admin,
        token: resolveSecret(gateway.token),
        timeoutMs: GATEWAY_TIMEOUT_MS,
      }),
    ]),
  );
  const stores = openStores(topology, dc, resolveSecret);
  const others = openRedisFences(topology, other, resolveSecret);
  const peer = new RuleCenterClient({ dc: other, url: datacenter(topology, other).ruleCenter.url });
  const center = new RuleCenter({
    dc,
    topology: topology.name,
    domains: new Map(Object.entries(topology.datacenters).map(([name, { domain }]) => [name, domain])),
    unrouted: Object.entries(topology.tables).flatMap(([name, routing]) =>
      'unrouted' in routing ? [name] : [],
    ),
    token,
    listen: {
      host: listen.hostname.replace(/^\[|\]$/g, ''),
      port: Number(listen.port || (listen.protocol === 'https:' ? 443 : 80)),
    },
    rules: stores.rules,
    states: [
      ...[...stores.fences.values()].map((fence) => new FenceStates(fence)),
      ...[...stores.redis].map(
        ([store, fence]) => new RedisStates(fence, { history: stores.rules, source: others.get(store) }),
      ),
    ],
    gateways: admins,
    peer,
    ...(options.state === undefined ? {} : { stateDirectory: options.state }),
    log,
  });
  try {
    const url = await center.start();
    log.info({ url }, 'the rule center serves');
    const signal = await untilStopped();
    log.info({ signal }, 'stopping');
    await center.stop();
  } finally {
    for (const { client } of others.values()) client.disconnect();
    await Promise.allSettled([stores.close(), peer.close()]);
  }
}
