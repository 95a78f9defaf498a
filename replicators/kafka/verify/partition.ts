import type { Cluster } from '../client/cluster.js';
import type { RecordCursor } from '../client/record-batch.js';
import { ORIGIN_KEY, OriginHeader, parseOrigin } from '../origin.js';
import { Ranges } from './ranges.js';
import { boundsOf, committedRecords, contentHash } from './reader.js';
import type { Place } from './reader.js';
import type { ComparedPartition, Difference, DifferenceKind } from './report.js';

export interface PartitionPair {
  /** Of the source. */
  dc: string;
  source: Place;
  copy: Place;
  /** Where the link began; undefined: nobody has written it down. */
  begun: number | undefined;
  /** What the link has copied of the source: everything before it. */
  to: number;
  compacted: boolean;
  /** So many differences are shown, the others are counted. */
  keep: number;
}

interface Original {
  offset: number;
  hash: Buffer;
  key: string | null;
  tombstone: boolean;
}
interface Copied {
  /** Of the source; undefined: it is no copy of this partition. */
  origin: number | undefined;
  offset: number;
  hash: Buffer;
  key: string | null;
}

/** Compares the records of one partition of the source with its copy, in one pass over both. */
export async function comparePartition(
  clusters: { source: Cluster; target: Cluster },
  pair: PartitionPair,
): Promise<ComparedPartition> {
  const { source, copy, to } = pair;
  const result: ComparedPartition = {
    ...{ partition: source.partition, from: null, to, compacted: pair.compacted },
    ...{ records: 0, copies: 0, before: 0, ranges: [], offsets: null },
    ...{ differing: 0, differences: [], undecided: null },
  };
  const extras: Difference[] = [];
  const note = (kind: DifferenceKind, offset: number | null, copyOffset: number | null): void => {
    const difference = { kind, offset, copyOffset };
    if (kind === 'extra') extras.push(difference);
    else add(result, difference, pair.keep);
  };
  const here = await boundsOf(clusters.source, source);
  const there = await boundsOf(clusters.target, copy);
  const copies = new Stream(
    committedRecords(clusters.target, copy, there.earliest, there.stable, copiedOf(pair)),
  );
  for (let first = await copies.peek(); first !== undefined && first.origin === undefined;) {
    note('stranger', null, first.offset);
    copies.shift();
    first = await copies.peek();
  }
  const firstCopied = (await copies.peek())?.origin;
  // A copy that has lost nothing from its beginning has all since the link began.
  const isWhole = there.earliest === 0 && pair.begun !== undefined;
  const from = isWhole ? Math.min(pair.begun!, firstCopied ?? Infinity) : firstCopied;
  const originals = new Stream(
    committedRecords(clusters.source, source, here.earliest, to, (cursor) => originalOf(cursor)),
  );
  if (from !== undefined && from < to) {
    result.from = from;
    await (pair.compacted ? mergeKeys : merge)(result, originals, copies, note);
  } else {
    let since = false;
    for (let one = await originals.peek(); one !== undefined; one = await originals.peek()) {
      originals.shift();
      result.before += 1;
      since ||= one.offset >= (pair.begun ?? 0);
    }
    if (from === undefined && since) {
      result.undecided = `${copy.topic}-${copy.partition} is empty, and ${there.earliest > 0 ? `its records before ${there.earliest} were removed` : 'it is not known where the link began'}`;
    }
  }
  // What retention has removed since is not there to be compared with.
  const { earliest } = extras.length === 0 ? here : await boundsOf(clusters.source, source);
  for (const extra of extras) if (extra.offset! >= earliest) add(result, extra, pair.keep);
  return result;
}

type Note = (kind: DifferenceKind, offset: number | null, copyOffset: number | null) => void;

async function merge(
  result: ComparedPartition,
  originals: Stream<Original>,
  copies: Stream<Copied>,
  note: Note,
): Promise<void> {
  const ranges = new Ranges();
  const from = result.from!;
  const behind = async (offset: number): Promise<Original | undefined> => {
    for (;;) {
      const original = await originals.peek();
      if (original === undefined || original.offset >= offset) return original;
      originals.shift();
      if (original.offset < from) {
        result.before += 1;
        continue;
      }
      result.records += 1;
      ranges.original(original);
      note('missing', original.offset, null);
    }
  };
  let last = -1;
  for (let copied = await copies.peek(); copied !== undefined; copied = await copies.peek()) {
    copies.shift();
    const { origin, offset } = copied;
    if (origin === undefined) {
      note('stranger', null, offset);
      continue;
    }
    if (origin >= result.to) continue;
    if (origin <= last) {
      note('twice', origin, offset);
      continue;
    }
    last = origin;
    const original = await behind(origin);
    result.copies += 1;
    ranges.copy(origin, copied.hash);
    if (original?.offset !== origin) {
      note('extra', origin, offset);
      continue;
    }
    originals.shift();
    result.records += 1;
    ranges.original(original);
    if (!original.hash.equals(copied.hash)) note('content', origin, offset);
    result.offsets ??= { first: [origin, offset], last: [origin, offset] };
    result.offsets.last = [origin, offset];
  }
  await behind(result.to);
  result.ranges = ranges.finish(from, result.to);
}

/** Each side is compacted at its own time: the latest record of a key is what both have. A tombstone is removed in the end. */
async function mergeKeys(
  result: ComparedPartition,
  originals: Stream<Original>,
  copies: Stream<Copied>,
  note: Note,
): Promise<void> {
  const latest = new Map<string | null, { origin: number; offset: number; hash: Buffer }>();
  let last = -1;
  for (let copied = await copies.peek(); copied !== undefined; copied = await copies.peek()) {
    copies.shift();
    const { origin, offset, key, hash } = copied;
    if (origin === undefined) note('stranger', null, offset);
    else if (origin >= result.to) continue;
    else if (origin <= last) note('twice', origin, offset);
    else {
      last = origin;
      result.copies += 1;
      latest.set(key, { origin, offset, hash });
    }
  }
  const wanted = new Map<string | null, Original>();
  for (let original = await originals.peek(); original !== undefined; original = await originals.peek()) {
    originals.shift();
    if (original.offset < result.from!) result.before += 1;
    else {
      result.records += 1;
      wanted.set(original.key, original);
    }
  }
  for (const [key, { offset, hash, tombstone }] of wanted) {
    const copied = latest.get(key);
    if (copied?.origin !== offset) {
      if (!tombstone || copied !== undefined) note('missing', offset, null);
    } else if (!copied.hash.equals(hash)) note('content', offset, copied.offset);
  }
}

function add(result: ComparedPartition, difference: Difference, keep: number): void {
  result.differing += 1;
  if (result.differences.length < keep) result.differences.push(difference);
}

/** Records of foreign origin are never copied. */
function originalOf(cursor: RecordCursor): Original | undefined {
  if (cursor.header(ORIGIN_KEY) !== undefined) return undefined;
  return {
    offset: cursor.offset,
    hash: contentHash(cursor, 0),
    key: cursor.key()?.toString('latin1') ?? null,
    tombstone: cursor.value() === null,
  };
}

function copiedOf({ dc, source }: PartitionPair): (cursor: RecordCursor) => Copied {
  const header = new OriginHeader(dc, source.topic, source.partition);
  return (cursor) => {
    const origin = parseOrigin(cursor.header(ORIGIN_KEY));
    const key = cursor.key()?.toString('latin1') ?? null;
    const ours = origin?.dc === dc && origin.topic === source.topic && origin.partition === source.partition;
    if (!ours) return { origin: undefined, offset: cursor.offset, hash: Buffer.alloc(0), key };
    header.set(origin.offset);
    return {
      origin: origin.offset,
      offset: cursor.offset,
      hash: contentHash(cursor, header.length),
      key,
    };
  };
}

/** What comes in pieces, one by one. */
class Stream<T> {
  private piece: T[] = [];
  private at = 0;

  constructor(private readonly pieces: AsyncGenerator<T[]>) {}

  async peek(): Promise<T | undefined> {
    while (this.at >= this.piece.length) {
      const next = await this.pieces.next();
      if (next.done === true) return undefined;
      this.piece = next.value;
      this.at = 0;
    }
    return this.piece[this.at];
  }

  shift(): void {
    this.at += 1;
  }
}
