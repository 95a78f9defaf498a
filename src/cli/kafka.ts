import type { Command } from 'commander';
import { Cluster } from '../../replicators/kafka/client/cluster.js';
import { kafkaAddress, kafkaLinkConfig } from '../../replicators/kafka/configure.js';
import { forgetGroup, keptOf } from '../../replicators/kafka/forget-group.js';
import type { ForgottenGroup } from '../../replicators/kafka/forget-group.js';
import { consumerGaps, groupReport } from '../../replicators/kafka/group-report.js';
import type { GroupReport } from '../../replicators/kafka/group-report.js';
import { datacenter, wantedLinks } from '../topology/derive.js';
import { loadTopology, resolveSecret } from '../topology/load.js';
import { InterlockError } from '../errors.js';
import { print, printJson, table, topologyFile, topologyOption } from './output.js';

interface Options {
  topology?: string;
  json?: boolean;
  dc?: string;
}

interface ForgetOptions {
  topology?: string;
  json?: boolean;
  dc: string;
  group: string;
  topic?: string;
  store?: string;
}

/** `interlock kafka groups | forget-group`. */
export function register(program: Command): void {
  const kafka = program.command('kafka').description('Kafka stores: where consumer groups are');
  topologyOption(kafka.command('groups'))
    .description(
      'committed positions of consumer groups, and where they are in the copies of the other data center',
    )
    .option('--dc <dc>', 'groups of this data center only')
    .option('--json', 'print one JSON document')
    .action(groups);
  topologyOption(kafka.command('forget-group'))
    .description(
      "remove what a data center keeps of a group of the SDK's consumers that will never run there again: nothing waits for it any more",
    )
    .requiredOption('--dc <dc>', 'the data center')
    .requiredOption('--group <group>', 'the group')
    .option('--topic <topic>', 'only what it has of this topic')
    .option('--store <store>', 'of this Kafka store; needed where more than one has the group')
    .option('--json', 'print one JSON document')
    .addHelpText(
      'after',
      '\nExample:\n  $ interlock kafka forget-group --dc dc-a --group projection --topic orders',
    )
    .action(forget);
}

async function groups(options: Options): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  if (options.dc !== undefined) datacenter(topology, options.dc);
  const links = wantedLinks(topology)
    .filter((link) => link.kind === 'kafka')
    .filter(({ from }) => options.dc === undefined || from === options.dc);
  if (links.length === 0) {
    const whose = options.dc === undefined ? 'the topology' : `the topology out of ${options.dc}`;
    throw new InterlockError('BadInput', `${whose} has no Kafka link: add one to links`, {
      details: { field: options.dc === undefined ? 'links' : 'dc' },
    });
  }
  const configs = links.map((link) => kafkaLinkConfig(topology, link, resolveSecret));
  const [reports, gaps] = await Promise.all([
    Promise.all(configs.map((config) => groupReport(config))).then((all) => all.flat()),
    Promise.all(configs.map((config) => consumerGaps(config))).then((all) => all.flat()),
  ]);
  if (options.json === true) return printJson({ groups: reports, gaps });
  if (reports.length === 0) print('No group has committed a position in a topic that a link carries.');
  else print(table([HEADER, ...reports.map(row)]));
  for (const { dc, group, topic, partition, origin, from, to } of gaps)
    print(
      `${group} in ${dc} has left out ${topic}-${partition} of ${origin} from ${from} to ${to - 1}: it was removed before it was handled`,
    );
}

async function forget({ dc, group, topic, ...options }: ForgetOptions): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  const all = Object.entries(datacenter(topology, dc).stores.kafka);
  const stores = all.filter(([name]) => options.store === undefined || options.store === name);
  if (stores.length === 0) {
    const names = all.map(([name]) => name).join(', ') || 'none';
    throw badInput('--store', `${dc} has no Kafka store ${options.store ?? ''}; it has: ${names}`);
  }
  const of = { dc, group, ...(topic !== undefined && { topic }) };
  const clusters = new Map(
    stores.map(([name, settings]) => [name, new Cluster(kafkaAddress(settings, resolveSecret))]),
  );
  try {
    const known = await Promise.all(
      [...clusters].map(async ([store, cluster]) => ({ store, cluster, ...(await keptOf(cluster, of)) })),
    );
    const having = known.filter(({ kept }) => kept.length > 0);
    const [first] = having;
    if (first === undefined) {
      const names = [...new Set(known.flatMap(({ groups: there }) => there))].join(', ') || 'none';
      const what = topic === undefined ? group : `${group} with topic ${topic}`;
      throw badInput(
        '--group',
        `${dc} keeps nothing of a group ${what}; groups of the SDK's consumers there: ${names}`,
      );
    }
    if (having.length > 1)
      throw badInput(
        '--store',
        `${having.map(({ store }) => store).join(' and ')} of ${dc} have a group ${group}: say which`,
      );
    const forgotten = await forgetGroup(first.cluster, of);
    if (options.json === true) return printJson({ dc, store: first.store, forgotten });
    for (const one of forgotten) print(`${dc} kafka/${first.store} has forgotten ${forgottenWords(one)}`);
  } finally {
    for (const cluster of clusters.values()) cluster.close();
  }
}

function badInput(field: string, message: string): InterlockError {
  return new InterlockError('BadInput', `${field}: ${message}`, { details: { field } });
}

function forgottenWords({ group, topic, states, handOvers }: ForgottenGroup): string {
  const rows = states.map(({ origin, partition, position, holder }) => [
    ...[origin, String(partition), position === null ? '–' : String(position)],
    holder === null ? '–' : `${holder.application}/${holder.instance}`,
  ]);
  const epochs = handOvers.length === 0 ? '' : `, and what was handed over at epoch ${handOvers.join(', ')}`;
  const were = states.length === 0 ? 'no positions' : `${states.length} positions`;
  const lines =
    rows.length === 0 ? '' : `\n${table([['origin', 'partition', 'was at', 'held by'], ...rows])}`;
  return `group ${group} in ${topic}: ${were}${epochs}${lines}`;
}

const HEADER = ['group', 'topic', 'partition', 'committed in', 'at', 'copy in', 'topic', 'at', 'state'];

function row(report: GroupReport): string[] {
  const { group, topic, partition, dc, offset, copyDc, copy, translated, translatedFrom, state } = report;
  const at = translated === null ? '–' : String(translated);
  const words = state === 'behind' ? `behind: stands for ${translatedFrom}` : WORDS[state];
  return [group, topic, String(partition), dc, String(offset), copyDc, copy, at, words];
}

const WORDS = {
  translated: 'translated',
  own: 'committed there by the group itself',
  missing: 'not translated yet',
} as const;
