import { stringify } from 'yaml';
import { validateTopology } from '../../src/topology/load.js';
import { DATACENTERS, STORES } from './options.js';
import type { LabDc } from './options.js';
import type { LabContext } from './part.js';
import { gatewayAdminPort, gatewayNames, gatewayPort } from './parts/gateway.js';
import { kafkaNames, kafkaPort, kafkaRemotePort } from './parts/kafka.js';
import { mysqlPort } from './parts/mysql.js';
import { redisNames, redisPort } from './parts/redis.js';
import { ruleCenterPort } from './parts/rule-center.js';
import { instancePort } from './parts/application.js';
import { wanPort } from './parts/wan.js';
import { writeAtomically } from './state.js';

/** Home DC of the lab's regions. */
const REGIONS = { 'cn-east': 'dc-a', 'cn-west': 'dc-b' } as const;

export function storeNames(lab: Pick<LabContext, 'state'>): string[] {
  return STORES.slice(0, lab.state.shape.stores);
}

/**
 * The lab's topology as one reader sees it: an operator reaches everything directly; a DC's programs reach what is in the
 * other DC through the wide-area proxy, when there is one.
 */
function topologyDocument(lab: LabContext, reader: LabDc | null): unknown {
  const { shape, workload } = lab.state;
  const seen = (port: string, place: LabDc, remote = port): number =>
    shape.rttMs > 0 && reader !== null && reader !== place
      ? lab.port(wanPort(reader, remote))
      : lab.port(port);
  const secret = (name: string): { file: string } => ({ file: `secrets/${name}` });
  const temporalAddress = lab.state.temporalAddress ?? `127.0.0.1:${seen('temporal', 'dc-a')}`;
  return {
    version: 1,
    name: 'lab',
    temporal: {
      address: temporalAddress,
      ...(lab.state.temporalAddress === null ? { webUi: `http://127.0.0.1:${lab.port('temporal.ui')}` } : {}),
    },
    defaultRegion: 'cn-east',
    datacenters: Object.fromEntries(
      DATACENTERS.map((dc) => [
        dc,
        {
          domain: `${dc}.lab.internal`,
          taskQueue: `interlock-${dc}`,
          ruleCenter: {
            url: `http://127.0.0.1:${seen(ruleCenterPort(dc), dc)}`,
            token: secret(`rule-center-${dc}`),
          },
          gateways: Object.fromEntries(
            gatewayNames(lab).map((gateway) => [
              gateway,
              {
                url: `http://127.0.0.1:${seen(gatewayPort(dc, gateway), dc)}`,
                admin: `http://127.0.0.1:${lab.port(gatewayAdminPort(dc, gateway))}`,
                token: secret(`gateway-${dc}`),
              },
            ]),
          ),
          stores: {
            mysql: Object.fromEntries(
              storeNames(lab).map((store) => [
                store,
                {
                  host: '127.0.0.1',
                  port: seen(mysqlPort(dc, store), dc),
                  user: 'interlock',
                  password: secret('mysql-interlock'),
                  flavour: shape.mysql,
                  control: store === STORES[0],
                },
              ]),
            ),
            redis: Object.fromEntries(
              redisNames(lab).map((store) => [
                store,
                {
                  host: '127.0.0.1',
                  port: seen(redisPort(dc, store), dc),
                  user: 'interlock',
                  password: secret('redis-interlock'),
                },
              ]),
            ),
            kafka: Object.fromEntries(
              kafkaNames(lab).map((store) => [
                store,
                { brokers: [`127.0.0.1:${seen(kafkaPort(dc, store), dc, kafkaRemotePort(dc, store))}`] },
              ]),
            ),
          },
          applications: Object.fromEntries(
            Object.entries(workload.instances).map(([application, { count }]) => [
              application,
              {
                id: `${application}.${dc}`,
                instances: Array.from(
                  { length: count },
                  (_, index) => `http://127.0.0.1:${lab.port(instancePort(application, dc, index + 1))}`,
                ),
              },
            ]),
          ),
        },
      ]),
    ),
    regions: Object.fromEntries(Object.entries(REGIONS).map(([region, home]) => [region, { home }])),
    segments: workload.segments,
    central: workload.central,
    applications: workload.applications,
    tables: workload.tables,
    keys: workload.keys,
    links: [
      ...storeNames(lab).map((store) => ({
        store: `mysql/${store}`,
        ...(workload.include === undefined ? {} : { include: workload.include }),
      })),
      ...redisNames(lab).map((store) => ({ store: `redis/${store}`, onGap: 'resync' })),
      ...kafkaNames(lab).map((store) => ({ store: `kafka/${store}` })),
      ...(workload.outboxes === undefined ? [] : kafkaNames(lab).slice(0, 1)).map((kafka) => ({
        ...{ store: `outbox/${STORES[0]}`, kafka, tables: workload.outboxes },
      })),
    ],
  };
}

/** Writes the topology files, the secrets they refer to, and an environment file for shells. */
export async function writeTopology(lab: LabContext): Promise<void> {
  const { files, state } = lab;
  for (const [name, value] of Object.entries(state.secrets)) {
    await writeAtomically(files.secret(name), `${value}\n`, 0o600);
  }
  for (const reader of [null, ...DATACENTERS]) {
    const document = topologyDocument(lab, reader);
    const file = reader === null ? files.topology() : files.topologyOf(reader);
    validateTopology(document, file);
    const comment =
      reader === null ? '# As an operator sees the lab.' : `# As the programs of ${reader} see the lab.`;
    await writeAtomically(file, `${comment} Written by \`interlock lab up\`.\n${stringify(document)}`);
  }
  const lines = Object.entries(environment(lab)).map(([name, value]) => `${name}=${value}`);
  await writeAtomically(files.env(), `${lines.join('\n')}\n`, 0o600);
}

/** What a shell or an application needs to use the lab. */
export function environment(lab: LabContext): Record<string, string> {
  return {
    INTERLOCK_TOPOLOGY: lab.files.topology(),
    INTERLOCK_LAB_MYSQL_APP_PASSWORD: lab.secret('mysql-app'),
    INTERLOCK_LAB_MYSQL_PASSWORD: lab.secret('mysql-interlock'),
    INTERLOCK_LAB_MYSQL_ROOT_PASSWORD: lab.secret('mysql-root'),
    ...(lab.state.shape.redis > 0 && {
      INTERLOCK_LAB_REDIS_APP_PASSWORD: lab.secret('redis-app'),
      INTERLOCK_LAB_REDIS_PASSWORD: lab.secret('redis-interlock'),
    }),
  };
}
