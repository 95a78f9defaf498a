import type { Connection, ResultSetHeader } from 'mysql2/promise';
import { NOBODY } from '../core/contract.js';
import type { Batch, RowNet, TableBatch } from './batch.js';
import { checkpointUpdate, heldByOther, linkUnitStatements } from './checkpoint.js';
import type { ChunkEffect } from './chunk-effect.js';
import type { Cut } from './large-values.js';
import { laterOnes } from './latest.js';
import type { Literal } from './literal.js';
import { oneMessage } from './one-message.js';
import type { Flavour } from './position.js';
import { adopt, checksOf, mismatchesOf, sameValue } from './row-check.js';
import type { Mismatch } from './row-check.js';
import { statementsOf } from './statements.js';
import type { Statement, StatementOptions } from './statements.js';
import type { StopAt } from '../core/stop-points.js';
import {
  LOCK_ERRORS,
  RecordChanged,
  RowsDiffer,
  TooLarge,
  changedOthers,
  isOurs,
  isUnavailable,
  refusalOf,
  targetUnavailable,
} from './target-errors.js';
import type { ChangeRefused, SqlError } from './target-errors.js';

export interface ApplierOptions {
  connection: Connection;
  flavour: Flavour;
  link: string;
  generation: number;
  /** Of the checkpoint that was taken over. */
  seq: number;
  marker: string | null;
  stopAt: StopAt;
  /** Tables that are being copied, and those of them that were empty. */
  copied: ReadonlySet<string>;
  filled: ReadonlySet<string>;
  /** Whether rows that the target has otherwise, and that are not copied yet, are to be as the source has them. */
  takesOver: (mismatches: readonly Mismatch[]) => Promise<boolean>;
  cut: Cut;
  /** So long the target may take for a message. */
  answerMs: number;
  /** Tables whose conflicts go by `latest` → the column that decides. */
  latest: ReadonlyMap<string, string>;
  winsTies: boolean;
}

const NONE: ReadonlyMap<string, string> = new Map();
const LOCK_RETRIES = 20;
const ROWS_PER_QUESTION = 100;
/** A slow disk's. */
const BYTES_PER_MS = 1_000;
/** After what was undone: a batch may have switched the checks on. */
const CHECKS_OFF = 'SET SESSION foreign_key_checks=0';
/** The first message has this part of what it may have: the target works from early on, and meanwhile the next one is made. */
const FIRST_PIECE = 1 / 64;
const SAVEPOINT = 'interlock_piece';
/** So many kinds of changes are named. */
const WORDS = 4;
const RECORDS = 'insert of records into interlock';

/** Rows of a check, or what a change did. */
type Answer = (Buffer | null)[][] | ResultSetHeader;

/** A part of a transaction that is too large for one batch. */
export interface Piece {
  batch: Batch;
  /** Statements that go with it. */
  beside: string[];
  /** Makes the piece anew when the target does not take it; without that, the whole transaction fails. */
  settled?: (error: RowsDiffer | ChangeRefused) => Promise<Piece>;
}

/** What a transaction that is too large for one batch has after its first one. */
export interface Rest {
  bytes: number;
  /** Anew, from the beginning, for each try. */
  pieces: () => AsyncIterable<Piece>;
  statementsOf: (statements: Statement[]) => Statement[];
}

export interface ApplyOptions {
  /** A chunk of a table that is copied, at this place of the stream. */
  copy?: ChunkEffect | undefined;
  /** What follows the batch in the same transaction, in pieces. */
  rest?: Rest | undefined;
  /** One transaction, whose rows are looked at one statement before they are changed: says of each that differs what it is. */
  careful?: boolean;
  /** Rows are inserted whatever was deleted before. */
  undeletes?: boolean;
  /** A statement for the same transaction that has to change one row; else RecordChanged is thrown, and nothing is written. */
  requires?: string | undefined;
  /** Statements for the end of the same transaction. */
  beside?: string[];
}

/** The statement that is under way, when it goes alone. */
interface Sent {
  /** The third statement of the head has to change a row. */
  requires: boolean;
  failed: Statement | undefined;
}

/**
 * Writes a batch into the target: one transaction that begins with the checkpoint. It is the loop mark, the proof that this attempt
 * still holds the link, and the position, in one row; so the checkpoint can never lead or trail the data.
 */
export class Applier {
  private readonly options: ApplierOptions;
  private seq: number;
  /** Statements that were made ahead. */
  private prepared: { batch: Batch; statements: Statement[] } | undefined;
  private marker: string | null;
  /** What was sent last. */
  private sent: readonly Statement[] | string = [];

  constructor(options: ApplierOptions) {
    this.options = options;
    this.seq = options.seq;
    this.marker = options.marker;
  }

  /**
   * @param position everything up to and including the batch
   * @throws RowsDiffer, ChangeRefused: the target is as it was; InterlockError HeldByOther: another attempt holds the link; Unavailable: the
   *   connection is gone, and whether the commit happened says only the checkpoint.
   */
  async apply(
    batch: Batch,
    position: string,
    { copy, rest, careful = false, undeletes = false, requires, beside = [] }: ApplyOptions = {},
  ): Promise<void> {
    const { link, copied } = this.options;
    const latest = undeletes ? NONE : this.options.latest;
    const markers = batch.transactions.flatMap((t) => t.markers);
    // Hazard: a marker in the checkpoint says that all before it is here. While tables are copied it is not.
    const own =
      copied.size > 0 ? undefined : markers.filter(({ workflowId }) => workflowId !== NOBODY).at(-1)?.id;
    const marker = own ?? this.marker;
    const head = [
      'START TRANSACTION',
      checkpointUpdate(link, this.options.generation, { position, marker, seq: this.seq + 1 }),
      ...(requires === undefined ? [] : [requires]),
      ...linkUnitStatements(link, batch.units.values()),
      ...(copy === undefined ? [] : [copy.progress]),
    ];
    const more = { chunk: copy?.statements ?? [], rest, beside, requires: requires !== undefined };
    const isPlain =
      copy === undefined &&
      rest === undefined &&
      requires === undefined &&
      beside.length === 0 &&
      !careful &&
      this.options.stopAt.wanted !== 'before-target-commit';
    let ready = this.prepared?.batch === batch && !careful ? this.prepared.statements : undefined;
    this.prepared = undefined;
    for (let attempt = 1; ; attempt++) {
      const statements = ready ?? this.statementsOf(batch, { latest, checkInserts: careful });
      // Another attempt makes them anew: rows may be known otherwise by then.
      ready = undefined;
      try {
        const small = attempt === 1 && isPlain ? oneMessage(head, statements) : undefined;
        this.sent = statements;
        if (small !== undefined && (await this.inOneMessage(small))) break;
        await this.transaction(head, statements, careful, more);
        break;
      } catch (error) {
        if (copy === undefined && (await this.taken(error, careful)) && attempt <= LOCK_RETRIES) continue;
        if (isOurs(error)) throw error;
        const { errno } = error as SqlError;
        if (errno === undefined || !LOCK_ERRORS.has(errno) || attempt > LOCK_RETRIES)
          throw targetUnavailable(error);
        await new Promise((resolve) => setTimeout(resolve, Math.min(200, 2 ** attempt)));
      }
    }
    // The one place where the checkpoint advances: the target has committed.
    this.seq += 1;
    this.marker = marker;
    this.options.stopAt('after-target-commit');
  }

  private statementsOf(
    batch: Batch,
    options: Pick<StatementOptions, 'checkInserts'> & Partial<StatementOptions>,
  ): Statement[] {
    return statementsOf(batch, { ...this.options, blind: this.options.filled, ...options });
  }

  /** Makes the statements of a batch that is applied next, without sending them. */
  prepare(batch: Batch): void {
    this.prepared = { batch, statements: this.statementsOf(batch, { checkInserts: false }) };
  }

  /** What the target was given last, in words. */
  get underWay(): string {
    if (typeof this.sent === 'string') return this.sent;
    const said = new Map<string, number>();
    for (const { kind, table, keys, rows } of this.sent) {
      if (kind === 'session' || kind === 'deleted') continue;
      const what = `${kind === 'check' ? 'read' : kind} of ${table.source.name}`;
      said.set(what, (said.get(what) ?? 0) + (rows ?? keys).length);
    }
    const words = [...said].map(([what, count]) => `${what} (${count} rows)`);
    const more = words.length > WORDS ? `, and ${words.length - WORDS} more` : '';
    return words.length === 0 ? 'the checkpoint' : `${words.slice(0, WORDS).join(', ')}${more}`;
  }

  /** A row as it is on the target; null: it is not there. */
  async read(table: TableBatch, row: RowNet): Promise<Literal[] | null> {
    const [check] = checksOf(table, [row]);
    const [answer] = await this.run([check!.sql]);
    const [found] = mismatchesOf(
      { ...check!, rows: [{ ...row, before: null }] },
      answer as (Buffer | null)[][],
    );
    return found?.current ?? null;
  }

  /** Of a table that is being copied: whether the rows are from now on known as the target has them, and written over that. */
  private async taken(error: unknown, careful: boolean): Promise<boolean> {
    if (careful || !(error instanceof RowsDiffer) || !(await this.options.takesOver(error.mismatches)))
      return false;
    for (const { row, current } of error.mismatches) row.before = current;
    return true;
  }

  /** @returns false: nothing is written, and it has to go in steps, which say why */
  private async inOneMessage(texts: string[]): Promise<boolean> {
    this.options.stopAt('before-target-write');
    try {
      await this.run(texts);
      return true;
    } catch (error) {
      if (isUnavailable(error as SqlError)) throw error;
      await this.run(['ROLLBACK', CHECKS_OFF]);
      return false;
    }
  }

  private async transaction(
    head: string[],
    statements: Statement[],
    careful: boolean,
    {
      chunk,
      rest,
      beside,
      requires,
    }: { chunk: Iterable<Statement>; rest: Rest | undefined; beside: string[]; requires: boolean },
  ): Promise<void> {
    const sent: Sent = { failed: undefined, requires };
    try {
      this.options.stopAt('before-target-write');
      await this.send(head, statements, careful, sent);
      await this.sendChunk(chunk, careful, sent);
      if (rest !== undefined) {
        for await (const piece of rest.pieces()) await this.write(piece, rest, careful, sent);
      }
      sent.failed = undefined;
      if (beside.length > 0) this.sent = RECORDS;
      for (const texts of this.messagesOf(beside)) await this.run(texts);
      this.options.stopAt('before-target-commit');
      this.sent = 'COMMIT';
      await this.run(['COMMIT'], rest?.bytes);
    } catch (error) {
      throw await this.rolledBack(error, sent.failed, rest?.bytes);
    }
  }

  /** In the midst of a transaction that stays as it is up to here, whatever becomes of the piece. */
  private async write(first: Piece, rest: Rest, careful: boolean, sent: Sent): Promise<void> {
    let piece = first;
    if (piece.settled !== undefined) await this.run([`SAVEPOINT ${SAVEPOINT}`]);
    for (;;) {
      try {
        const made = this.statementsOf(piece.batch, { checkInserts: careful });
        await this.send([], rest.statementsOf(made), careful, sent);
        sent.failed = undefined;
        if (piece.beside.length > 0) this.sent = RECORDS;
        for (const texts of this.messagesOf(piece.beside)) await this.run(texts);
        return;
      } catch (error) {
        const refusal = refusalOf(error, sent.failed);
        if (piece.settled === undefined || refusal === undefined) throw error;
        await this.run([`ROLLBACK TO SAVEPOINT ${SAVEPOINT}`, CHECKS_OFF]);
        sent.failed = undefined;
        piece = await piece.settled(refusal);
      }
    }
  }

  /** While the target runs some statements, the next ones are made. */
  private async sendChunk(statements: Iterable<Statement>, careful: boolean, sent: Sent): Promise<void> {
    const { statement } = this.options.cut;
    const pieces = piecesOf(statements, statement * FIRST_PIECE, statement / 2);
    for (let piece = pieces.next(); piece.done !== true;) {
      const running = this.send([], piece.value, careful, sent);
      // When the next ones cannot be made: what is under way ends before the rollback.
      running.catch(() => undefined);
      piece = pieces.next();
      await running;
    }
  }

  private async send(head: string[], statements: Statement[], careful: boolean, sent: Sent): Promise<void> {
    const { cut } = this.options;
    let from = 0;
    do {
      const texts = from === 0 ? [...head] : [];
      const skip = texts.length;
      let to = from;
      let size = 0;
      while (to < statements.length && (to === from || size + statements[to]!.sql.length <= cut.statement)) {
        const { sql, kind, table } = statements[to]!;
        if (sql.length > cut.statement) requireTaken(table, sql, cut);
        size += sql.length;
        texts.push(sql);
        to++;
        // Before a change can be refused, what is known of its row is wanted.
        if (careful && kind === 'check') break;
      }
      if (texts.length === 0) return;
      sent.failed = to === from + 1 ? statements[from] : undefined;
      this.sent = statements.slice(from, to);
      const results = await this.run(texts);
      if (from === 0 && head.length > 0) {
        if ((results[1] as ResultSetHeader).affectedRows !== 1) throw heldByOther(this.options.link);
        if (sent.requires && (results[2] as ResultSetHeader).affectedRows !== 1) throw new RecordChanged();
      }
      const answers = results.slice(skip);
      const mismatches = answers.flatMap((answer, i) => {
        const statement = statements[from + i]!;
        return statement.kind === 'check' ? mismatchesOf(statement, answer as (Buffer | null)[][]) : [];
      });
      // Rows that differ say more than a count.
      if (mismatches.length > 0 && !(await this.adopted(mismatches))) throw new RowsDiffer(mismatches);
      const deleted = await this.deletedLater(statements.slice(from, to), answers);
      if (deleted.length > 0) throw new RowsDiffer(deleted);
      answers.forEach((answer, i) => requireAffected(statements[from + i]!, answer, careful));
      from = to;
    } while (from < statements.length);
  }

  /** Of rows that were inserted, those of which somebody has deleted a later one. */
  private async deletedLater(
    statements: readonly Statement[],
    answers: readonly Answer[],
  ): Promise<Mismatch[]> {
    const found: Mismatch[] = [];
    for (const [i, { kind, table, rows }] of statements.entries()) {
      if (kind !== 'deleted' || (answers[i] as (Buffer | null)[][]).length === 0) continue;
      const mismatches = rows!.map((row): Mismatch => ({ table, row, current: null }));
      const column = this.options.latest.get(table.source.name)!;
      const winners = await laterOnes(this.options.connection, this.options, column, mismatches);
      found.push(...mismatches.filter((_, n) => winners[n] === 'target'));
    }
    return found;
  }

  private async rolledBack(error: unknown, failed: Statement | undefined, bytes?: number): Promise<unknown> {
    if (!isOurs(error) && isUnavailable(error as SqlError)) return error;
    try {
      this.sent = 'ROLLBACK';
      await this.run(['ROLLBACK', CHECKS_OFF], bytes);
    } catch (rollbackError) {
      return rollbackError;
    }
    return refusalOf(error, failed) ?? error;
  }

  /**
   * Where all that differs is how equal values are written, the rows are from now on known as the target writes them.
   * @returns whether that was all
   */
  private async adopted(mismatches: readonly Mismatch[]): Promise<boolean> {
    const questions = mismatches.map(sameValue);
    if (questions.includes(null)) return false;
    for (let i = 0; i < questions.length; i += ROWS_PER_QUESTION) {
      const [answer] = await this.run([`SELECT ${questions.slice(i, i + ROWS_PER_QUESTION).join(' AND ')}`]);
      if (String((answer as (Buffer | null)[][])[0]![0]) !== '1') return false;
    }
    for (const mismatch of mismatches) adopt(mismatch);
    return true;
  }

  /**
   * One message with one answer; a target that does not answer in time is given up, and its session with it.
   * @param bytes that it has to write, or to undo
   */
  private async run(texts: string[], bytes = 0): Promise<Answer[]> {
    const { connection, answerMs } = this.options;
    const [result] = await connection.query<ResultSetHeader>({
      sql: texts.join(';'),
      // Nothing to put in: without this, the text is searched for places.
      values: null,
      rowsAsArray: true,
      typeCast: false,
      timeout: answerMs + bytes / BYTES_PER_MS,
    });
    return texts.length > 1 ? (result as unknown as Answer[]) : [result];
  }

  private *messagesOf(texts: readonly string[]): Generator<string[]> {
    let some: string[] = [];
    let size = 0;
    for (const text of texts) {
      if (some.length > 0 && size + text.length > this.options.cut.statement) {
        yield some;
        some = [];
        size = 0;
      }
      some.push(text);
      size += text.length;
    }
    if (some.length > 0) yield some;
  }
}

/** One of the length `first`, then of the length `most`. */
function* piecesOf(statements: Iterable<Statement>, first: number, most: number): Generator<Statement[]> {
  let length = first;
  let some: Statement[] = [];
  let size = 0;
  for (const statement of statements) {
    some.push(statement);
    size += statement.sql.length;
    if (size < length) continue;
    yield some;
    length = most;
    some = [];
    size = 0;
  }
  if (some.length > 0) yield some;
}

/** Hazard: what is above the target's limit it answers with an end of the connection, if at all. */
function requireTaken(table: TableBatch, sql: string, { packetBytes }: Cut): void {
  const bytes = Buffer.byteLength(sql);
  // Room for what goes before it in the same message.
  if (bytes > packetBytes - packetBytes / 16) throw new TooLarge(table, 'a statement', bytes, packetBytes);
}

/** What an update of a row that was looked at under a lock changed says nothing more. */
function requireAffected(statement: Statement, answer: Answer, careful: boolean): void {
  const { kind, affected, mayBeGone } = statement;
  if (kind === 'check' || affected === null || (careful && kind === 'update')) return;
  const { affectedRows } = answer as ResultSetHeader;
  if (affectedRows === affected || (affectedRows === 0 && mayBeGone === true)) return;
  throw changedOthers(statement, affectedRows);
}
