import { createHash } from 'node:crypto';
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
 * The target's session. Values arrive as the source stored them: UTC, zero and odd dates, zero keys, as they are; strict, so
 * that nothing is cut to fit. Rows are read as bytes, unconverted. Foreign keys are not checked row by row: a batch is consistent as a whole. Where one cascades, they are (see
 * CatalogTable.inOrder).
 */
export async function connectTarget(server: ServerAddress): Promise<Connection> {
  const connection = await connect(server, {
    multipleStatements: true,
    // affectedRows counts changed rows: an update that finds its row already changed is a conflict.
    flags: ['-FOUND_ROWS'],
  });
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
