import { promisify } from 'node:util';
import { deflateRaw, inflateRaw } from 'node:zlib';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { quote } from './literal.js';
import { described, restoredTable } from './records.js';
import type { StoredChange } from './records.js';
import type { SourceTable } from './source-table.js';
import { ToQuarantine } from './target-errors.js';
import type { RowChange } from './transaction.js';

const [deflate, inflate] = [promisify(deflateRaw), promisify(inflateRaw)];

const PART_BYTES = 512 * 1024;
const PIECE_ROWS = 5_000;
const PIECE_BYTES = 4 * 1024 * 1024;
const LINE_END = 0x0a;

/** A line of what is kept: a table, or a change of the table that was named last. */
type Line = { table: StoredChange['table'] } | Omit<RowChange, 'table'>;

/**
 * Statements that keep a transaction with its record, behind which its link goes on: as lines of JSON, cut into parts of one size (a row may be
 * larger than what a message takes), each packed by itself.
 * @param packetBytes the largest message that the server takes
 */
export async function* partStatements(
  { link, gtid }: { link: string; gtid: string },
  changes: AsyncIterable<readonly RowChange[]>,
  packetBytes: number,
): AsyncGenerator<string> {
  const record = `FROM interlock.quarantine WHERE link=${quote(link)} AND gtid=${quote(gtid)}`;
  yield `DELETE FROM interlock.quarantine_part WHERE quarantine=(SELECT id ${record})`;
  let part = 0;
  // Packed or not, in hex it is twice as long.
  for await (const body of partsOf(changes, Math.min(PART_BYTES, packetBytes >> 2)))
    yield `INSERT INTO interlock.quarantine_part (quarantine,part,body) SELECT id,${part++},x'${body.toString('hex')}' ${record}`;
}

async function* partsOf(
  changes: AsyncIterable<readonly RowChange[]>,
  partBytes: number,
): AsyncGenerator<Buffer> {
  let table: SourceTable | undefined;
  let waiting: Buffer[] = [];
  let size = 0;
  const add = (line: Line): void => {
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
    waiting.push(bytes);
    size += bytes.length;
  };
  for await (const some of changes) {
    for (const { table: of, ...change } of some) {
      if (of !== table) add({ table: described((table = of)) });
      add(change);
      if (size < partBytes) continue;
      const all = Buffer.concat(waiting);
      let at = 0;
      for (; all.length - at >= partBytes; at += partBytes) yield deflate(all.subarray(at, at + partBytes));
      // A copy: what is left of a large row must not keep all of it.
      waiting = [Buffer.from(all.subarray(at))];
      size = all.length - at;
    }
  }
  if (size > 0) yield deflate(Buffer.concat(waiting));
}

/** The changes of such a transaction, in pieces. @throws ToQuarantine: they are not there */
export async function* keptChanges(connection: Connection, id: number): AsyncGenerator<RowChange[]> {
  let table: SourceTable | undefined;
  let changes: RowChange[] = [];
  let size = 0;
  for await (const line of linesOf(connection, id)) {
    const read = JSON.parse(line.toString()) as Line;
    if ('table' in read) {
      table = restoredTable(read.table);
      continue;
    }
    changes.push({ ...read, table: table! });
    size += line.length;
    if (changes.length < PIECE_ROWS && size < PIECE_BYTES) continue;
    yield changes;
    changes = [];
    size = 0;
  }
  if (changes.length > 0) yield changes;
}

/** Hazard: a question that waits behind what the same session writes could be taken for one without an answer; so each is asked when it is needed. */
async function* linesOf(connection: Connection, id: number): AsyncGenerator<Buffer> {
  let begun: Buffer[] = [];
  let part = 0;
  for (; ; part++) {
    const [rows] = await connection.query<RowDataPacket[]>(
      `SELECT body FROM interlock.quarantine_part WHERE quarantine=${id} AND part=${part}`,
    );
    if (rows[0] === undefined) break;
    const bytes = await inflate(rows[0]['body'] as Buffer);
    let from = 0;
    for (let end = bytes.indexOf(LINE_END); end >= 0; end = bytes.indexOf(LINE_END, from)) {
      yield Buffer.concat([...begun, bytes.subarray(from, end)]);
      begun = [];
      from = end + 1;
    }
    begun.push(bytes.subarray(from));
  }
  if (part === 0 || begun.some(({ length }) => length > 0))
    throw new ToQuarantine('what was kept of it (interlock.quarantine_part) is not there any more');
}
