import type { Connection, ResultSetHeader } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import { NOBODY } from '../core/contract.js';
import type { Batch } from './batch.js';
import type { ChunkEffect } from './copier.js';
import { checkpointUpdate, linkUnitStatements } from './checkpoint.js';
import type { Flavour } from './position.js';
import { statementsOf } from './statements.js';
import type { Statement } from './statements.js';
import type { StopPoint } from './stop-points.js';
import { LOCK_ERRORS, cannotApply, conflictOf, isUnavailable, targetUnavailable } from './target-errors.js';
import type { SqlError } from './target-errors.js';

export interface ApplierOptions {
  connection: Connection;
  flavour: Flavour;
  link: string;
  generation: number;
  /** Of the checkpoint that was taken over. */
  seq: number;
  marker: string | null;
  stopAt: (point: StopPoint) => void;
  /** Tables that are being copied. */
  copied: ReadonlySet<string>;
}

const TEXT_PER_QUERY = 4 * 1024 * 1024;
const LOCK_RETRIES = 20;
const STATEMENT_MS = 60_000;
/** A slow disk's. */
const BYTES_PER_MS = 1_000;

/** What a transaction that is too large for one batch has after its first one. */
export interface Rest {
  bytes: number;
  /** Anew, from the beginning, for each try. */
  pieces: () => AsyncIterable<Batch>;
  statementsOf: (statements: Statement[]) => Statement[];
}

interface Sent {
  /** Of the batch or piece that is under way. */
  statements: Statement[];
  failed: Statement | undefined;
}

/**
 * Writes a batch into the target: one transaction that begins with the checkpoint. It is the loop mark, the proof that this attempt
 * still holds the link, and the position, in one row; so the checkpoint can never lead or trail the data.
 */
export class Applier {
  private readonly options: ApplierOptions;
  private seq: number;
  private marker: string | null;

  constructor(options: ApplierOptions) {
    this.options = options;
    this.seq = options.seq;
    this.marker = options.marker;
  }

  /**
   * @param position everything up to and including the batch
   * @param copy a chunk of a table that is copied, at this place of the stream
   * @param rest what follows the batch in the same transaction, in pieces
   * @throws InterlockError LinkStopped: the target does not take a change; HeldByOther: another attempt holds the link;
   *   Unavailable: the connection is gone, and whether the commit happened says only the checkpoint.
   */
  async apply(batch: Batch, position: string, copy?: ChunkEffect, rest?: Rest): Promise<void> {
    const { link, flavour, copied } = this.options;
    const markers = batch.transactions.flatMap((t) => t.markers);
    // Hazard: a marker in the checkpoint says that all before it is here. While tables are copied it is not.
    const own =
      copied.size > 0 ? undefined : markers.filter(({ workflowId }) => workflowId !== NOBODY).at(-1)?.id;
    const marker = own ?? this.marker;
    const head = [
      'START TRANSACTION',
      checkpointUpdate(link, this.options.generation, { position, marker, seq: this.seq + 1 }),
      ...linkUnitStatements(link, batch.units.values()),
      ...(copy === undefined ? [] : [copy.progress]),
    ];
    const statements = [...statementsOf(batch, flavour, copied), ...(copy?.statements ?? [])];
    const where = batch.transactions.at(-1)!.gtid;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.transaction(head, statements, where, rest);
        break;
      } catch (error) {
        const { errno } = error as SqlError;
        if (errno === undefined || !LOCK_ERRORS.has(errno) || attempt > LOCK_RETRIES)
          throw this.final(error, where);
        await new Promise((resolve) => setTimeout(resolve, Math.min(200, 2 ** attempt)));
      }
    }
    // The one place where the checkpoint advances: the target has committed.
    this.seq += 1;
    this.marker = marker;
    this.options.stopAt('after-target-commit');
  }

  private async transaction(
    head: string[],
    statements: Statement[],
    where: string,
    rest?: Rest,
  ): Promise<void> {
    const { flavour, copied } = this.options;
    const sent: Sent = { statements, failed: undefined };
    try {
      this.options.stopAt('before-target-write');
      await this.send(head, sent);
      if (rest !== undefined) {
        for await (const piece of rest.pieces()) {
          sent.statements = rest.statementsOf(statementsOf(piece, flavour, copied));
          await this.send([], sent);
        }
      }
      this.options.stopAt('before-target-commit');
      await this.run(['COMMIT'], rest?.bytes);
    } catch (error) {
      throw await this.rolledBack(error, sent, where, rest?.bytes);
    }
  }

  private async send(head: string[], sent: Sent): Promise<void> {
    const { statements } = sent;
    let from = 0;
    do {
      const texts = from === 0 ? [...head] : [];
      const skip = texts.length;
      let to = from;
      let size = 0;
      while (to < statements.length && (to === from || size + statements[to]!.sql.length <= TEXT_PER_QUERY)) {
        size += statements[to]!.sql.length;
        texts.push(statements[to]!.sql);
        to++;
      }
      if (texts.length === 0) return;
      const results = await this.run(texts).catch((error: SqlError) => {
        sent.failed = statements[from];
        throw error;
      });
      if (from === 0 && head.length > 0 && results[1]!.affectedRows !== 1)
        throw heldByOther(this.options.link);
      for (let i = from; i < to; i++) {
        const { affectedRows } = results[skip + i - from]!;
        const { affected, mayBeGone } = statements[i]!;
        if (affectedRows === 0 && mayBeGone === true) continue;
        if (affected !== null && affectedRows !== affected) {
          sent.failed = statements[i];
          throw new Mismatch();
        }
      }
      from = to;
    } while (from < statements.length);
  }

  /** Rolls back, and says which row was in the way while the connection is still good. */
  private async rolledBack(
    error: unknown,
    { statements, failed }: Sent,
    where: string,
    bytes?: number,
  ): Promise<unknown> {
    const { connection, link } = this.options;
    const { errno } = error as SqlError;
    const broken =
      !(error instanceof InterlockError) && !(error instanceof Mismatch) && isUnavailable(error as SqlError);
    if (broken) return error;
    try {
      // A batch may have switched the checks on.
      await this.run(['ROLLBACK', 'SET SESSION foreign_key_checks=0'], bytes);
      if (error instanceof Mismatch) return await conflictOf(connection, link, where, failed!);
      if (errno === ER_DUP_ENTRY) return await this.duplicate(statements, failed, error as SqlError, where);
    } catch (rollbackError) {
      return rollbackError;
    }
    return error;
  }

  /** Several statements went in one message, and the server does not say which it refused: the insert whose row is there. */
  private async duplicate(
    statements: Statement[],
    failed: Statement | undefined,
    error: SqlError,
    where: string,
  ): Promise<InterlockError> {
    const { connection, link } = this.options;
    const inserts = statements
      .slice(failed ? statements.indexOf(failed) : 0)
      .filter((s) => s.kind === 'insert');
    let first: InterlockError | undefined;
    for (const statement of inserts) {
      const conflict = await conflictOf(connection, link, where, statement);
      if (conflict.details['found'] === true) return conflict;
      first ??= conflict;
    }
    return first ?? cannotApply(link, where, failed, error);
  }

  private final(error: unknown, where: string): InterlockError {
    if (error instanceof InterlockError) return error;
    if (isUnavailable(error as SqlError) || LOCK_ERRORS.has((error as SqlError).errno ?? 0))
      return targetUnavailable(error);
    return cannotApply(this.options.link, where, undefined, error as SqlError);
  }

  /**
   * One message with one answer; a target that does not answer in time is given up, and its session with it.
   * @param bytes that it has to write, or to undo
   */
  private async run(texts: string[], bytes = 0): Promise<ResultSetHeader[]> {
    const { connection } = this.options;
    const answerMs = STATEMENT_MS + bytes / BYTES_PER_MS;
    let timer: NodeJS.Timeout | undefined;
    const silent = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        connection.destroy();
        reject(targetUnavailable(new Error(`no answer in ${answerMs} ms`)));
      }, answerMs);
    });
    try {
      const [result] = await Promise.race([connection.query(texts.join(';')), silent]);
      return Array.isArray(result) ? (result as ResultSetHeader[]) : [result as ResultSetHeader];
    } finally {
      clearTimeout(timer);
    }
  }
}

const ER_DUP_ENTRY = 1062;

class Mismatch extends Error {}

export function heldByOther(link: string): InterlockError {
  return new InterlockError(
    'HeldByOther',
    `${link} was taken over by a newer attempt; this one has written nothing and stops`,
    { details: { link } },
  );
}
