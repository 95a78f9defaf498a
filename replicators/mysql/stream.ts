import ZongJi from '@vlasky/zongji';
import type { AnyBinlogEvent } from './zongji-seam.js';
import { InterlockError, messageOf } from '../../src/errors.js';
import { mysqlConnectionOptions } from '../../src/topology/mysql-address.js';
import type { TableFilter } from '../../src/topology/table-filter.js';
import { BinlogReading } from './binlog-place.js';
import { changesRows, qualifiedNames } from './ddl-effects.js';
import { GtidReader, isBegin, isPlainGtid } from './group-events.js';
import { NULL, textOf } from './literal.js';
import type { Literal } from './literal.js';
import { MariadbReading } from './mariadb-reading.js';
import { PreparedTransactions, xidOf } from './prepared-transactions.js';
import { Cursor } from './row-image.js';
import { rowsOf } from './rows-event.js';
import type { ServerAddress } from './session.js';
import { definitionOf, sourceTableOf } from './source-table.js';
import type { Reading, SourceTable } from './source-table.js';
import { Spool } from './spool.js';
import { newTransaction } from './transaction.js';
import type { RowChange, SourceTransaction, UnitEvent } from './transaction.js';
import { EVENT, HEADER_BYTES, seam } from './zongji-seam.js';
import type { BinlogConnection, BinlogPacket } from './zongji-seam.js';

export interface StreamOptions extends ServerAddress {
  /** Everything in it is left out. */
  position: string;
  /** Unique among all replicas of the source. */
  serverId: number;
  filter: TableFilter;
  reading: Reading;
  /** Complete transactions that wait may have so many bytes; then the socket is paused. */
  byteBudget: () => number;
  /** No byte, not even the server's heartbeat, for so long: the connection is dead. */
  silenceMs: number;
  onTransaction: (transaction: SourceTransaction) => void;
  /**
   * Whether `onPassing` wants to see the changes of a table that their transaction does not have: those that go to the disk, and those of the
   * other side, which are dropped. Before the transaction arrives.
   */
  watches?: (table: string) => boolean;
  onPassing?: (changes: RowChange[]) => void;
  /** An XA transaction was prepared; it arrives as a transaction when it is committed. */
  onPrepared?: (gtid: string) => void;
  /** Once; the stream has ended. */
  onError: (error: InterlockError) => void;
}

const HEARTBEAT_MS = 1000;
/** What comes after so many bytes of one transaction is kept on the disk. */
const SPOOL_FROM_BYTES = 4 * 1024 * 1024;
const START_MS = 15_000;
/** So long a source keeps the connection of a stream that does not read. One whose host is gone, its kernel gives up in minutes. */
const UNREAD_SECONDS = 86_400;

/**
 * The source's binlog as whole transactions. zongji connects, asks for the dump and reads all events but rows; row images are read
 * here, straight from the packets into SQL literals: zongji's values lose JSON number types, ENUM error values, year 0,
 * bytes of single-byte character sets, and cost an object per row.
 */
export class BinlogStream {
  private readonly options: StreamOptions;
  private readonly zongji: ZongJi;
  private connection: BinlogConnection | undefined;
  private readonly tables = new Map<number, { body: Buffer; table: SourceTable }>();
  /** The last definition of each table, by name. */
  private readonly definitions = new Map<string, { definition: string; table: SourceTable }>();
  private current: SourceTransaction | undefined;
  /** Where in the source's files the stream is. */
  readonly reading = new BinlogReading();
  private readonly prepared = new PreparedTransactions();
  private readonly gtids = new GtidReader();
  private readonly mariadb: MariadbReading | undefined;
  /** The position has it: it was sent again. */
  private isPassed = false;
  /** The current transaction may wait for its XA COMMIT. */
  private isXa = false;
  private begun = false;
  private standalone = false;
  private waitingBytes = 0;
  private paused = false;
  private ended = false;
  private lastPacketAt = Date.now();
  private watchdog: NodeJS.Timeout | undefined;

  constructor(options: StreamOptions) {
    this.options = options;
    if (options.flavour === 'mariadb') this.mariadb = new MariadbReading(options.position);
    this.zongji = new ZongJi({
      ...mysqlConnectionOptions(options),
      timezone: '+00:00',
      dateStrings: true,
      connectTimeout: 5000,
      enableKeepAlive: true,
    });
  }

  /** Returns when the server was asked for its stream. */
  async start(): Promise<void> {
    const ready = new Promise<void>((resolve, reject) => {
      this.zongji.once('ready', () => {
        this.takePackets();
        resolve();
      });
      this.zongji.on('error', (error: Error) => {
        const failure = streamError(error);
        reject(failure);
        this.fail(failure);
      });
    });
    ready.catch(() => undefined);
    this.zongji.on('binlog', (event: unknown) => this.guarded(() => this.onEvent(event as AnyBinlogEvent)));
    this.zongji.start({
      serverId: this.options.serverId,
      gtidSet: this.mariadb?.resumeAt ?? this.options.position,
      includeEvents: [
        'gtid',
        'anonymousgtid',
        'mariadbgtid',
        'tablemap',
        'query',
        'xaprepare',
        'transactionpayload',
        'partialupdaterows',
      ],
    });
    // Queued before the dump: a server that is silent must say so, or a dead connection looks like an idle one.
    const connection = seam(this.zongji).connection;
    connection.query(`SET @master_heartbeat_period = ${HEARTBEAT_MS * 1_000_000}`);
    // Hazard: a stream that waits for a slow target, or for a large transaction, does not read, and the source gives up on it in a minute.
    connection.query(`SET SESSION net_write_timeout = ${UNREAD_SECONDS}`);
    const deadline = setTimeout(
      () =>
        this.zongji.emit(
          'error',
          new Error(`no answer from ${this.options.host}:${this.options.port} in ${START_MS} ms`),
        ),
      START_MS,
    );
    try {
      await ready;
    } finally {
      clearTimeout(deadline);
    }
    this.lastPacketAt = Date.now();
    let ticked = Date.now();
    this.watchdog = setInterval(() => {
      // Hazard: a thread that was busy for long (an event of a large row) has read nothing either; that is no silence.
      const late = Date.now() - ticked > 2 * HEARTBEAT_MS;
      ticked = Date.now();
      if (late) this.lastPacketAt = ticked;
      if (!this.paused && Date.now() - this.lastPacketAt > this.options.silenceMs) {
        this.fail(
          unavailable(`the source has sent nothing, no heartbeat either, for ${this.options.silenceMs} ms`),
        );
      }
    }, HEARTBEAT_MS / 2);
    this.watchdog.unref();
  }

  /** The prepared XA transaction that was read first: it is read again after a restart. */
  get held(): SourceTransaction | undefined {
    return this.prepared.first;
  }

  /** Transactions of so many bytes are done with. */
  release(bytes: number): void {
    this.waitingBytes -= bytes;
    if (this.paused && this.waitingBytes <= this.options.byteBudget() / 2) {
      this.paused = false;
      this.lastPacketAt = Date.now();
      this.connection?.resume();
    }
  }

  stop(): void {
    this.ended = true;
    clearInterval(this.watchdog);
    this.current?.spool?.discard();
    this.prepared.discard();
    this.zongji.removeAllListeners('error');
    this.zongji.on('error', () => undefined);
    this.zongji.stop();
  }

  private fail(error: InterlockError): void {
    if (this.ended) return;
    this.stop();
    this.options.onError(error);
  }

  private guarded(read: () => void): void {
    if (this.ended) return;
    try {
      read();
    } catch (error) {
      this.fail(
        error instanceof InterlockError
          ? error
          : new InterlockError('Internal', `the source's stream cannot be read: ${messageOf(error)}`, {
              cause: error,
            }),
      );
    }
  }

  /** What each transaction has is read here: rows, repeated table maps, its beginning and its end. Every other packet goes on to zongji. */
  private takePackets(): void {
    const connection = seam(this.zongji).connection;
    this.connection = connection;
    const next = connection.handlePacket.bind(connection);
    // An event may take longer to arrive than a server may be silent.
    connection.stream.on('data', () => (this.lastPacketAt = Date.now()));
    connection.stream.on('close', () => this.fail(unavailable('the source closed the connection')));
    const checksumBytes = seam(this.zongji).useChecksum ? 4 : 0;
    connection.handlePacket = (packet?: BinlogPacket): void => {
      // Packets that wait are handed in again when the connection is resumed.
      if (packet === undefined || connection._paused || packet.buffer[packet.offset] !== 0) {
        next(packet);
        return;
      }
      const start = packet.offset + 1;
      const type = packet.buffer[start + 4]!;
      this.reading.see(packet.buffer, start, packet.end - checksumBytes);
      const cursor = new Cursor(packet.buffer, start + HEADER_BYTES, packet.end - checksumBytes);
      if (this.current) this.current.bytes += packet.end - packet.offset;
      if (EVENT.rows.has(type)) {
        connection._bumpSequenceId(packet.numPackets);
        this.guarded(() => this.onRows(type, cursor));
      } else if (type === EVENT.xid) {
        connection._bumpSequenceId(packet.numPackets);
        this.guarded(() => this.complete());
      } else if (type === EVENT.query && isBegin(cursor)) {
        connection._bumpSequenceId(packet.numPackets);
        this.begun = true;
      } else if (type === EVENT.gtid && isPlainGtid(cursor)) {
        connection._bumpSequenceId(packet.numPackets);
        this.guarded(() => this.begin(this.gtids.read(cursor), packet.buffer.readUInt32LE(start) * 1000));
      } else if (type === EVENT.tableMap) {
        const body = packet.buffer.subarray(cursor.at, cursor.end);
        const tableId = body.readUIntLE(0, 6);
        if (this.tables.get(tableId)?.body.equals(body) === true) {
          connection._bumpSequenceId(packet.numPackets);
          return;
        }
        this.unmapped = Buffer.from(body);
        next(packet);
      } else if (EVENT.compressedRows.has(type)) {
        this.guarded(() => {
          throw new InterlockError(
            'LinkStopped',
            'the source writes compressed row events; set log_bin_compress=OFF there',
          );
        });
      } else {
        next(packet);
      }
    };
  }

  /** The bytes of the table map that zongji is reading. */
  private unmapped: Buffer = Buffer.alloc(0);

  private onEvent(event: AnyBinlogEvent): void {
    switch (event.getTypeName()) {
      case 'Gtid':
        this.begin(event.gtid!, event.timestamp);
        return;
      case 'MariadbGtid':
        this.begin(event.gtid!, event.timestamp);
        this.begun = event.standalone !== true;
        this.standalone = event.standalone === true;
        this.isXa = event.preparedXa === true;
        return;
      case 'AnonymousGtid':
        throw new InterlockError(
          'LinkStopped',
          'the source writes transactions without a GTID; set gtid_mode=ON there',
        );
      case 'TableMap': {
        const map = event as unknown as Parameters<typeof sourceTableOf>[0];
        const name = `${map.schemaName}.${map.tableName}`;
        // Hazard: within a transaction, too, a table may get another id (it was opened again), and MariaDB another bitmap of nullable columns
        // (for INSERT … SELECT): that is the same definition, and changes of the two have to be merged.
        const definition = definitionOf(map);
        const known = this.definitions.get(name);
        const table =
          known?.definition === definition
            ? known.table
            : sourceTableOf(map, this.options.filter, this.options.reading);
        this.definitions.set(name, { definition, table });
        this.tables.set(map.tableId, { body: this.unmapped, table });
        return;
      }
      case 'Query':
        this.onQuery(event.query!.trim(), event.schema ?? '');
        return;
      case 'XaPrepare':
        if (event.onePhase === true) this.complete();
        else
          this.hold(
            xidOf(event.xidGtrid!.toString('hex'), event.xidBqual!.toString('hex'), event.xidFormatId!),
          );
        return;
      case 'TransactionPayload':
        throw new InterlockError(
          'LinkStopped',
          'the source compresses transactions; set binlog_transaction_compression=OFF there',
        );
      case 'PartialUpdateRows':
        throw new InterlockError(
          'LinkStopped',
          "the source writes partial JSON updates; set binlog_row_value_options='' there",
        );
      default:
    }
  }

  private begin(gtid: string, timestamp: number): void {
    this.isPassed = this.mariadb?.begin(gtid) === true;
    if (this.isPassed) {
      this.current = undefined;
      return;
    }
    this.current = newTransaction(gtid, timestamp);
    this.current.start = this.reading.readTo;
    this.begun = false;
    this.standalone = false;
    this.isXa = false;
  }

  private onQuery(statement: string, schema: string): void {
    const current = this.current;
    if (current === undefined) return;
    if (/^BEGIN\b/i.test(statement)) {
      this.begun = true;
      return;
    }
    if (/^COMMIT\b/i.test(statement)) {
      this.complete();
      return;
    }
    if (/^ROLLBACK$/i.test(statement)) {
      // A rolled-back group has only changes of tables that cannot roll back; those are not carried.
      current.changes = [];
      current.spool?.discard();
      current.spool = null;
      this.complete();
      return;
    }
    if (/^(SAVEPOINT|RELEASE SAVEPOINT)\b/i.test(statement)) return;
    if (/^XA\b/i.test(statement)) {
      this.onXa(current, statement);
      return;
    }
    if (changesRows(statement) && this.mayChange(schema, statement)) {
      this.refuse(
        `a change written as a statement (${statement.slice(0, 80)}); binlog_format must be ROW, for sessions too`,
      );
    } else if (/^ROLLBACK TO\b/i.test(statement)) {
      this.refuse('ROLLBACK TO SAVEPOINT over a table that cannot roll back');
    } else {
      current.ddl = { schema, statement };
    }
    if (!this.begun || this.standalone) this.complete();
  }

  /** Hazard: whoever works in a system schema may name a table of another one. In doubt (an alias can look so), it does. */
  private mayChange(schema: string, statement: string): boolean {
    const { filter } = this.options;
    return (
      filter.mayCarry(schema) ||
      qualifiedNames(statement).some((name) => filter.carries(name.schema, name.table))
    );
  }

  private onXa(current: SourceTransaction, statement: string): void {
    if (/^XA (START|BEGIN|END)\b/i.test(statement)) {
      this.begun = true;
      this.isXa = true;
      return;
    }
    const end = /^XA (COMMIT|ROLLBACK) X'([0-9a-f]*)',\s*X'([0-9a-f]*)',\s*(\d+)/i.exec(statement);
    if (end === null) this.refuse(`an XA transaction (${statement.slice(0, 80)})`);
    else {
      const xid = xidOf(end[2]!, end[3]!, Number(end[4]));
      const held = this.prepared.peek(xid);
      const commits = end[1]!.toUpperCase() === 'COMMIT';
      if (held !== undefined) {
        this.prepared.end(xid, current, commits);
        this.isXa = true;
      } else if (commits) {
        this.refuse(
          `${statement.slice(0, 80)}, which was not logged, or prepared before the position that the link began at: its rows are not in the stream. Compare the rows, and begin behind it`,
        );
      }
    }
    this.complete();
  }

  private hold(xid: string): void {
    const transaction = this.current;
    if (transaction === undefined) return;
    transaction.spool?.flush();
    this.current = undefined;
    this.prepared.hold(xid, transaction, this.options.byteBudget());
    if (this.mariadb === undefined) {
      this.options.onPrepared?.(transaction.gtid);
      return;
    }
    this.current = newTransaction(transaction.gtid, transaction.sourceTime);
    this.current.start = transaction.start;
    this.current.preparedBehind = this.mariadb.behind;
    this.complete();
  }

  private refuse(what: string): void {
    if (this.current && !this.current.violation) {
      this.current.violation = new InterlockError('LinkStopped', `the source's stream has ${what}`);
    }
  }

  private complete(): void {
    const transaction = this.current;
    if (transaction === undefined) return;
    transaction.spool?.flush();
    if (this.isXa && transaction.spool?.tableNames.some((name) => this.options.watches?.(name) === true)) {
      // Hazard: the chunk that is being read may have these rows as they were. The next attempt reads it behind this place.
      throw unavailable(
        'a large XA transaction was committed while a table of it is copied; going on at the last chunk',
      );
    }
    this.current = undefined;
    transaction.arrivedAt = Date.now();
    this.reading.boundary();
    this.waitingBytes += transaction.bytes;
    if (!this.paused && this.waitingBytes > this.options.byteBudget()) {
      this.paused = true;
      this.connection?.pause();
    }
    this.options.onTransaction(transaction);
  }

  private onRows(type: number, cursor: Cursor): void {
    if (this.isPassed) return;
    const transaction = this.current;
    const tableId = cursor.uint(6);
    const table = this.tables.get(tableId)?.table;
    if (transaction === undefined || table === undefined) {
      throw new InterlockError('Internal', `row event of table id ${tableId} without its table map or GTID`);
    }
    // The loop mark: only a link writes the transaction table, and it does so first.
    if (table.control === 'link_checkpoint') {
      if (!this.sawRows) transaction.foreign = true;
      this.sawRowsOf = transaction;
      return;
    }
    this.sawRowsOf = transaction;
    if (!table.carried && table.control === null) return;
    if (transaction.foreign) {
      if (table.control === null) this.pass(type, cursor, table);
      return;
    }
    if (table.control === null && this.spooled(transaction, type, cursor, table)) return;
    for (const row of rowsOf(type, cursor, table)) {
      if (table.control === null) transaction.changes.push(row);
      else readControlRow(transaction, table, row.before, row.after);
    }
  }

  /** The part of a transaction that memory has no room for goes to the disk. */
  private spooled(transaction: SourceTransaction, type: number, cursor: Cursor, table: SourceTable): boolean {
    if (transaction.spool === null) {
      if (transaction.bytes <= Math.min(SPOOL_FROM_BYTES, this.options.byteBudget() / 2)) return false;
      transaction.spool = new Spool();
    }
    transaction.spool.append(table, type, cursor.buffer.subarray(cursor.at, cursor.end));
    // Hazard: a prepared transaction may be rolled back, or committed behind the chunk that is being read; see complete().
    if (!this.isXa) this.pass(type, cursor, table);
    return true;
  }

  private pass(type: number, cursor: Cursor, table: SourceTable): void {
    if (this.options.watches?.(table.name) !== true) return;
    this.options.onPassing?.(rowsOf(type, cursor, table));
  }

  private sawRowsOf: SourceTransaction | undefined;
  private get sawRows(): boolean {
    return this.sawRowsOf === this.current;
  }
}

/** An update that takes a row into the filter is an insert on the target, one that takes it out a delete. */
const UNIT_STATES = [null, 'open', 'write_disabled', 'remote'] as const;

function readControlRow(
  transaction: SourceTransaction,
  table: SourceTable,
  before: Literal[] | null,
  after: Literal[] | null,
): void {
  const value = (row: Literal[], column: string): string => {
    const literal = row[table.columns.indexOf(column)];
    if (literal === undefined || literal === NULL) {
      throw new InterlockError('Internal', `${table.name} of the source has no ${column}`);
    }
    return textOf(literal)!;
  };
  if (table.control === 'unit_state') {
    const eventOf = (row: Literal[]): UnitEvent => {
      const unit = value(row, 'unit');
      const state = UNIT_STATES[Number(value(row, 'state'))];
      return state
        ? { unit, state, owner: value(row, 'owner'), epoch: Number(value(row, 'epoch')) }
        : { unit, state: null };
    };
    const [was, is] = [before && eventOf(before), after && eventOf(after)];
    if (was && was.unit !== is?.unit) {
      transaction.units.push({ unit: was.unit, state: null });
      transaction.unitsBefore.push(was);
    }
    if (is) {
      transaction.units.push(is);
      transaction.unitsBefore.push(was?.unit === is.unit ? was : { unit: is.unit, state: null });
    }
  } else if (table.control === 'copy_watermark') {
    if (after === null) return;
    transaction.watermark = {
      link: value(after, 'link'),
      generation: Number(value(after, 'generation')),
      seq: Number(value(after, 'seq')),
      edge: value(after, 'edge') === '1' ? 'low' : 'high',
    };
  } else if (after && before === null) {
    transaction.markers.push({
      id: value(after, 'id'),
      workflowId: value(after, 'workflow_id'),
      runId: value(after, 'run_id'),
    });
  }
}

function unavailable(message: string): InterlockError {
  return new InterlockError('Unavailable', message, { retryable: true });
}

/** ER_MASTER_FATAL_ERROR_READING_BINLOG: the source no longer has what follows the position, or never had it. */
const CANNOT_RESUME = 1236;

function streamError(error: Error & { errno?: number }): InterlockError {
  if (error.errno === CANNOT_RESUME) {
    return new InterlockError(
      'NeedsOperator',
      `the source cannot stream from the checkpoint: ${error.message}. When its binlog was purged: interlock replicate resync LINK`,
      { cause: error, details: { state: 'resync-required' } },
    );
  }
  return new InterlockError('Unavailable', `source: ${error.message}`, { cause: error, retryable: true });
}
