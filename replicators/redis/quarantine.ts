import type { Block } from './block.js';
import { encodeCommand } from './connection.js';
import type { StreamCommand } from './resp/command-reader.js';

/** Why a command was not carried, or carried although. */
export type QuarantineReason =
  /** The target refused it. */
  | 'refused'
  /** The target refused commands of a block, and the link ended before it had read which. */
  | 'unread'
  /** FLUSHALL, FLUSHDB, SWAPDB: it would reach what the source does not own, and the checkpoint. */
  | 'whole-database'
  /** A part of its keys is carried, another is not, and it cannot be split. */
  | 'split'
  /** Nobody knows its keys. */
  | 'unknown-command'
  /** It writes a unit that the source does not own. */
  | 'not-owned'
  /** A key that was to be taken from the source again, and could not. The link goes on. */
  | 'unmended';

export interface QuarantineRecord {
  /** `<offset of its last byte>`, and behind it `-<n>` when it is one of several. */
  id: string;
  reason: QuarantineReason;
  /** The target's words. */
  detail: string | null;
  command: string;
  key: string | null;
  unit: string | null;
  db: number;
  /** The command with its arguments, base64 of the request's bytes; null: longer than 64 KB. */
  bytes: string | null;
}

const MOST_BYTES = 64 * 1024;
const LOG_LENGTH = 1000;

/** Open records: a person has to decide. Field: their id. */
export function quarantineKey(link: string): string {
  return `interlock:quarantine:${link}`;
}

/** Open conflicts (policy `quarantine`). Field: their id. */
export function conflictsKey(link: string): string {
  return `interlock:conflicts:${link}`;
}

/** The latest conflicts that the policy has decided, the newest first. */
export function conflictLogKey(link: string): string {
  return `interlock:conflict-log:${link}`;
}

export function recordOf(
  reason: QuarantineReason,
  command: StreamCommand,
  where: { db: number; key: Buffer | null; unit?: string | undefined; detail?: string },
): QuarantineRecord {
  return {
    id: String(command.endOffset),
    reason,
    detail: where.detail ?? null,
    command: command.name,
    key: where.key === null ? null : printable(where.key),
    unit: where.unit ?? null,
    db: where.db,
    bytes: command.bytes > MOST_BYTES ? null : command.raw.toString('base64'),
  };
}

/** The commands that write records, all in database 0. */
export function recordCommands(
  link: string,
  { records, unmended, log, settled }: Pick<Block, 'records' | 'unmended' | 'log' | 'settled'>,
): Buffer[] {
  const commands = [...records, ...unmended].map((record) =>
    encodeCommand([
      'HSET',
      record.reason === 'not-owned' ? conflictsKey(link) : quarantineKey(link),
      record.id,
      JSON.stringify(record),
    ]),
  );
  if (settled.length > 0) commands.push(encodeCommand(['HDEL', quarantineKey(link), ...settled]));
  if (log.length > 0) {
    commands.push(
      encodeCommand(['LPUSH', conflictLogKey(link), ...log.map((record) => JSON.stringify(record))]),
      encodeCommand(['LTRIM', conflictLogKey(link), 0, LOG_LENGTH - 1]),
    );
  }
  return commands;
}

/** Keys are bytes; what is no UTF-8 text is shown with escapes. */
export function printable(key: Buffer): string {
  const text = key.toString('utf8');
  return Buffer.from(text).equals(key) ? text : JSON.stringify(key.toString('latin1'));
}
