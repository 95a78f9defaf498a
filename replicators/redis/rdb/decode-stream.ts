import { whole } from './decoding.js';
import type { Decoding } from './decoding.js';
import { PendingEntries } from './pending-entries.js';
import type { Pieces } from './pieces.js';
import { STREAM_ID_BYTES, idText, readId, streamEntries } from './stream-entries.js';
import type { StreamId } from './stream-entries.js';
import { RDB } from './types.js';
import type { Window } from './window.js';

/** RDB version of Redis 7.0, which brought ENTRIESADDED, MAXDELETEDID, ENTRIESREAD (and 6.2, CREATECONSUMER). */
const COUNTS_SINCE = 10;
/** The group that makes a stream without entries, and is gone in the next command. */
const SCAFFOLD = 'interlock';
/** -1: how many entries a group has read is not known. */
const NOT_KNOWN = 2n ** 64n - 1n;
const IDS_PER_COMMAND = 256;

/**
 * XADD of each entry, XSETID, and for each group XGROUP CREATE and XCLAIM of what is pending. Not as on the source is what no command can set: when a
 * consumer was last seen, and pending entries whose entry of the stream was deleted, which the copy does not have.
 */
export function* streamCommands(
  window: Window,
  rdbType: number,
  pieces: Pieces,
  targetRdbVersion: number,
): Decoding {
  const nodes = yield* whole(window, () => window.length());
  pieces.command('UNLINK');
  for (let node = 0; node < nodes; node += 1) {
    const entries = yield* whole(window, () => {
      const at = window.pos;
      const master = window.string();
      return streamEntries(master, window.string()) ?? window.bad('a node of a stream that is broken', at);
    });
    for (const { id, fields } of entries) {
      if (pieces.full) yield pieces.take();
      pieces.command('XADD', idText(id), ...fields);
    }
  }
  if (nodes === 0) {
    pieces.xgroup('CREATE', SCAFFOLD, '0', 'MKSTREAM');
    pieces.xgroup('DESTROY', SCAFFOLD);
  }
  const counted = rdbType !== RDB.STREAM_LISTPACKS;
  const { last, deleted, added } = yield* whole(window, () => {
    window.number();
    const lastId = number2(window);
    if (!counted) return { last: lastId, deleted: lastId, added: 0n };
    number2(window);
    return { last: lastId, deleted: number2(window), added: window.number() };
  });
  const withCounts = counted && targetRdbVersion >= COUNTS_SINCE;
  if (withCounts) {
    pieces.command('XSETID', idText(last), 'ENTRIESADDED', String(added), 'MAXDELETEDID', idText(deleted));
  } else pieces.command('XSETID', idText(last));
  const groups = yield* whole(window, () => window.length());
  for (let group = 0; group < groups; group += 1) {
    if (pieces.full) yield pieces.take();
    yield* groupCommands(window, rdbType, pieces, targetRdbVersion >= COUNTS_SINCE);
  }
}

function number2(window: Window): StreamId {
  return { ms: window.number(), seq: window.number() };
}

function* groupCommands(window: Window, rdbType: number, pieces: Pieces, redis7: boolean): Decoding {
  const { name, last, read } = yield* whole(window, () => ({
    name: window.string(),
    last: number2(window),
    read: rdbType === RDB.STREAM_LISTPACKS ? NOT_KNOWN : window.number(),
  }));
  const counted = redis7 && read !== NOT_KNOWN;
  pieces.xgroup('CREATE', name, idText(last), ...(counted ? ['ENTRIESREAD', String(read)] : []));
  const pending = new PendingEntries();
  const count = yield* whole(window, () => window.length());
  const add = (): void => {
    const at = window.pos;
    const id = window.take(STREAM_ID_BYTES);
    const deliveredAtMs = window.milliseconds();
    if (!pending.add(id, deliveredAtMs, window.number())) window.bad('a pending entry out of order', at);
  };
  for (let entry = 0; entry < count; entry += 1) yield* whole(window, add);
  const consumers = yield* whole(window, () => window.length());
  for (let consumer = 0; consumer < consumers; consumer += 1) {
    if (pieces.full) yield pieces.take();
    yield* consumerCommands(window, rdbType, pieces, { name, pending, redis7 });
  }
}

interface Group {
  name: Buffer;
  pending: PendingEntries;
  redis7: boolean;
}

function* consumerCommands(window: Window, rdbType: number, pieces: Pieces, group: Group): Decoding {
  const { consumer, count } = yield* whole(window, () => {
    const named = window.string();
    window.skip(rdbType === RDB.STREAM_LISTPACKS_3 ? 16 : 8);
    return { consumer: named, count: window.length() };
  });
  if (group.redis7) pieces.xgroup('CREATECONSUMER', group.name, consumer);
  let claimed: string[] = [];
  let options = '';
  const claim = (): void => {
    if (claimed.length > 0)
      pieces.command('XCLAIM', group.name, consumer, '0', ...claimed, ...options.split(' '));
    claimed = [];
  };
  for (let entry = 0; entry < count; entry += 1) {
    if (pieces.full) yield pieces.take();
    const at = window.offset;
    const id = yield* whole(window, () => window.take(STREAM_ID_BYTES));
    const found = group.pending.find(id);
    if (found === null) window.badAt('a consumer has a pending entry that its group does not have', at);
    const own = `TIME ${found.deliveredAtMs} RETRYCOUNT ${found.deliveries} FORCE JUSTID`;
    if (own !== options || claimed.length === IDS_PER_COMMAND) claim();
    options = own;
    claimed.push(idText(readId(id)));
  }
  claim();
}
