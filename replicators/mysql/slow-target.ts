import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import { SlowStatement } from './patience.js';
import { NoAnswer, answersInTime, connect } from './session.js';
import type { ServerAddress } from './session.js';

const LOOK_MS = 5_000;

export interface Unanswered {
  link: string;
  /** The data center of the target. */
  dc: string;
  target: ServerAddress;
  /** The session that got no answer. */
  session: Connection;
  /** What was sent, in words. */
  what: string;
  gtids: readonly string[];
}

/**
 * Of a statement that was given up: whether the target still works on it. A server that is gone says nothing of its statements, and is waited for
 * without limit.
 * @returns the error as it was, or that the statement is slow, or waits
 */
export async function slowOrGone(error: unknown, unanswered: Unanswered): Promise<unknown> {
  const cause = error instanceof InterlockError ? error.cause : error;
  if (!(cause instanceof NoAnswer)) return error;
  const { link, dc, target, session, what, gtids } = unanswered;
  const found = await stateOf(target, session.threadId);
  if (found === undefined) return error;
  const { state, seconds } = found;
  const waits = state.startsWith('Waiting for ');
  const of =
    gtids.length === 1 ? `transaction ${gtids[0]}` : `${gtids.length} transactions, from ${gtids[0]} on`;
  const reason = `${what} got no answer in ${cause.answerMs / 1000} s (the server says after ${seconds} s: ${state || 'it runs'})`;
  const next = waits
    ? `Look for who holds the lock (SHOW FULL PROCESSLIST on ${dc})`
    : `Look why it takes so long on ${dc} (SHOW FULL PROCESSLIST; an index that is missing there, a trigger, a disk)`;
  return new InterlockError(
    'Unavailable',
    `${link}: ${reason}; ${of}. ${next}; the link starts over there, with more time`,
    {
      cause: new SlowStatement(cause.answerMs, gtids.length === 1 ? gtids[0]! : null, reason, waits),
      retryable: true,
      details: { link },
    },
  );
}

/** What a session does; undefined: nothing, or the server does not say. */
async function stateOf(
  server: ServerAddress,
  session: number | null | undefined,
): Promise<{ state: string; seconds: number } | undefined> {
  let connection: Connection | undefined;
  try {
    connection = answersInTime(await connect(server));
    const [rows] = await connection.query<RowDataPacket[]>({
      sql: `SELECT command, time AS seconds, state FROM information_schema.processlist WHERE id = ${Number(session)}`,
      timeout: LOOK_MS,
      rowsAsArray: true,
    });
    const [command, seconds, state] = (rows[0] ?? []) as unknown as [string?, number?, (string | null)?];
    // `Sleep`: it has answered, and the answer was lost.
    if (command === undefined || command === 'Sleep') return undefined;
    return { state: state ?? '', seconds: Number(seconds) };
  } catch {
    return undefined;
  } finally {
    connection?.destroy();
  }
}
