import { encodeCommand } from './connection.js';
import { quarantineKey } from './quarantine.js';
import type { QuarantineRecord } from './quarantine.js';

/**
 * Hazard: EXEC applies the rest when one of its commands fails, and only its answer says so. A link that ends before it has read the answer would
 * never know, and a marker in the same block would pass. Guard: the target notes it by itself, in the same EXEC. It counts the errors that it has
 * answered with, and nothing of others runs between the first and the last command of an EXEC.
 */
const COUNT = `string.match(redis.call('INFO', 'stats'), 'total_error_replies:(%d+)')`;
const BEFORE = `return redis.call('SET', KEYS[1], ${COUNT})`;
const BEHIND = `local errors = ${COUNT} - redis.call('GET', KEYS[1])
if errors > 0 then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
return errors`;

/** Ends the id of a record whose block's answer nobody has read. */
const UNREAD = /-unread-\d+$/;

/** Scratch of one EXEC: the errors that the target had answered with before it. */
function errorsKey(link: string): string {
  return `interlock:link:${link}:errors`;
}

export function isUnread(id: string): boolean {
  return UNREAD.test(id);
}

/** The record of a block's refusals until its answer is read; it then gives way to one for each command. */
export function unreadRecord(block: { from: number; to: number; seq: number }): QuarantineRecord {
  return {
    id: `${block.to}-unread-${block.seq}`,
    reason: 'unread',
    detail: `the target refused commands between ${block.from} and ${block.to} of the source's stream, and the link ended before it had read which; \`interlock verify redis\` finds the keys`,
    command: '(unknown)',
    key: null,
    unit: null,
    db: 0,
    bytes: null,
  };
}

/** What stands around the source's commands in an EXEC, in database 0; `behind` answers how many of them were refused. */
export function refusalCheck(link: string, record: QuarantineRecord): { before: Buffer; behind: Buffer } {
  const errors = errorsKey(link);
  return {
    before: encodeCommand(['EVAL', BEFORE, 1, errors]),
    behind: encodeCommand([
      ...['EVAL', BEHIND, 2, errors, quarantineKey(link)],
      ...[record.id, JSON.stringify(record)],
    ]),
  };
}
