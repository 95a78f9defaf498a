import { createHash } from 'node:crypto';
import type { Duplex } from 'node:stream';
import mysql from 'mysql2/promise';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError, messageOf } from '../../src/errors.js';
import { mysqlConnectionOptions, tlsProblem } from '../../src/topology/mysql-address.js';
import type { MysqlAddress } from '../../src/topology/mysql-address.js';
import type { Flavour } from './position.js';

export interface ServerAddress extends MysqlAddress {
  flavour: Flavour;
}

const CONNECT_MS = 5_000;
/** A server that does not answer a question in so long is given up. */
export const ANSWER_MS = 60_000;

export class NoAnswer extends Error {
  constructor(readonly answerMs: number) {
    super(`no answer in ${answerMs} ms`);
  }
}

/** The target's mode without strictness. */
export const LAX_MODE = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';

/** A plain connection for questions to a server. @throws InterlockError Unavailable. */
export async function connect(
  server: ServerAddress,
  options: mysql.ConnectionOptions = {},
): Promise<Connection> {
  try {
    const connection = await mysql.createConnection({
      ...mysqlConnectionOptions(server),
      connectTimeout: CONNECT_MS,
      timezone: '+00:00',
      dateStrings: true,
      supportBigNumbers: true,
      ...options,
    });
    // A connection that breaks between two queries must not end the process; the next query says so.
    connection.on('error', () => undefined);
    return connection;
  } catch (error) {
    if (error instanceof InterlockError) throw error;
    throw new InterlockError(
      'Unavailable',
      `${server.flavour} at ${server.host}:${server.port}: ${tlsProblem(error) ?? messageOf(error)}`,
      { cause: error, retryable: true },
    );
  }
}

/**
 * From now on every question to this session is answered, or fails, in time: `timeout` of the query, or a minute. The connection goes with it, and
 * all that waits for it is told. Hazard: after destroy() of mysql2 nobody is.
 */
export function answersInTime(connection: Connection): Connection {
  const ask = connection.query.bind(connection) as unknown as (
    sql: mysql.QueryOptions,
    values?: unknown,
  ) => Promise<[never, mysql.FieldPacket[]]>;
  connection.query = async (question: string | mysql.QueryOptions, values?: unknown) => {
    const { timeout = ANSWER_MS, ...options } = typeof question === 'string' ? { sql: question } : question;
    const timer = setTimeout(() => cutOff(connection, new NoAnswer(timeout)), timeout);
    try {
      return await ask(options, values);
    } finally {
      clearTimeout(timer);
    }
  };
  return connection;
}

/** Ends a connection; its questions, also those that wait behind another, fail with this. */
function cutOff(connection: Connection, why: Error): void {
  const { stream } = (connection as unknown as { connection: { stream: Duplex } }).connection;
  stream.destroy(why);
}

/**
 * The target's session. Values arrive as the source stored them: UTC, zero and odd dates, zero keys, as they are; strict, so
 * that nothing is cut to fit. Rows are read as bytes, unconverted. Foreign keys are not checked row by row: a batch is consistent as a whole. Where one cascades, they are (see
 * CatalogTable.inOrder).
 */
export async function connectTarget(server: ServerAddress): Promise<Connection> {
  const connection = answersInTime(
    await connect(server, {
      multipleStatements: true,
      // affectedRows counts changed rows: an update that finds its row already changed is a conflict.
      flags: ['-FOUND_ROWS'],
      // Where each question was asked costs a tenth of the link's time, and an error says which rows it was.
      trace: false,
    }),
  );
  try {
    await connection.query(
      `SET SESSION sql_mode='STRICT_ALL_TABLES,${LAX_MODE}', time_zone='+00:00',
        foreign_key_checks=0, unique_checks=1, transaction_isolation='READ-COMMITTED', innodb_lock_wait_timeout=10,
        character_set_results=NULL`.replace(
        'transaction_isolation',
        server.flavour === 'mysql' ? 'transaction_isolation' : 'tx_isolation',
      ),
    );
    return connection;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** In bytes: so large a message, or value that functions give, this session takes. It stays as it was when the session began. */
export async function maxAllowedPacket(
  connection: Connection,
  scope: 'SESSION' | 'GLOBAL' = 'SESSION',
  timeout?: number,
): Promise<number> {
  const [rows] = await connection.query<RowDataPacket[]>({
    sql: `SELECT @@${scope}.max_allowed_packet AS bytes`,
    ...(timeout !== undefined && { timeout }),
  });
  return Number(rows[0]!['bytes']);
}

const TAKE_OVER_MS = 10_000;

/**
 * One session per link and target. A session of an attempt that is gone (its process killed, paused, cut off) may hold row locks
 * until the server notices: it is ended here, which rolls its transaction back.
 */
export async function takeLock(connection: Connection, link: string): Promise<void> {
  const name = `interlock:${createHash('sha256').update(link).digest('hex').slice(0, 40)}`;
  const deadline = Date.now() + TAKE_OVER_MS;
  for (;;) {
    const [rows] = await connection.query<RowDataPacket[]>(
      'SELECT GET_LOCK(?, 0) AS got, IS_USED_LOCK(?) AS holder',
      [name, name],
    );
    const { got, holder } = rows[0] as { got: number; holder: number | null };
    if (Number(got) === 1) return;
    if (Date.now() > deadline) {
      throw new InterlockError(
        'Unavailable',
        `session ${holder} holds ${link} on the target and does not end`,
        {
          retryable: true,
        },
      );
    }
    if (holder !== null) await connection.query(`KILL ${Number(holder)}`).catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** server_uuid, or MariaDB's server_uid. */
export async function serverIdentity(connection: Connection, flavour: Flavour): Promise<string> {
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT @@${flavour === 'mysql' ? 'server_uuid' : 'server_uid'} AS id`,
  );
  return String((rows[0] as { id: string }).id);
}

/** Everything that is in the server's own binlog. */
export async function executedPosition(connection: Connection, flavour: Flavour): Promise<string> {
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT @@GLOBAL.${flavour === 'mysql' ? 'gtid_executed' : 'gtid_binlog_pos'} AS position`,
  );
  return String((rows[0] as { position: string }).position).replace(/\s+/g, '');
}

/** Character set by collation id. MariaDB counts collations of many character sets, each with its own id, in another table. */
export async function collationCharsets(
  connection: Connection,
  flavour: Flavour,
): Promise<Map<number, string>> {
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT id, character_set_name AS charset FROM information_schema.${flavour === 'mysql' ? 'collations' : 'collation_character_set_applicability'}`,
  );
  return new Map((rows as { id: number; charset: string }[]).map(({ id, charset }) => [Number(id), charset]));
}
