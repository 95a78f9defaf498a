import { InterlockError } from '../../src/errors.js';
import { readImage } from './row-image.js';
import type { Cursor } from './row-image.js';
import type { SourceTable } from './source-table.js';
import type { RowChange } from './transaction.js';
import { EVENT } from './zongji-seam.js';

/** Flag of a rows event: libbinlogevents/include/rows_event.h. */
const NO_FOREIGN_KEY_CHECKS = 2;

/**
 * The rows of a rows event that are carried.
 * @param cursor behind the table id
 * @throws InterlockError LinkStopped when images are not full
 */
export function rowsOf(type: number, cursor: Cursor, table: SourceTable): RowChange[] {
  const unchecked = (cursor.uint(2) & NO_FOREIGN_KEY_CHECKS) !== 0;
  if (EVENT.rowsV2.has(type)) cursor.at += cursor.buffer.readUInt16LE(cursor.at);
  const columns = cursor.lengthEncoded();
  const isUpdate = EVENT.updateRows.has(type);
  for (let image = 0; image < (isUpdate ? 2 : 1); image++) {
    // A missing column would be taken for NULL.
    if (!allSet(cursor.bytes((columns + 7) >> 3), columns) || columns !== table.decoders.length) {
      throw new InterlockError(
        'LinkStopped',
        `the source writes ${table.name} without full row images; set binlog_row_image=FULL there, for sessions too`,
      );
    }
  }
  const isDelete = EVENT.deleteRows.has(type);
  const rows: RowChange[] = [];
  while (cursor.at < cursor.end) {
    const first = readImage(cursor, table.decoders);
    const before = isUpdate || isDelete ? first : null;
    const after = isUpdate ? readImage(cursor, table.decoders) : isDelete ? null : first;
    const { keeps } = table;
    if (keeps === undefined) {
      rows.push({ table, before, after, unchecked });
      continue;
    }
    // A row that comes into the filter is an insert, one that leaves it a deletion.
    const had = before !== null && keeps(before) ? before : null;
    const has = after !== null && keeps(after) ? after : null;
    if (had !== null || has !== null) rows.push({ table, before: had, after: has, unchecked });
  }
  return rows;
}

function allSet(bitmap: Buffer, bits: number): boolean {
  for (let i = 0; i < bits; i++) if ((bitmap[i >> 3]! & (1 << (i & 7))) === 0) return false;
  return true;
}
