import { InterlockError } from '../../src/errors.js';
import type { HandOver } from '../../src/kafka/hand-over.js';
import type { DcId } from '../../src/routing/units.js';
import { checkpointPartition } from './checkpoint.js';
import type { CheckpointTail } from './checkpoint-tail.js';
import type { Cluster } from './client/cluster.js';
import { CommittedReader, ledPartitions, offsetsAt, WAIT_MS } from './read-committed.js';
import type { LedPartition } from './read-committed.js';

/** For what is open among the records of before the link began. */
const LOOK_MS = 5_000;

export interface UncopiedQuestion {
  /** From the old owner's cluster to the new one's. */
  link: string;
  from: { dc: DcId; cluster: Cluster };
  checkpoints: CheckpointTail;
}

/** Offsets of the source. */
export interface Uncopied {
  group: string;
  topic: string;
  partition: number;
  from: number;
  to: number;
}

type Groups = readonly { group: string; topic: string; value: readonly HandOver[] }[];

/**
 * Hazard: a link that began at now has no copies of what was there before. Where a group has not handled that, the new owner never would, and nothing would say so.
 * @throws InterlockError Refused
 */
export async function requireCopied(question: UncopiedQuestion, groups: Groups): Promise<void> {
  const worst = await worstUncopied(question, groups);
  if (worst === undefined) return;
  throw new InterlockError('Refused', uncopiedWords(question, worst), {
    details: { link: question.link, ...worst },
  });
}

export function uncopiedWords(
  { link, from }: Pick<UncopiedQuestion, 'link' | 'from'>,
  range: Uncopied,
): string {
  const { group, topic, partition } = range;
  return `group ${group} has not handled ${topic}-${partition} from ${range.from} up to ${range.to}, and ${link} has no copy of that: it began at ${range.to}. Wait until the group has handled it at ${from.dc}, then move again. If no instance of it will ever run there again: ${forgetCommand(from.dc, range)}`;
}

/** For a shell. */
function forgetCommand(dc: DcId, { group, topic }: Pick<Uncopied, 'group' | 'topic'>): string {
  const word = (text: string): string =>
    /^[\w.-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
  return `interlock kafka forget-group --dc ${word(dc)} --group ${word(group)} --topic ${word(topic)}`;
}

/** The longest range of records that are there, that a group has not handled, and of which the link has no copy. */
export async function worstUncopied(
  { link, from, checkpoints }: UncopiedQuestion,
  groups: Groups,
): Promise<Uncopied | undefined> {
  // All is handled: nothing of the link has to be known, and units are fenced meanwhile.
  const isAnyLeft = groups.some(({ value }) => value.some(({ stages }) => stages.length > 0));
  if (!isAnyLeft) return undefined;
  const positions = (await checkpoints.read(link, checkpointPartition(link)))?.positions;
  const suspects = new Map<string, Uncopied>();
  for (const { group, topic, value } of groups) {
    for (const { stages, from: handled } of value) {
      for (const [key, end] of stages
        .filter(({ origin }) => origin === from.dc)
        .flatMap(({ to }) => Object.entries(to))) {
        const partition = Number(key);
        const begun = positions?.get(`${topic}-${partition}`)?.begun ?? 0;
        const first = handled[from.dc]?.[partition] ?? 0;
        const range = { group, topic, partition, from: first, to: Math.min(begun, end) };
        if (range.from >= range.to) continue;
        // Of the units of one partition, those that are furthest behind.
        const name = JSON.stringify([group, topic, partition]);
        if (range.from < (suspects.get(name)?.from ?? Infinity)) suspects.set(name, range);
      }
    }
  }
  const ranges = await stillThere(from.cluster, [...suspects.values()]);
  return ranges.sort((a, b) => b.to - b.from - (a.to - a.from))[0];
}

/** Without what nobody can handle: what retention has removed meanwhile, control records, and what was undone. */
async function stillThere(cluster: Cluster, ranges: readonly Uncopied[]): Promise<Uncopied[]> {
  if (ranges.length === 0) return [];
  const { topics } = await cluster.metadata([...new Set(ranges.map(({ topic }) => topic))]);
  const all = ledPartitions(topics);
  const led = ranges.map(
    ({ topic, partition }): LedPartition =>
      all.find((one) => one.topic === topic && one.partition === partition) ?? {
        ...{ topic, partition, leader: -1, leaderEpoch: -1 },
      },
  );
  const earliest = await offsetsAt(cluster, led, 'earliest', false);
  const found = await Promise.all(
    ranges.map(async (range, i): Promise<Uncopied[]> => {
      const first = await firstRecord(cluster, led[i]!, Math.max(range.from, earliest[i]!), range.to);
      return first === undefined ? [] : [{ ...range, from: first }];
    }),
  );
  return found.flat();
}

async function firstRecord(
  cluster: Cluster,
  of: LedPartition,
  from: number,
  to: number,
): Promise<number | undefined> {
  const reader = new CommittedReader(cluster, of.leader, of, from, WAIT_MS);
  let first: number | undefined;
  const deadline = performance.now() + LOOK_MS;
  while (reader.offset < to && first === undefined) {
    // An open transaction hides what is there: it counts.
    if (performance.now() > deadline) return reader.offset;
    await reader.fetch(({ offset }) => {
      first = offset;
      return true;
    });
  }
  return first === undefined || first >= to ? undefined : first;
}
