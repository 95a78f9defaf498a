import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { DcId } from '../../../src/routing/units.js';
import { InterlockError } from '../../../src/errors.js';
import { LAX_MODE, connect, connectTarget } from '../session.js';
import type { ServerAddress } from '../session.js';
import type { Value } from './columns.js';

type Purpose = 'read' | 'mark' | 'lock' | 'repair';

/** An application's transaction waits for the locks of a proof, and a proof for those of an application, no longer than this. */
const LOCK_WAIT_SECONDS = 1;
/** The server ends a session of ours that is silent for so long with rows locked: its process stands still, or is gone. */
const SILENT_SECONDS = 5;

/**
 * One server of a store pair, and our sessions on it, opened on first use. They are not of the pool with which units are fenced: that must
 * find a free connection at once.
 */
export class Side {
  private readonly sessions = new Map<Purpose, Promise<Connection>>();
  private closed = false;

  constructor(
    readonly dc: DcId,
    readonly server: ServerAddress,
  ) {}

  reader(): Promise<Connection> {
    return this.session('read', async () => {
      const connection = await connect(this.server, { multipleStatements: true, charset: 'utf8mb4' });
      await prepare(connection);
      // A digest that is switched off (FIPS) is NULL, and all rows would seem equal.
      const [[row]] = await connection.query<RowDataPacket[]>(`SELECT MD5('interlock') AS digest`);
      if ((row as { digest: string | null }).digest === null)
        throw new InterlockError('Refused', `${this.dc}: the server has no MD5(); rows cannot be compared`);
      return connection;
    });
  }

  /** Every statement of it is a transaction of its own, and tells its GTID. */
  marker(): Promise<Connection> {
    return this.session('mark', async () => {
      const connection = await connect(this.server, { charset: 'utf8mb4' });
      if (this.server.flavour === 'mysql')
        await connection.query(`SET SESSION session_track_gtids='OWN_GTID'`);
      return connection;
    });
  }

  /** REPEATABLE READ: a locking read of a row that is not there keeps it from being inserted. */
  locker(): Promise<Connection> {
    return this.session('lock', async () => {
      const connection = await connect(this.server, { multipleStatements: true, charset: 'utf8mb4' });
      await prepare(connection);
      await connection.query(
        `SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET SESSION innodb_lock_wait_timeout=${LOCK_WAIT_SECONDS}`,
      );
      return connection;
    });
  }

  /** Writes as a link does, and also what strict mode refuses (an ENUM's error value): what was written is read again before the commit. */
  repairer(): Promise<Connection> {
    return this.session('repair', async () => {
      const connection = await connectTarget(this.server);
      await connection.query(
        `SET SESSION innodb_lock_wait_timeout=${LOCK_WAIT_SECONDS}, sql_mode='${LAX_MODE}'`,
      );
      return connection;
    });
  }

  /** The rows of one statement, as arrays of exact values. */
  async rows(sql: string): Promise<Value[][]> {
    return rowsOf(await this.reader(), sql);
  }

  /** Gives a session up; the next use opens another. */
  drop(purpose: Purpose): void {
    this.sessions.get(purpose)?.then(
      (connection) => connection.destroy(),
      () => undefined,
    );
    this.sessions.delete(purpose);
  }

  /** For good: what still runs behind a time-out must not open sessions that nobody closes. */
  close(): void {
    this.closed = true;
    for (const purpose of this.sessions.keys()) this.drop(purpose);
  }

  private session(purpose: Purpose, open: () => Promise<Connection>): Promise<Connection> {
    const known = this.sessions.get(purpose);
    if (known !== undefined) return known;
    if (this.closed)
      return Promise.reject(new InterlockError('Unavailable', `${this.dc}: given up`, { retryable: true }));
    const opened = open();
    opened.catch(() => this.sessions.delete(purpose));
    this.sessions.set(purpose, opened);
    return opened;
  }
}

/** Times in UTC, odd dates as they are, CHAR without its padding. */
async function prepare(connection: Connection): Promise<void> {
  await connection.query(`SET SESSION sql_mode='ALLOW_INVALID_DATES', time_zone='+00:00'`);
}

export async function rowsOf(connection: Connection, sql: string): Promise<Value[][]> {
  const [found] = await connection.query({ sql, rowsAsArray: true });
  return found as unknown as Value[][];
}

/** The rows of each of several statements, in one message. */
export async function rowsOfEach(
  connection: Connection,
  statements: readonly string[],
): Promise<Value[][][]> {
  if (statements.length === 0) return [];
  // The last one has no rows, so that the answer is a list of answers also when there is one statement.
  const [found] = await connection.query({ sql: [...statements, 'DO 0'].join(';'), rowsAsArray: true });
  return (found as unknown as Value[][][]).slice(0, statements.length);
}

/** Begins a transaction that the server ends by itself when we are silent; see `SILENT_SECONDS`. */
export const BEGIN_BOUNDED = `SET SESSION wait_timeout=${SILENT_SECONDS};START TRANSACTION`;
export const ROLLBACK_BOUNDED = 'ROLLBACK;SET SESSION wait_timeout=DEFAULT';
