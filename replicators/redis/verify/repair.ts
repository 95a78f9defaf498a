import type { DcId, UnitId } from '../../../src/routing/units.js';
import { ReplyError } from '../resp/reply-reader.js';
import { textOf } from './side.js';
import type { Command, Side } from './side.js';

/** Unit → `state:owner:…`, in database 0 of each server; and the run_id of the server on which these were asserted. */
const UNITS_KEY = 'interlock:units';
const SERVER_FIELD = '#server';
/** A larger value would hold both servers up, and is not written anew in one command. */
const MOST_BYTES = 64 * 1024 * 1024;
const ATTEMPTS = 5;

export interface KeyOwner {
  unit: UnitId | null;
  /** null: nobody's value is the right one. */
  owner: DcId | null;
}

/**
 * Has the owner write what it has once more: its link brings it to the other side, as it brings everything, and nothing comes back. A key that the owner
 * does not have is made and deleted there.
 *
 * Hazard: between reading and writing, somebody writes the key, or a switchover fences its unit. Guard: both are watched; EXEC then does nothing.
 * Hazard: a server that came back with older data says `open` as it did then, and would put what it has over what the other side has owned since. Guard:
 * its states count only on the server on which they were asserted.
 * @returns undefined, or why nothing was written
 */
export async function writeAnew(
  side: Side,
  db: number,
  key: Buffer,
  unit: UnitId | null,
): Promise<string | undefined> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    await side.ask(0, [['UNWATCH']]);
    if (unit !== null) {
      const [, state, asserted, server] = await side.ask(0, [
        ['WATCH', UNITS_KEY],
        ['HGET', UNITS_KEY, unit],
        ['HGET', UNITS_KEY, SERVER_FIELD],
        ['INFO', 'server'],
      ]);
      const isOpen = textOf(state).startsWith(`open:${side.dc}:`);
      const isAsserted = textOf(asserted) !== '' && textOf(server).includes(`run_id:${textOf(asserted)}`);
      if (!isOpen || !isAsserted) {
        await side.ask(0, [['UNWATCH']]);
        return isOpen
          ? `${side.dc} was restarted, and its states do not count until they are asserted again: see \`interlock fence status\`; then verify again`
          : `${unit} is not open in ${side.dc}; verify again when it is`;
      }
    }
    const refusal = await write(side, db, key);
    if (refusal !== 'written meanwhile') return refusal;
  }
  return `${side.dc} writes it all the while; verify again`;
}

async function write(side: Side, db: number, key: Buffer): Promise<string | undefined> {
  const [, bytes] = await side.ask(db, [
    ['WATCH', key],
    ['MEMORY', 'USAGE', key],
  ]);
  if (Number(bytes) > MOST_BYTES) {
    await side.ask(db, [['UNWATCH']]);
    return `it takes ${Number(bytes)} bytes: too many to be written anew at once; have the application write it, or synchronise the link again`;
  }
  const [expireAtMs] = await side.expiries(db, [key]);
  const [payload] = await side.ask(db, [['DUMP', key]]);
  const expiry = Math.max(1, Math.round(expireAtMs ?? 1));
  const commands: Command[] = Buffer.isBuffer(payload)
    ? [['RESTORE', key, expireAtMs == null ? 0 : expiry, payload, 'REPLACE', 'ABSTTL']]
    : [
        ['SET', key, ''],
        ['DEL', key],
      ];
  const replies = await side.ask(db, [['MULTI'], ...commands, ['EXEC']]);
  const answer = replies.at(-1)!;
  if (answer === null) return 'written meanwhile';
  const failed = Array.isArray(answer) ? answer.find((one) => one instanceof ReplyError) : undefined;
  return failed instanceof ReplyError ? `${side.dc} refuses it: ${failed.message}` : undefined;
}
