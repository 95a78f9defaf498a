import ZongJi from '@vlasky/zongji';
import type { AnyBinlogEvent } from '@vlasky/zongji';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { randomInt } from 'node:crypto';
import mysql from 'mysql2/promise';
import { InterlockError, messageOf } from '../../../src/errors.js';

export interface ServerAddress {
  host: string;
  port: number;
  user: string;
  password: string;
}

/** File and offset: good on one server only, which is all that the checker needs. */
export interface BinlogPosition {
  file: string;
  offset: number;
}

export type Row = Record<string, unknown>;

export interface RowChange {
  schema: string;
  table: string;
  before: Row | null;
  after: Row | null;
}

/** One committed transaction, in the order of the binlog. */
export interface BinlogTransaction {
  at: BinlogPosition;
  gtid: string | null;
  changes: RowChange[];
}

const IDLE_LIMIT_MS = 30_000;

/** Where the server's binlog ends now. */
export async function binlogEnd(connection: Connection): Promise<BinlogPosition> {
  const [rows] = await connection.query<RowDataPacket[]>('SHOW MASTER STATUS');
  const row = rows[0] as { File: string; Position: number } | undefined;
  if (row === undefined)
    throw new InterlockError('Refused', 'the server writes no binlog: start it with --log-bin');
  return { file: row.File, offset: Number(row.Position) };
}

/** The oldest position that the server still has. */
export async function binlogStart(connection: Connection): Promise<BinlogPosition> {
  const [rows] = await connection.query<RowDataPacket[]>('SHOW BINARY LOGS');
  return { file: String((rows[0] as { Log_name: string }).Log_name), offset: 4 };
}

/**
 * Reads a server's transactions from `from` (default: the oldest that it has) to where its binlog ends at the call.
 * Returns that end, for the next call. Only row changes of `tables` are decoded.
 */
export async function readBinlog(
  address: ServerAddress,
  from: BinlogPosition | undefined,
  tables: Record<string, string[] | true>,
  onTransaction: (transaction: BinlogTransaction) => void,
): Promise<BinlogPosition> {
  const control = await mysql.createConnection(address);
  let start: BinlogPosition;
  let end: BinlogPosition;
  try {
    end = await binlogEnd(control);
    start = from ?? (await binlogStart(control));
  } finally {
    await control.end();
  }
  if (start.file === end.file && start.offset >= end.offset) return end;

  const stream = new ZongJi({ ...address, dateStrings: true, supportBigNumbers: true });
  let file = start.file;
  let changes: RowChange[] = [];
  let done = false;
  let lastEventAt = Date.now();
  let watch: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      watch = setInterval(() => {
        if (Date.now() - lastEventAt < IDLE_LIMIT_MS) return;
        const where = `${address.host}:${address.port}`;
        const what = `stood still at ${file} for ${IDLE_LIMIT_MS} ms, before ${end.file}:${end.offset}`;
        reject(new InterlockError('Unavailable', `the binlog of ${where} ${what}`));
      }, 1000);
      const commit = (event: AnyBinlogEvent): void => {
        const gtid = (event as { gtid?: string }).gtid ?? null;
        if (changes.length > 0) onTransaction({ at: { file, offset: event.nextPosition }, gtid, changes });
        changes = [];
      };
      stream.on('error', (error: Error) =>
        reject(
          new InterlockError(
            'Unavailable',
            `binlog of ${address.host}:${address.port}: ${messageOf(error)}`,
            {
              cause: error,
            },
          ),
        ),
      );
      stream.on('binlog', (event: AnyBinlogEvent) => {
        // What comes behind the end is for the next call, which starts there.
        if (done) return;
        lastEventAt = Date.now();
        try {
          switch (event.getEventName() as string) {
            case 'rotate':
              file = (event as { binlogName: string }).binlogName;
              return;
            case 'writerows':
            case 'updaterows':
            case 'deleterows':
              changes.push(...changesOf(event));
              return;
            case 'query': {
              const query = (event as { query: string }).query.trim().toUpperCase();
              if (query === 'COMMIT') commit(event);
              else if (query === 'ROLLBACK' || query === 'BEGIN') changes = [];
              break;
            }
            case 'xid':
              commit(event);
              break;
            default:
              return;
          }
          if (file === end.file && event.nextPosition >= end.offset) {
            done = true;
            resolve();
          }
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
      stream.start({
        serverId: randomInt(2 ** 31, 2 ** 32 - 1),
        filename: start.file,
        position: start.offset,
        includeEvents: [
          'rotate',
          'tablemap',
          'writerows',
          'updaterows',
          'deleterows',
          'query',
          'xid',
          'gtid',
          'mariadbgtid',
        ],
        includeSchema: tables,
      });
    });
  } finally {
    clearInterval(watch);
    stream.stop();
  }
  return end;
}

function changesOf(event: AnyBinlogEvent): RowChange[] {
  const rowsEvent = event as unknown as {
    tableId: number;
    tableMap: Record<number, { parentSchema: string; tableName: string }>;
    rows: (Row | { before: Row; after: Row })[];
  };
  const table = rowsEvent.tableMap[rowsEvent.tableId]!;
  const where = { schema: table.parentSchema, table: table.tableName };
  const kind = event.getEventName();
  return rowsEvent.rows.map((row) => {
    if (kind === 'updaterows') {
      const { before, after } = row as { before: Row; after: Row };
      return { ...where, before, after };
    }
    return kind === 'writerows'
      ? { ...where, before: null, after: row }
      : { ...where, before: row, after: null };
  });
}
