import type { Reply } from '../resp/reply-reader.js';
import { textOf } from './side.js';
import type { Side } from './side.js';
import { both, shown } from './values.js';

/**
 * Where two streams differ first: entries, last id, groups, consumers, what is pending for whom and how often it was delivered. When that was, and
 * when a consumer was seen, is each side's own.
 */
export async function streamDifference(
  sides: readonly [Side, Side],
  db: number,
  key: Buffer,
  count: number,
): Promise<string | null> {
  let from = '-';
  for (;;) {
    const [a, b] = await both(sides, db, [['XRANGE', key, from, '+', 'COUNT', count]]);
    const [one, other] = [a[0]!, b[0]!];
    if (!Array.isArray(one) || !Array.isArray(other)) return 'the value';
    const at = firstUnlike(one, other);
    if (at >= 0) return `entry ${idOf(one[at] ?? other[at])}`;
    if (one.length < count) break;
    from = `(${idOf(one.at(-1))}`;
  }
  const [a, b] = await both(sides, db, [
    ['XINFO', 'STREAM', key],
    ['XINFO', 'GROUPS', key],
  ]);
  if (!alike(named(a[0]!)['last-generated-id'], named(b[0]!)['last-generated-id'])) return 'the last id';
  return groupsDifference(sides, db, key, count, [groupsOf(a[1]!), groupsOf(b[1]!)]);
}

async function groupsDifference(
  sides: readonly [Side, Side],
  db: number,
  key: Buffer,
  count: number,
  [one, other]: readonly [Named[], Named[]],
): Promise<string | null> {
  const facts = (group: Named): string =>
    JSON.stringify([textOf(group['name']), group['pending'], textOf(group['last-delivered-id'])]);
  const at = firstUnlike(one.map(facts), other.map(facts));
  if (at >= 0) return `group ${shown(one[at]?.['name'] ?? other[at]?.['name'] ?? null)}`;
  for (const group of one) {
    const name = group['name'] as Buffer;
    const found = await pendingDifference(sides, db, key, name, count);
    if (found !== null) return `group ${shown(name)}, ${found}`;
  }
  return null;
}

async function pendingDifference(
  sides: readonly [Side, Side],
  db: number,
  key: Buffer,
  group: Buffer,
  count: number,
): Promise<string | null> {
  const [a, b] = await both(sides, db, [['XINFO', 'CONSUMERS', key, group]]);
  const consumers = (reply: Reply): string[] =>
    groupsOf(reply).map((consumer) => JSON.stringify([textOf(consumer['name']), consumer['pending']]));
  if (firstUnlike(consumers(a[0]!), consumers(b[0]!)) >= 0) return 'its consumers';
  let from = '-';
  for (;;) {
    const [left, right] = await both(sides, db, [['XPENDING', key, group, from, '+', count]]);
    const facts = (reply: Reply): string[] =>
      (Array.isArray(reply) ? (reply as Reply[][]) : []).map(([id, consumer, , count]) =>
        [textOf(id), textOf(consumer), Number(count)].join(' '),
      );
    const [one, other] = [facts(left[0]!), facts(right[0]!)];
    const at = firstUnlike(one, other);
    if (at >= 0) return `pending ${(one[at] ?? other[at])!.split(' ')[0]!}`;
    if (one.length < count) return null;
    from = `(${one.at(-1)!.split(' ')[0]!}`;
  }
}

type Named = Record<string, Reply>;

/** Names and values in turn. */
function named(reply: Reply): Named {
  const list = Array.isArray(reply) ? reply : [];
  const entries = list.flatMap((name, index) =>
    index % 2 === 0 ? [[textOf(name), list[index + 1] ?? null] as const] : [],
  );
  return Object.fromEntries(entries);
}

function groupsOf(reply: Reply): Named[] {
  return Array.isArray(reply) ? reply.map(named) : [];
}

function idOf(entry: Reply | undefined): string {
  return Array.isArray(entry) ? textOf(entry[0]) : '(none)';
}

function firstUnlike(a: readonly Reply[], b: readonly Reply[]): number {
  for (let index = 0; index < Math.max(a.length, b.length); index += 1)
    if (!alike(a[index], b[index])) return index;
  return -1;
}

function alike(a: Reply | undefined, b: Reply | undefined): boolean {
  if (Array.isArray(a) && Array.isArray(b)) return firstUnlike(a, b) < 0;
  return Buffer.isBuffer(a) && Buffer.isBuffer(b) ? a.equals(b) : a === b;
}
