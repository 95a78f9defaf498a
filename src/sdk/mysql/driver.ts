/**
 * Two things that mysql2 can do and does not offer: both look at its command objects, both do nothing when those are not as expected.
 * Source: mysql2 3.24, lib/base/connection.js, lib/commands/{command,query}.js; MySQL client/server protocol, "Command Phase".
 */
import type { FieldPacket, PoolConnection, QueryOptions } from 'mysql2';

export type Done = (error: Error | null, result: unknown, fields: FieldPacket[]) => void;

interface Packet {
  buffer: Buffer;
  offset: number;
  isEOF(): boolean;
  eofStatusFlags(): number;
}

interface Command {
  execute?: (packet: Packet | undefined, connection: unknown) => boolean;
  start?: (packet: undefined, connection: unknown) => unknown;
  next?: unknown;
}

/**
 * mysql2 shows the server's status in results without rows only. The EOF packets of row sets have it too: looks at them as they pass, and
 * adds each status to `statuses`. When the driver has no such hook, none is added.
 */
export function watchStatus(command: unknown, statuses: number[]): void {
  const target = command as Command;
  const original = target.execute;
  if (typeof original !== 'function') return;
  /** EOF packets still to come of the row set that is being read; 0 at the header of an answer. */
  let eofs = 0;
  target.execute = function (this: Command, packet, connection) {
    if (packet !== undefined && typeof packet.isEOF === 'function') {
      if (eofs > 0) {
        if (packet.isEOF()) {
          eofs--;
          statuses.push(packet.eofStatusFlags());
        }
      } else if (packet.buffer[packet.offset] === 0x00) {
        statuses.push(okStatus(packet));
      } else if (packet.buffer[packet.offset] !== 0xff) {
        eofs = 2;
      }
    }
    return original.call(this, packet, connection);
  };
}

/** OK_Packet: 0x00, affected rows and last insert id (length-encoded), then the status. */
function okStatus({ buffer, offset }: Packet): number {
  const afterRows = skipLengthEncoded(buffer, offset + 1);
  return buffer.readUInt16LE(skipLengthEncoded(buffer, afterRows));
}

function skipLengthEncoded(buffer: Buffer, at: number): number {
  const first = buffer[at]!;
  return at + (first < 0xfb ? 1 : first === 0xfc ? 3 : first === 0xfd ? 4 : 9);
}

/** What of mysql2's connection is used to send two statements at once. */
interface Internals {
  query(sql: string | QueryOptions, done: Done): Command;
  config: { compress?: unknown; debug?: unknown };
  stream: { cork(): void; uncork(): void };
  sequenceId: number;
  _command: unknown;
  _commands: { length: number };
  _paused: boolean;
  _resetSequenceId(): void;
  _bumpSequenceId(packets: number): void;
}

function canPipeline(connection: Internals): boolean {
  return (
    typeof connection._resetSequenceId === 'function' &&
    typeof connection._bumpSequenceId === 'function' &&
    typeof connection.sequenceId === 'number' &&
    typeof connection.stream?.cork === 'function' &&
    typeof connection.stream.uncork === 'function' &&
    connection._commands?.length === 0 &&
    !connection._command &&
    connection._paused === false &&
    !connection.config.compress &&
    !connection.config.debug
  );
}

/**
 * Sends two statements in one write; the server answers one after the other, as it would to several clients' requests in its buffer. `done`
 * is called once, after both answers, with the first error if there is one. Answers false when nothing was sent because the driver or the
 * connection is not as expected.
 */
export function pipeline(
  pooled: PoolConnection,
  [first, second]: [string, string | QueryOptions],
  done: (error: Error | null, answers: [unknown, FieldPacket[]][]) => void,
): boolean {
  const connection = pooled as unknown as Internals;
  if (!canPipeline(connection)) return false;
  const answers: [unknown, FieldPacket[]][] = [];
  let failure: Error | null = null;
  const one: Done = (error, result, fields) => {
    failure ??= error;
    answers.push([result, fields]);
    if (answers.length === 2) done(failure, answers);
  };
  connection.stream.cork();
  try {
    connection.query(first, one);
    const command = connection.query(second, one);
    const { start, execute } = command;
    // Otherwise the second statement waits for its turn, as any other: a round trip more.
    if (connection._commands.length === 1 && typeof start === 'function' && typeof execute === 'function') {
      const sequenceId = connection.sequenceId;
      connection._resetSequenceId();
      command.next = start.call(command, undefined, connection);
      connection.sequenceId = sequenceId;
      let turned = false;
      command.execute = function (this: Command, packet, conn) {
        if (turned || packet !== undefined) return execute.call(this, packet, conn);
        // mysql2 says that it is this command's turn to be sent. It has been: its answer begins with packet 1.
        turned = true;
        connection._bumpSequenceId(1);
        return false;
      };
    }
  } finally {
    connection.stream.uncork();
  }
  return true;
}
