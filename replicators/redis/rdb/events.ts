import type { SpooledBytes } from '../spool.js';
import type { RestorableValue } from './restorable-value.js';
import type { RedisType } from './types.js';

/** What an RDB file says, in its order. */
export type RdbEvent =
  | { kind: 'aux'; name: string; value: Buffer }
  /** What follows is of this database. */
  | { kind: 'select'; db: number }
  /** How many keys the database has, and how many of them have a time to live. */
  | { kind: 'resize'; keys: number; expires: number }
  | RestorableValue
  | DecodedValue
  | UndecodableValue
  /** The source of a library, for FUNCTION LOAD REPLACE. */
  | { kind: 'function'; code: Buffer }
  /** Data of a module that belongs to no key: left out. */
  | { kind: 'module-aux'; module: string }
  /** `checksumOk`: null when the source writes no checksums (`rdbchecksum no`); a wrong one is an error. `bytes`: length of the file. */
  | { kind: 'end'; checksumOk: true | null; bytes: number };

/** Of a command; on disk when it is an element that is too large for memory. */
export type Argument = Buffer | SpooledBytes;

/**
 * A value, or a piece of one, as commands: it is too large to be sent whole, or the target does not know its format. The first command of the first
 * piece removes what the key held, the last of the last sets its time to live; until then the key has none. With a `pieceKey`, a value of several pieces
 * is made there, and the last one gives it its name: nobody sees a part of it.
 */
export interface DecodedValue {
  kind: 'commands';
  db: number;
  key: Buffer;
  type: RedisType;
  expireAtMs: number | null;
  commands: Argument[][];
  first: boolean;
  last: boolean;
}

/** A value that neither RESTORE nor commands bring to the target; it was read over. */
export interface UndecodableValue {
  kind: 'undecodable';
  db: number;
  key: Buffer;
  type: RedisType;
  expireAtMs: number | null;
  reason: string;
}
