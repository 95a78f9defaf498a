import { STREAM_ID_BYTES } from './stream-entries.js';
import { RDB } from './types.js';
import type { Window } from './window.js';

/** Sub-opcodes of a module's value. */
const MODULE_EOF = 0;
const MODULE_STRING = 5;
/** Of what a module saved: how many bytes follow; -1: a length. */
const MODULE_FIELD_BYTES = new Map([
  [1, -1],
  [2, -1],
  [3, 4],
  [4, 8],
]);

/** Moves behind a value of this format; false when it has no element: Redis loads no such key. */
export function skipValue(window: Window, rdbType: number): boolean {
  switch (rdbType) {
    case RDB.LIST:
    case RDB.SET:
    case RDB.LIST_QUICKLIST:
      return skipStrings(window, window.length());
    case RDB.HASH:
      return skipStrings(window, 2 * window.length());
    case RDB.LIST_QUICKLIST_2: {
      const nodes = window.length();
      for (let node = 0; node < nodes; node += 1) {
        window.length();
        window.skipString();
      }
      return nodes > 0;
    }
    case RDB.ZSET:
    case RDB.ZSET_2: {
      const members = window.length();
      for (let member = 0; member < members; member += 1) {
        window.skipString();
        if (rdbType === RDB.ZSET_2) window.skip(8);
        else skipTextDouble(window);
      }
      return members > 0;
    }
    case RDB.HASH_METADATA:
    case RDB.HASH_METADATA_PRE_GA: {
      if (rdbType === RDB.HASH_METADATA) window.skip(8);
      const fields = window.length();
      for (let field = 0; field < fields; field += 1) {
        window.number();
        skipStrings(window, 2);
      }
      return fields > 0;
    }
    case RDB.HASH_LISTPACK_EX:
      window.skip(8);
      window.skipString();
      return true;
    case RDB.STREAM_LISTPACKS:
    case RDB.STREAM_LISTPACKS_2:
    case RDB.STREAM_LISTPACKS_3:
      skipStream(window, rdbType);
      return true;
    case RDB.MODULE_2:
      window.number();
      while (skipModuleField(window));
      return true;
    default:
      window.skipString();
      return true;
  }
}

function skipStrings(window: Window, count: number): boolean {
  for (let index = 0; index < count; index += 1) window.skipString();
  return count > 0;
}

function skipTextDouble(window: Window): void {
  const length = window.byte();
  if (length < 253) window.skip(length);
}

function skipNumbers(window: Window, count: number): void {
  for (let index = 0; index < count; index += 1) window.number();
}

function skipStream(window: Window, rdbType: number): void {
  skipStrings(window, 2 * window.length());
  skipNumbers(window, rdbType === RDB.STREAM_LISTPACKS ? 3 : 8);
  const groups = window.length();
  for (let group = 0; group < groups; group += 1) {
    window.skipString();
    skipNumbers(window, rdbType === RDB.STREAM_LISTPACKS ? 2 : 3);
    const pending = window.length();
    for (let entry = 0; entry < pending; entry += 1) {
      window.skip(STREAM_ID_BYTES + 8);
      window.number();
    }
    const consumers = window.length();
    for (let consumer = 0; consumer < consumers; consumer += 1) {
      window.skipString();
      window.skip(rdbType === RDB.STREAM_LISTPACKS_3 ? 16 : 8);
      const owned = window.length();
      // Not one skip for all: a count is never trusted to be a size.
      for (let entry = 0; entry < owned; entry += 1) window.skip(STREAM_ID_BYTES);
    }
  }
}

/** Moves behind one field of a module's value; false when that was its end. */
export function skipModuleField(window: Window): boolean {
  const at = window.pos;
  const opcode = window.length();
  if (opcode === MODULE_EOF) return false;
  if (opcode === MODULE_STRING) {
    window.skipString();
    return true;
  }
  const bytes = MODULE_FIELD_BYTES.get(opcode);
  if (bytes === undefined) return window.bad(`${opcode} where a field of a module's value begins`, at);
  if (bytes < 0) window.number();
  else window.skip(bytes);
  return true;
}

const MODULE_NAME_CHARACTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** The nine characters of the module's type: six bits each, above ten bits of its version. */
export function moduleName(id: bigint): string {
  let name = '';
  for (let shift = 58n; shift >= 10n; shift -= 6n)
    name += MODULE_NAME_CHARACTERS[Number((id >> shift) & 63n)]!;
  return name;
}
