import type { Command } from 'commander';
import { kafkaLinkConfig } from '../../replicators/kafka/configure.js';
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

/** `interlock kafka groups`. */
export function register(program: Command): void {
  const kafka = program.command('kafka').description('Kafka stores: where consumer groups are');
  topologyOption(kafka.command('groups'))
    .description(
      'committed positions of consumer groups, and where they are in the copies of the other data center',
    )
    .option('--dc <dc>', 'groups of this data center only')
    .option('--json', 'print one JSON document')
    .action(groups);
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
