import { createHash } from 'node:crypto';
import type { Connection, ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import type { ConflictPolicy } from '../../src/topology/schema.js';
import { bytesOf, identifier, quote } from './literal.js';
import type { Literal } from './literal.js';
import type { SourceTable } from './source-table.js';
import type { RowChange, SourceTransaction } from './transaction.js';

/** What was met: the row is there already, is not there, is another one, or was not the source's to change. */
export type ConflictKind = 'exists' | 'missing' | 'differs' | 'not-owned';

/** A row's images as literals (see literal.ts), in the order of `columns`; null: no such row. */
export interface ConflictImages {
  columns: string[];
  primaryKey: string[];
  /** At the source, before and after its change. */
  before: Literal[] | null;
  after: Literal[] | null;
  /** On the target, when the change came. */
  current: Literal[] | null;
  /** Columns of which an image has a beginning, length and hash only: they were too large to be kept. */
  shortened?: string[];
}

export interface NewConflict {
  gtid: string;
  table: string;
  key: string;
  unit: string | null;
  kind: ConflictKind;
  policy: string;
  kept: 'source' | 'target';
  /** `open`: the two sides differ since, and a person has to say which is right. */
  state: 'open' | 'resolved';
  images: ConflictImages;
}

export interface ConflictRecord extends Omit<NewConflict, 'state'> {
  id: number;
  link: string;
  /** `wanted`: the source's image is to be written; the link does it. */
  state: 'open' | 'wanted' | 'resolved';
  /** ISO 8601, by the store's clock. */
  createdAt: string;
  resolvedAt: string | null;
}

export interface QuarantineRecord {
  id: number;
  link: string;
  gtid: string;
  reason: string;
  tries: number;
  /** The link has gone on behind it; else it stands before it. */
  passed: boolean;
  state: 'open' | 'retry' | 'applied' | 'discarded';
  units: string[];
  changes: StoredChange[];
  /** Of a large transaction, of which `changes` are the first ones: its size in the source's binlog. null: they are all. */
  largeBytes: number | null;
  /** Of a large one that the link has gone on behind (it is kept in interlock.quarantine_part): how many rows it has. */
  largeRows: number | null;
  /** Of such a one: `schema.table` of them. */
  tables: string[];
  /** Of such a one: later transactions have changed these tables, and it is not tried again (see overtaken.ts). */
  overtaken: boolean;
  createdAt: string;
  changedAt: string;
}

/** A change of a row that can be read again without the stream. */
export interface StoredChange extends Omit<RowChange, 'table'> {
  table: Pick<SourceTable, 'schema' | 'table' | 'columns' | 'primaryKey' | 'types' | 'lax'>;
  /** The row of the image was changed by a later transaction (see overtaken.ts). */
  beforeOvertaken?: 1;
  afterOvertaken?: 1;
}

/** What a link may keep of one transaction in its record, and what it shows of a larger one; of what a packet takes, so much. */
const QUARANTINE_BYTES = 16 * 1024 * 1024;
const SHOWN_BYTES = 1024 * 1024;
/** The latest ones are read. */
export const MOST_RECORDS = 1000;
const IMAGES_BYTES = 4 * 1024 * 1024;
const PACKET_SHARE = { transaction: 7 / 8, images: 1 / 4 };
/** Values above it are shortened; the next one, when that is not enough. */
const SHORTENED = [64 * 1024, 1024, 128];
const BEGINNING = 64;

export function policyText(policy: ConflictPolicy): string {
  return typeof policy === 'string' ? policy : `latest (${policy.latest})`;
}

/** @param packetBytes the largest message that the server takes */
export function conflictInsert(link: string, conflict: NewConflict, packetBytes: number): string {
  const { gtid, table, key, unit, kind, policy, kept, state } = conflict;
  const images = imagesWithin(conflict.images, Math.min(IMAGES_BYTES, packetBytes * PACKET_SHARE.images));
  const resolved = state === 'resolved' ? 'UTC_TIMESTAMP(6)' : 'NULL';
  const values = [link, gtid, table, key, unit, kind, policy, kept, state, images];
  return `INSERT INTO interlock.conflict (link,gtid,name,row_key,unit,kind,policy,kept,state,images,created_at,resolved_at)
    VALUES (${values.map((value) => (value === null ? 'NULL' : quote(value))).join(',')},UTC_TIMESTAMP(6),${resolved})`;
}

/** As JSON of at most so many bytes in a statement; large values are shortened, those of the key never. */
function imagesWithin(images: ConflictImages, most: number): string {
  let text = JSON.stringify(images);
  for (const above of SHORTENED) {
    if (sentBytes(text) <= most) return text;
    text = JSON.stringify(shortened(images, above));
  }
  return sentBytes(text) <= most
    ? text
    : JSON.stringify({ ...images, before: null, after: null, current: null, shortened: images.columns });
}

/** Of a text in a statement: quoted, it is longer. */
function sentBytes(text: string): number {
  return Buffer.byteLength(quote(text));
}

function shortened(images: ConflictImages, above: number): ConflictImages {
  const { columns, primaryKey } = images;
  const which = new Set<string>();
  const short = (image: Literal[] | null): Literal[] | null =>
    image &&
    image.map((value, i) => {
      const name = columns[i]!;
      if (value.length <= above || primaryKey.includes(name)) return value;
      which.add(name);
      const bytes = bytesOf(value);
      const beginning = `${value.slice(0, BEGINNING)}…`;
      if (bytes === null) return `(${value.length} characters) ${beginning}`;
      const hash = createHash('sha256').update(bytes).digest('hex');
      return `(${bytes.length} bytes, SHA-256 ${hash}) ${beginning}`;
    });
  const { before, after, current } = images;
  return {
    ...images,
    before: short(before),
    after: short(after),
    current: short(current),
    shortened: [...which],
  };
}

export interface NewQuarantine {
  gtid: string;
  reason: string;
  passed: boolean;
  kept: KeptAside;
}

/** Kept once per transaction; the next failure of the same one is counted there. */
export function quarantineInsert(link: string, entry: NewQuarantine): string {
  const { gtid, reason, passed, kept } = entry;
  const values = [link, gtid, reason, JSON.stringify(kept.units), kept.changes].map(quote);
  const [linkText, gtidText, reasonText, unitsText, changesText] = values;
  return `INSERT INTO interlock.quarantine (link,gtid,reason,tries,passed,state,units,changes,created_at,changed_at)
    VALUES (${linkText},${gtidText},${reasonText},1,${passed ? 1 : 0},'open',${unitsText},${changesText},UTC_TIMESTAMP(6),UTC_TIMESTAMP(6))
    ON DUPLICATE KEY UPDATE reason=VALUES(reason),tries=tries+1,passed=VALUES(passed),state=IF(state='discarded',state,'open'),
      units=VALUES(units),changes=VALUES(changes),changed_at=VALUES(changed_at)`;
}

/** @param from only a record that is in this state */
export function quarantineUpdate(
  id: number,
  from: QuarantineRecord['state'],
  to: QuarantineRecord['state'],
  reason?: string,
): string {
  const why = reason === undefined ? '' : `,reason=${quote(reason)},tries=tries+1`;
  return `UPDATE interlock.quarantine SET state='${to}',changed_at=UTC_TIMESTAMP(6)${why} WHERE id=${id} AND state='${from}'`;
}

export function conflictUpdate(
  id: number,
  from: ConflictRecord['state'],
  to: ConflictRecord['state'],
  kept?: 'source' | 'target',
): string {
  const resolved = to === 'resolved' ? 'UTC_TIMESTAMP(6)' : 'NULL';
  const winner = kept === undefined ? '' : `,kept='${kept}'`;
  return `UPDATE interlock.conflict SET state='${to}',resolved_at=${resolved}${winner} WHERE id=${id} AND state='${from}'`;
}

/** So long what is decided can be looked at. */
const KEPT_DAYS = 30;
const PURGED_AT_ONCE = 1000;
const PARTS_AT_ONCE = 100;

/** Removes some of a link's records that were decided long ago. @returns whether there may be more */
export async function purgeDecided(connection: Connection, link: string): Promise<boolean> {
  // Hazard: of a record that is not seen yet, the parts may be; so of those only that are seen to be decided.
  const [parts] = await connection.query<ResultSetHeader>(
    `DELETE FROM interlock.quarantine_part WHERE quarantine IN
      (SELECT id FROM interlock.quarantine WHERE link=${quote(link)} AND state IN ('applied','discarded')) LIMIT ${PARTS_AT_ONCE}`,
  );
  if (parts.affectedRows === PARTS_AT_ONCE) return true;
  let more = false;
  for (const where of [
    `conflict WHERE link=${quote(link)} AND state='resolved' AND resolved_at`,
    // One that was discarded and that the link still stands before is needed.
    `quarantine WHERE link=${quote(link)} AND (state='applied' OR (state='discarded' AND passed=1)) AND changed_at`,
  ]) {
    const [{ affectedRows }] = await connection.query<ResultSetHeader>(
      `DELETE FROM interlock.${where} < UTC_TIMESTAMP(6) - INTERVAL ${KEPT_DAYS} DAY LIMIT ${PURGED_AT_ONCE}`,
    );
    more ||= affectedRows === PURGED_AT_ONCE;
  }
  return more;
}

/** @returns whether the record was in that state */
export async function changed(connection: Connection, update: string): Promise<boolean> {
  const [result] = await connection.query<ResultSetHeader>(update);
  return result.affectedRows === 1;
}

export interface OpenCounts {
  conflicts: number;
  quarantined: number;
}

/** Of one link: what a person still has to decide. */
export async function openCounts(connection: Connection, link: string): Promise<OpenCounts> {
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT (SELECT COUNT(*) FROM interlock.conflict WHERE link = ? AND state <> 'resolved') AS conflicts,
      (SELECT COUNT(*) FROM interlock.quarantine WHERE link = ? AND state IN ('open','retry')) AS quarantined`,
    [link, link],
  );
  return { conflicts: Number(rows[0]!['conflicts']), quarantined: Number(rows[0]!['quarantined']) };
}

/** The transactions that the link stopped before, by GTID. */
export async function readSetAside(
  connection: Connection,
  link: string,
): Promise<Map<string, Pick<QuarantineRecord, 'id' | 'state'>>> {
  const [rows] = await connection.query<RowDataPacket[]>(
    "SELECT id, gtid, state FROM interlock.quarantine WHERE link = ? AND passed = 0 AND state IN ('open','retry','discarded')",
    [link],
  );
  return new Map(
    rows.map((row) => [
      String(row['gtid']),
      { id: Number(row['id']), state: row['state'] as QuarantineRecord['state'] },
    ]),
  );
}

export interface RecordFilter {
  link?: string;
  id?: number;
  states?: readonly string[];
  /** The first ones instead of the latest; in any case they come in their order. */
  oldest?: boolean;
}

export async function readConflicts(connection: Connection, filter: RecordFilter): Promise<ConflictRecord[]> {
  const rows = await select(connection, 'conflict', filter);
  return rows.map((row) => ({
    ...(row as ConflictRecord & { name: string; row_key: string }),
    id: Number(row['id']),
    table: String(row['name']),
    key: String(row['row_key']),
    images: JSON.parse(String(row['images'])) as ConflictImages,
    createdAt: iso(row['created_at'])!,
    resolvedAt: iso(row['resolved_at']),
  }));
}

export async function readQuarantine(
  connection: Connection,
  filter: RecordFilter,
): Promise<QuarantineRecord[]> {
  const rows = await select(connection, 'quarantine', filter);
  return rows.map((row) => ({
    id: Number(row['id']),
    link: String(row['link']),
    gtid: String(row['gtid']),
    reason: String(row['reason']),
    tries: Number(row['tries']),
    passed: Number(row['passed']) === 1,
    state: row['state'] as QuarantineRecord['state'],
    units: JSON.parse(String(row['units'])) as string[],
    ...keptChanges(String(row['changes'])),
    createdAt: iso(row['created_at'])!,
    changedAt: iso(row['changed_at'])!,
  }));
}

async function select(
  connection: Connection,
  table: 'conflict' | 'quarantine',
  { link, id, states, oldest = false }: RecordFilter,
): Promise<RowDataPacket[]> {
  const where = ['1=1'];
  if (link !== undefined) where.push(`link=${quote(link)}`);
  if (id !== undefined) where.push(`id=${id}`);
  if (states !== undefined) where.push(`state IN (${states.map(quote).join(',')})`);
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT * FROM interlock.${table} WHERE ${where.join(' AND ')} ORDER BY id ${oldest ? 'ASC' : 'DESC'} LIMIT ${MOST_RECORDS}`,
  );
  return oldest ? rows : rows.reverse();
}

function iso(value: unknown): string | null {
  return typeof value === 'string' ? `${value.replace(' ', 'T')}Z` : null;
}

/** What a record has of a transaction. */
export interface KeptAside {
  /** All of it: it can be applied without the stream. */
  whole: boolean;
  units: string[];
  /** As the record has them. */
  changes: string;
}

/**
 * @param unitOf null: the row is of no unit
 * @param packetBytes the largest message that the server takes
 */
export function keptAside(
  { changes, spool, bytes }: SourceTransaction,
  unitOf: (table: SourceTable, row: Literal[]) => string | null,
  packetBytes: number,
): KeptAside {
  const units = new Set<string>();
  addUnits(units, changes, unitOf);
  const takes = packetBytes * PACKET_SHARE.transaction;
  const most = Math.min(takes, spool === null ? QUARANTINE_BYTES : SHOWN_BYTES);
  const texts: string[] = [];
  let size = 0;
  for (const change of changes) {
    const text = JSON.stringify(stored(change));
    size += sentBytes(text);
    if (size > most) break;
    texts.push(text);
  }
  const whole = spool === null && texts.length === changes.length;
  const list = `[${(whole ? texts : upTo(Math.min(takes, SHOWN_BYTES), texts)).join(',')}]`;
  return {
    whole,
    units: [...units].sort(),
    changes: whole ? list : `{"largeBytes":${bytes},"first":${list}}`,
  };
}

/** @param unitOf null: the row is of no unit */
export function addUnits(
  units: Set<string>,
  changes: readonly RowChange[],
  unitOf: (table: SourceTable, row: Literal[]) => string | null,
): void {
  for (const { table, before, after } of changes) {
    for (const row of [before, after]) {
      const unit = row && unitOf(table, row);
      if (unit !== null) units.add(unit);
    }
  }
}

/** What is known of a large transaction when all of it has been kept. */
export function largeUpdate(
  link: string,
  gtid: string,
  { changes }: KeptAside,
  { units, tables, rows }: { units: ReadonlySet<string>; tables: ReadonlySet<string>; rows: number },
): string {
  const text = changes.replace('{', `{"largeRows":${rows},"tables":${JSON.stringify([...tables])},`);
  return `UPDATE interlock.quarantine SET units=${quote(JSON.stringify([...units].sort()))},changes=${quote(text)} WHERE link=${quote(link)} AND gtid=${quote(gtid)}`;
}

function upTo(most: number, texts: readonly string[]): string[] {
  let size = 0;
  return texts.filter((text) => (size += sentBytes(text)) <= most);
}

export function keptChanges(
  text: string,
): Pick<QuarantineRecord, 'changes' | 'largeBytes' | 'largeRows' | 'tables' | 'overtaken'> {
  const kept = JSON.parse(text) as StoredChange[] | LargeChanges;
  return Array.isArray(kept)
    ? { changes: kept, largeBytes: null, largeRows: null, tables: [], overtaken: false }
    : {
        changes: kept.first,
        largeBytes: kept.largeBytes,
        largeRows: kept.largeRows ?? null,
        tables: kept.tables ?? [],
        overtaken: kept.overtaken !== undefined,
      };
}

/** As the record has those of a transaction that is too large for it. */
interface LargeChanges {
  largeBytes: number;
  first: StoredChange[];
  /** The next two: when all of it was kept. */
  largeRows?: number;
  tables?: string[];
  /** See overtaken.ts. */
  overtaken?: 1;
}

function stored({ table, ...change }: RowChange): StoredChange {
  return { ...change, table: described(table) };
}

/** What of a table has to be known to read its rows again. */
export function described({
  schema,
  table,
  columns,
  primaryKey,
  types,
  lax,
}: SourceTable): StoredChange['table'] {
  return { schema, table, columns, primaryKey, types, lax };
}

/** Changes of one table share its description, as in the stream. */
export function restored(changes: readonly StoredChange[]): RowChange[] {
  const tables = new Map<string, SourceTable>();
  return changes.map(({ table, ...change }) => {
    const key = JSON.stringify([table.schema, table.table, table.columns]);
    let known = tables.get(key);
    if (known === undefined) tables.set(key, (known = restoredTable(table)));
    return { ...change, table: known };
  });
}

export function restoredTable(table: StoredChange['table']): SourceTable {
  const name = `${table.schema}.${table.table}`;
  const sql = `${identifier(table.schema)}.${identifier(table.table)}`;
  return { ...described(table as SourceTable), name, sql, decoders: [], carried: true, control: null };
}
