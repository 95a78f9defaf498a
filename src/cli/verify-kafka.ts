import type { Command } from 'commander';
import { kafkaLinkConfig } from '../../replicators/kafka/configure.js';
import { TopicFilter } from '../../replicators/kafka/topic-filter.js';
import type { ComparedPartition, ComparedTopic } from '../../replicators/kafka/verify/report.js';
import { verifyKafkaLink } from '../../replicators/kafka/verify/verifier.js';
import { InterlockError } from '../errors.js';
import { wantedLinks } from '../topology/derive.js';
import { loadTopology, resolveSecret } from '../topology/load.js';
import {
  EXIT,
  durationFlag,
  integerFlag,
  print,
  printJson,
  progress,
  table,
  topologyFile,
} from './output.js';

interface Options {
  topology?: string;
  json?: boolean;
  topics?: string[];
  keep: number;
  wait: number;
}

const KEEP = 20;
const WAIT_MS = 60_000;

/** `interlock verify kafka`: it needs both Kafkas, and no Temporal. */
export function registerKafka(command: Command): void {
  command
    .description('compare the topics that Kafka links carry with their copies, in both directions')
    .option(
      '--topics <patterns...>',
      'only these topics of the source, with `*`; separated by commas or blanks',
    )
    .option(
      '--keep <n>',
      'show so many differences per partition, count the rest',
      integerFlag('--keep', 0, 1_000),
      KEEP,
    )
    .option(
      '--wait <time>',
      'how long a link may take to pass what its source holds now',
      durationFlag('--wait'),
      WAIT_MS,
    )
    .addHelpText(
      'after',
      `
Committed records only, up to where the source ends now: what is written meanwhile is not looked at. Records before the first one that was
copied are counted and not compared: the link began behind them, or the retention of the copy has removed them.

Example:
  $ interlock verify kafka --topics 'orders*' --json`,
    )
    .action(verify);
}

async function verify(options: Options): Promise<void> {
  const patterns = options.topics?.flatMap((text) => text.split(/[\s,]+/)).filter((text) => text !== '');
  if (patterns?.length === 0)
    throw bad('--topics', '--topics: expected topics of the source, such as orders*, with commas');
  const { topology } = await loadTopology(topologyFile(options));
  const links = wantedLinks(topology).filter((link) => link.kind === 'kafka');
  if (links.length === 0) throw bad('links', 'the topology has no Kafka link: there is nothing to compare');
  const configs = links.map((link) => kafkaLinkConfig(topology, link, resolveSecret));
  const compared = (
    await Promise.all(
      configs.map((config) =>
        verifyKafkaLink(config, {
          ...(patterns !== undefined && {
            topics: new TopicFilter({ ...config, include: patterns, exclude: [] }),
          }),
          ...{ waitMs: options.wait, keep: options.keep, onProgress: progress },
        }),
      ),
    )
  ).flat();
  if (patterns !== undefined && compared.length === 0)
    throw bad('--topics', `--topics ${patterns.join(',')}: no link carries such a topic`);
  const partitions = compared.flatMap((topic) => topic.partitions);
  const differing = partitions.reduce((sum, partition) => sum + partition.differing, 0);
  const undecided = partitions.filter((partition) => partition.undecided !== null).length;
  const outcome = differing > 0 ? 'differs' : undecided > 0 ? 'undecided' : 'equal';
  if (options.json === true) printJson({ outcome, differing, undecided, topics: compared });
  else show(compared, outcome);
  if (outcome === 'differs') process.exitCode = EXIT.failed;
  if (outcome === 'undecided') process.exitCode = EXIT.needsOperator;
}

function show(topics: readonly ComparedTopic[], outcome: string): void {
  const rows = topics.flatMap(({ link, topic, partitions }) =>
    partitions.map((one) => [
      ...[link, `${topic}-${one.partition}`, one.from === null ? '–' : `${one.from} to ${one.to - 1}`],
      ...[String(one.records), String(one.copies), String(one.before), result(one)],
    ]),
  );
  print(table([['link', 'partition', 'offsets', 'records', 'copies', 'not copied', 'result'], ...rows]));
  for (const { topic, copy, partitions } of topics) {
    for (const { partition, differences, differing } of partitions) {
      for (const { kind, offset, copyOffset } of differences)
        print(`${topic}-${partition} at ${offset ?? '–'}: ${kind} (${copy} at ${copyOffset ?? '–'})`);
      if (differing > differences.length) print(`… and ${differing - differences.length} more`);
    }
  }
  print(`The result: ${outcome}.`);
}

function result({ differing, undecided, compacted }: ComparedPartition): string {
  const words = [
    differing > 0 ? `${differing} differ` : 'equal',
    ...(compacted ? ['by the latest of each key'] : []),
    ...(undecided === null ? [] : [undecided]),
  ];
  return words.join('; ');
}

function bad(field: string, message: string): InterlockError {
  return new InterlockError('BadInput', message, { details: { field } });
}
