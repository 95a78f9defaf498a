import { InterlockError } from '../../src/errors.js';
import type { Rest } from './applier.js';
import { Batch, BatchMismatch } from './batch.js';
import type { LinkSchema } from './link-schema.js';
import type { Ownership } from './ownership.js';
import type { Spool } from './spool.js';
import { PastTheFence } from './target-errors.js';
import type { RowChange, SourceTransaction } from './transaction.js';

const PIECE_ROWS = 5_000;
const PIECE_BYTES = 4 * 1024 * 1024;

/** Its rows are judged when they are read again: by who owned what at its place in the stream. */
export function judgeLater(
  transaction: SourceTransaction,
  ownership: Ownership,
  stopped: (violation: InterlockError) => InterlockError,
): void {
  const { spool } = transaction;
  if (spool === null) return;
  const then = ownership.clone();
  spool.notOwned = (changes) => {
    try {
      return then.read({ ...transaction, changes, units: [] });
    } catch (error) {
      throw stopped(error as InterlockError);
    }
  };
}

/** The rows on the disk, piece by piece, each as a transaction of its own; what it has besides rows is with those in memory. */
export async function* spooledParts(
  transaction: SourceTransaction,
  spool: Spool,
  schema: Pick<LinkSchema, 'misfitOf' | 'settle'>,
): AsyncGenerator<SourceTransaction> {
  for await (const changes of spool.pieces(PIECE_ROWS, PIECE_BYTES)) {
    const notOwned = spool.notOwned(changes);
    const part = { ...transaction, changes, notOwned, units: [], markers: [], spool: null };
    if (schema.misfitOf(part) !== null) await schema.settle(part);
    yield part;
  }
}

/** The rows of a spooled transaction that follow those in memory, for the applier: all in the one transaction of the target. */
export function restOf(
  transaction: SourceTransaction,
  spool: Spool,
  schema: Pick<LinkSchema, 'tableOf' | 'misfitOf' | 'settle'>,
  link: string,
): Rest {
  return {
    ...inPieces(spool),
    pieces: async function* () {
      for await (const part of spooledParts(transaction, spool, schema)) {
        if (part.notOwned.length > 0) throw new PastTheFence();
        yield { batch: batchOf(part, schema, link), beside: [] };
      }
    },
  };
}

/** All changes of a transaction, in pieces. */
export async function* changesOf({ changes, spool }: SourceTransaction): AsyncGenerator<RowChange[]> {
  yield changes;
  if (spool !== null) yield* spool.pieces(PIECE_ROWS, PIECE_BYTES);
}

/** How pieces are written, whatever is in them. */
export function inPieces({ bytes }: { bytes: number }): Omit<Rest, 'pieces'> {
  return {
    bytes,
    // Where a foreign key cascades, a row may have gone with its parent, whose deletion was in a piece before.
    statementsOf: (statements) =>
      statements
        .filter(
          ({ kind, table, rows }) => kind !== 'check' || !table.target.inOrder || rows![0]!.after !== null,
        )
        .map((statement) =>
          statement.kind === 'delete' && statement.table.target.inOrder
            ? { ...statement, mayBeGone: true }
            : statement,
        ),
  };
}

/** One transaction as a batch. @throws InterlockError LinkStopped */
export function batchOf(
  transaction: SourceTransaction,
  schema: Pick<LinkSchema, 'tableOf'>,
  link: string,
  batch = new Batch(),
): Batch {
  try {
    batch.add(transaction, ({ table }) => schema.tableOf(table));
    return batch;
  } catch (error) {
    if (!(error instanceof BatchMismatch)) throw error;
    throw new InterlockError(
      'LinkStopped',
      `${link} stopped in ${transaction.gtid}: its changes do not follow from each other`,
      { details: { link, position: transaction.gtid } },
    );
  }
}
