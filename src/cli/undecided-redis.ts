import { wantedLink } from '../../replicators/host/configure.js';
import { redisLinkConfig } from '../../replicators/redis/configure.js';
import { RedisConnection } from '../../replicators/redis/connection.js';
import { commandOf, decide, readRecords } from '../../replicators/redis/decisions.js';
import type { Decision, RecordKind, RedisRecord } from '../../replicators/redis/decisions.js';
import { printable } from '../../replicators/redis/quarantine.js';
import { InterlockError } from '../errors.js';
import { resolveSecret } from '../topology/load.js';
import type { Topology } from '../topology/schema.js';
import { EXIT, print, printJson } from './output.js';
import { found } from './undecided.js';
import type { Options } from './undecided.js';

const MOST_SHOWN = 60;
const MOST_WORDS = 50;

/** Records of Redis links, in their targets. */
export async function redisRecords(
  topology: Topology,
  links: readonly string[],
  kind: RecordKind,
  all: boolean,
): Promise<RedisRecord[]> {
  const read = links.map((link) =>
    inTarget(topology, link, (target) => readRecords(target, link, kind, all)),
  );
  return (await Promise.all(read)).flat();
}

/** `show` of one. */
export async function showRedisRecord(
  topology: Topology,
  link: string,
  kind: RecordKind,
  id: string,
  options: Options,
): Promise<void> {
  const record = await oneOf(topology, link, kind, id);
  const words = commandOf(record)?.args.map(printable) ?? null;
  if (options.json) {
    printJson({ ...record, words });
    return;
  }
  const { state, db, unit, decidedAt } = record;
  const when = decidedAt === null ? '' : `, ${decidedAt}`;
  print(`${link} ${kind} ${id} (${state}${when}), database ${db}${unit === null ? '' : `, unit ${unit}`}`);
  print(`reason: ${reasonOf(record)}`);
  if (words === null) print('Its bytes were not kept.');
  else print(`command: ${words.slice(0, MOST_WORDS).map(short).join(' ')}${more(words.length)}`);
  if (state !== 'open') return;
  print(
    kind === 'quarantine'
      ? `next: interlock quarantine retry|discard '${link}' ${id}`
      : `next: interlock conflicts resolve '${link}' ${id} --keep source|target`,
  );
}

/** Carries a decision out, and reports it. */
export async function decideRedisRecord(
  topology: Topology,
  link: string,
  kind: RecordKind,
  id: string,
  decision: Decision,
  options: Options,
): Promise<void> {
  const record = await inTarget(topology, link, (target) => decide(target, link, kind, id, decision));
  if (record === undefined) {
    const { state } = await oneOf(topology, link, kind, id);
    throw new InterlockError('Refused', `${kind} ${id} of ${link} is ${state}, not open`);
  }
  if (record.state === 'open') process.exitCode = EXIT.needsOperator;
  if (options.json) printJson(record);
  else if (record.state === 'open') print(`${link} ${id}: the target still refuses it: ${record.detail}`);
  else {
    const done = record.state === 'applied' ? 'applied, on what the target has now' : 'left out for good';
    print(`${link} ${id}: ${done}. A link that has stopped goes on: interlock replicate resume '${link}'`);
  }
}

/** What happened, in a line. */
export function reasonOf({ reason, detail, command, key }: RedisRecord): string {
  const what = `${command.toUpperCase()}${key === null ? '' : ` ${short(key)}`}`;
  return `${what}: ${WORDS[reason]}${detail === null ? '' : `: ${detail}`}`;
}

const WORDS: Record<RedisRecord['reason'], string> = {
  refused: 'the target refused it',
  'whole-database': 'it reaches what the source does not own',
  split: 'a part of its keys is carried, another is not',
  'unknown-command': 'nobody knows its keys',
  'not-owned': 'the source did not own the unit',
  unread: 'the target refused commands of its block, and nobody knows which',
  unmended: 'a key may be wrong on the target',
};

async function oneOf(topology: Topology, link: string, kind: RecordKind, id: string): Promise<RedisRecord> {
  const records = await redisRecords(topology, [link], kind, true);
  return found(
    kind,
    link,
    id,
    records.filter((record) => record.id === id),
  );
}

async function inTarget<T>(
  topology: Topology,
  link: string,
  work: (target: RedisConnection) => Promise<T>,
): Promise<T> {
  const wanted = wantedLink(topology, link);
  if (wanted.kind !== 'redis') throw new InterlockError('Internal', `${link} is no Redis link`);
  const target = await RedisConnection.open(
    redisLinkConfig(topology, wanted, resolveSecret).target,
    'interlock-records',
  );
  try {
    return await work(target);
  } finally {
    target.destroy();
  }
}

function short(text: string): string {
  return text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}… (${text.length})` : text;
}

function more(words: number): string {
  return words > MOST_WORDS ? ` … (${words} words)` : '';
}
