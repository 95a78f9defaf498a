import { InterlockError } from '../../src/errors.js';
import type { Rest } from './applier.js';
import { Batch, keyOf } from './batch.js';
import type { LinkSchema } from './link-schema.js';
import type { Ownership } from './ownership.js';
import type { Spool } from './spool.js';
import type { SourceTransaction } from './transaction.js';

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
  spool.check = (changes) => {
    const [change] = then.read({ ...transaction, changes, units: [] });
    if (change === undefined) return;
    const { table, before, after } = change;
    const key = keyOf(table, (before ?? after)!);
    const unit = then.unitOf(table, (before ?? after)!);
    const what = `${table.name} key (${key}) was changed past the fence (unit ${unit})`;
    throw stopped(tooLarge(transaction, what, 'not-owned', table.name));
  };
}

/** Only what is in memory can be settled row by row, or kept aside. */
export function tooLarge(
  { gtid }: SourceTransaction,
  what: string,
  kind: string,
  table?: string,
): InterlockError {
  return new InterlockError(
    'LinkStopped',
    `${what}, in ${gtid}, which is too large to be settled row by row or kept aside. Make the rows on the target as they were at the source, then resume the link; or begin behind it (replicate start --from POSITION --discard-checkpoint)`,
    { details: { table, position: gtid, kind } },
  );
}

/** The rows of a spooled transaction, for the applier: each piece as a batch, all in the one transaction of the target. */
export function restOf(
  transaction: SourceTransaction,
  spool: Spool,
  schema: Pick<LinkSchema, 'tableOf' | 'misfitOf'>,
): Rest {
  return {
    bytes: spool.bytes,
    pieces: async function* () {
      for await (const changes of spool.pieces(PIECE_ROWS, PIECE_BYTES)) {
        spool.check?.(changes);
        // Markers, units and the like went with the first batch.
        const piece = { ...transaction, changes, units: [], markers: [], spool: null };
        const batch = new Batch();
        const misfit = schema.misfitOf(piece);
        if (misfit !== null) throw tooLarge(transaction, misfit.text, 'schema', misfit.table);
        batch.add(piece, ({ table }) => schema.tableOf(table));
        yield batch;
      }
    },
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
