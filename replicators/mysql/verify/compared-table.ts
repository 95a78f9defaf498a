import type { RowFilter } from '../../../src/topology/schema.js';
import { rowCondition } from '../carried.js';
import type { CatalogTable } from '../catalog.js';
import { keyRange } from '../key-range.js';
import type { Literal } from '../literal.js';
import { comparedColumn, sameValue } from './columns.js';
import type { ComparedColumn, Value } from './columns.js';

/** One row, exact, in the order of the table's columns; `labels` are those of ENUM and SET columns, by column. */
export interface RowImage {
  values: Value[];
  labels: ReadonlyMap<number, string>;
}

/** Rows behind `after` (null: from the first) up to and with `upTo` (null: to the last), in key order. */
export interface KeyRange {
  after: readonly Literal[] | null;
  upTo: readonly Literal[] | null;
}

/**
 * The statements that compare a table. Both sides have the same definition (preflight's rule): a range of keys has the same meaning on both,
 * whatever the collation of the key is, as long as its bounds come from one of them.
 */
export class ComparedTable {
  readonly name: string;
  readonly columns: ComparedColumn[];
  readonly key: ComparedColumn[];
  readonly keyAt: number[];
  private readonly sql: string;
  private readonly order: string;
  private readonly rowHash: string;
  private readonly labelled: number[];
  private readonly kept: string[];

  /** @param rows those that are compared; all when absent */
  constructor(table: CatalogTable, rows?: RowFilter) {
    this.kept = rows === undefined ? [] : [rowCondition(rows)];
    this.name = table.name;
    // By name: the order of columns may differ between the sides.
    this.columns = [...table.columns.values()].map(comparedColumn).sort((a, b) => (a.name < b.name ? -1 : 1));
    const at = (name: string): number =>
      this.columns.findIndex((column) => column.name.toLowerCase() === name.toLowerCase());
    this.keyAt = table.primaryKey.map(at);
    this.key = this.keyAt.map((i) => this.columns[i]!);
    // Forced: statistics that are off would make a scan of every chunk.
    this.sql = `${table.sql} FORCE INDEX (PRIMARY)`;
    this.order = this.key.map(({ sql }) => sql).join(',');
    this.labelled = this.columns.flatMap(({ label }, i) => (label === null ? [] : [i]));
    // What a server computes is not carried: each side computes it from the other columns.
    const carried = this.columns.filter((column, i) => !column.generated || this.keyAt.includes(i));
    // Hazard: a CRC is linear, and values exchanged between two rows would leave the XOR of their sums as it was. MD5 is not.
    this.rowHash = `MD5(CONCAT_WS(',',${carried.map(({ hashed }) => hashed).join(',')}))`;
  }

  /** Count of the rows and the XOR of their hashes (64 bits): [count, checksum]. */
  checksum(range: KeyRange): string {
    const half = `CAST(CONV(LEFT(${this.rowHash},16),16,10) AS UNSIGNED)`;
    return `SELECT COUNT(*), CAST(BIT_XOR(${half}) AS CHAR) FROM ${this.sql}${this.where(range)}`;
  }

  /** The key of the `size`-th row of the range; no row when it has fewer. */
  boundary(range: KeyRange, size: number): string {
    return `SELECT ${this.keyList()} FROM ${this.sql}${this.where(range)} ORDER BY ${this.order} LIMIT ${size - 1},1`;
  }

  /** Key and hash of every row of the range. */
  hashes(range: KeyRange): string {
    return `SELECT ${this.keyList()},${this.rowHash} FROM ${this.sql}${this.where(range)}`;
  }

  /** The row of a key. `lock`: for share; where there is no row, nobody can insert one until the transaction ends (REPEATABLE READ). */
  row(key: readonly Literal[], lock: boolean): string {
    const list = [
      ...this.columns.map(({ exact }) => exact),
      ...this.labelled.map((i) => this.columns[i]!.label!),
    ];
    return `SELECT ${list.join(',')} FROM ${this.sql} WHERE ${this.isKey(key)}${lock ? ' LOCK IN SHARE MODE' : ''}`;
  }

  delete(key: readonly Literal[]): string {
    return `DELETE FROM ${this.sql.replace(/ FORCE INDEX .*$/, '')} WHERE ${this.isKey(key)}`;
  }

  insert(image: RowImage): string {
    const written = this.columns.flatMap((column, i) =>
      column.generated ? [] : [{ column, value: image.values[i]! }],
    );
    const names = written.map(({ column }) => column.sql).join(',');
    const values = written.map(({ column, value }) => column.literal(value)).join(',');
    return `INSERT INTO ${this.sql.replace(/ FORCE INDEX .*$/, '')} (${names}) VALUES (${values})`;
  }

  /** What `row` answered. */
  imageOf(cells: readonly Value[]): RowImage {
    const count = this.columns.length;
    const labels = new Map<number, string>();
    this.labelled.forEach((at, i) => {
      const label = cells[count + i];
      if (label !== null && label !== undefined) labels.set(at, String(label));
    });
    return { values: this.columns.map((column, i) => column.canonical(cells[i]!)), labels };
  }

  /** The literals of a key, from the first cells of `boundary` or `hashes`. */
  keyOf(cells: readonly Value[]): Literal[] {
    return this.key.map((column, i) => column.literal(column.canonical(cells[i]!)));
  }

  keyOfImage({ values }: RowImage): Literal[] {
    return this.keyAt.map((at) => this.columns[at]!.literal(values[at]!));
  }

  same(a: RowImage | null, b: RowImage | null): boolean {
    if (a === null || b === null) return a === b;
    return this.columns.every(
      ({ generated }, i) => (generated && !this.keyAt.includes(i)) || sameValue(a.values[i]!, b.values[i]!),
    );
  }

  show(image: RowImage): Record<string, string | null> {
    return Object.fromEntries(
      this.columns.map((column, i) => [column.name, image.labels.get(i) ?? column.show(image.values[i]!)]),
    );
  }

  showKey(image: RowImage): Record<string, string | null> {
    const shown = this.show(image);
    return Object.fromEntries(this.key.map(({ name }) => [name, shown[name]!]));
  }

  private keyList(): string {
    return this.key.map(({ exact }) => exact).join(',');
  }

  private isKey(key: readonly Literal[]): string {
    return this.key.map(({ sql }, i) => `${sql} = ${key[i]!}`).join(' AND ');
  }

  private where({ after, upTo }: KeyRange): string {
    const columns = this.key.map(({ sql }) => sql);
    const conditions = [...this.kept];
    if (after !== null) conditions.push(keyRange(columns, '>', after));
    if (upTo !== null) conditions.push(keyRange(columns, '<=', upTo));
    return conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`;
  }
}
