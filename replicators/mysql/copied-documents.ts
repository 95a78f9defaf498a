import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { CatalogTable } from './catalog.js';
import { keyValues } from './chunk-reader.js';
import type { ReadableTable } from './chunk-reader.js';
import { nodeLiteral } from './json-node.js';
import { MAY_BE_ANOTHER, jsonTree, questionsOf, typedNode } from './json-text.js';
import type { JsonQuestion, JsonTree } from './json-text.js';
import { keyRange } from './key-range.js';
import { NULL, identifier, quote, textOf } from './literal.js';
import type { Literal } from './literal.js';

const QUESTIONS_PER_SELECT = 200;
const TEXT_PER_QUERY = 1024 * 1024;

interface Document {
  row: Literal[];
  at: number;
  tree: JsonTree;
  answers: Map<string, string | string[]>;
}

/**
 * The documents of a chunk whose text, read again, would be of other types: as literals that store what the source has. The text of a document
 * does not say what is a decimal, a date or a binary string, so the source is asked, of those that may have one.
 *
 * Hazard: a row that is changed meanwhile is asked for what it was. Its change lies between the chunk's watermarks: the row is left to the stream.
 * @param rows as `readRows` gave them: all of the keys from the first to the last one
 * @returns by row, a literal for each column that needs one
 */
export async function exactDocuments(
  connection: Connection,
  table: CatalogTable,
  shape: ReadableTable,
  rows: readonly Literal[][],
): Promise<Map<Literal[], Map<number, Literal>>> {
  const exact = new Map<Literal[], Map<number, Literal>>();
  const columns = shape.source.columns.flatMap((name, at) =>
    table.columns.get(name)?.dataType === 'json' && table.columns.get(name)?.generated === false ? [at] : [],
  );
  if (columns.length === 0 || rows.length === 0) return exact;
  const otherSize = await ofOtherSize(connection, table, shape, rows, columns);
  const documents: Document[] = [];
  for (const row of rows) {
    for (const at of columns) {
      const text = row[at] === NULL ? null : textOf(row[at]!);
      if (text === null || !(MAY_BE_ANOTHER.test(text) || otherSize.has(keyOf(shape, row)))) continue;
      documents.push({ row, at, tree: jsonTree(text), answers: new Map() });
    }
  }
  await ask(connection, table, shape, documents);
  for (const { row, at, tree, answers } of documents) {
    const literal = nodeLiteral(typedNode(tree, answers));
    if (literal === row[at]) continue;
    let known = exact.get(row);
    if (known === undefined) exact.set(row, (known = new Map<number, Literal>()));
    known.set(at, literal);
  }
  return exact;
}

function keyOf(shape: ReadableTable, row: Literal[]): string {
  return keyValues(shape, row).join(',');
}

/** Keys of rows that have a document which takes another size than its text, read again, would. */
async function ofOtherSize(
  connection: Connection,
  table: CatalogTable,
  shape: ReadableTable,
  rows: readonly Literal[][],
  columns: readonly number[],
): Promise<Set<string>> {
  const key = shape.key.map(identifier);
  const [first, last] = [keyValues(shape, rows[0]!), keyValues(shape, rows.at(-1)!)];
  const size = columns
    .map((at) => identifier(shape.source.columns[at]!))
    .map((name) => `JSON_STORAGE_SIZE(${name})<>JSON_STORAGE_SIZE(CAST(CAST(${name} AS CHAR) AS JSON))`);
  const range = [
    `(${key.map((name, i) => `${name}=${first[i]!}`).join(' AND ')} OR ${keyRange(key, '>', first)})`,
    keyRange(key, '<=', last),
  ];
  const [found] = await connection.query<RowDataPacket[]>({
    sql: `SELECT ${shape.select} FROM ${table.sql} WHERE ${range.join(' AND ')} AND (${size.join(' OR ')})`,
    rowsAsArray: true,
    typeCast: false,
  });
  const keys = new Set<string>();
  for (const values of found as unknown as (Buffer | null)[][]) {
    const row = values.map((bytes, i) => (bytes === null ? NULL : shape.literals[i]!(bytes)));
    keys.add(keyOf(shape, row));
  }
  return keys;
}

async function ask(
  connection: Connection,
  table: CatalogTable,
  shape: ReadableTable,
  documents: readonly Document[],
): Promise<void> {
  let asked: { document: Document; questions: JsonQuestion[] }[] = [];
  let selects: string[] = [];
  let size = 0;
  const send = async (): Promise<void> => {
    if (selects.length === 0) return;
    const [answers] = await connection.query<RowDataPacket[]>({
      sql: selects.join(' UNION ALL '),
      rowsAsArray: true,
      typeCast: false,
    });
    for (const [n, types] of answers as unknown as (Buffer | null)[][]) {
      if (types == null) continue;
      const { document, questions } = asked[Number(n!.toString('latin1'))]!;
      const found = JSON.parse(types.toString('utf8')) as (string | Record<string, string> | null)[];
      questions.forEach(({ path, elements }, i) => {
        const type = found[i];
        if (type == null) return;
        document.answers.set(path, elements ? inOrder(type as Record<string, string>) : (type as string));
      });
    }
    asked = [];
    selects = [];
    size = 0;
  };
  for (const document of documents) {
    const { row, at, tree } = document;
    const column = identifier(shape.source.columns[at]!);
    const where = shape.source.primaryKey
      .map((i) => `${identifier(shape.source.columns[i]!)}=${row[i]!}`)
      .join(' AND ');
    const all = questionsOf(tree);
    for (let from = 0; from < all.length; from += QUESTIONS_PER_SELECT) {
      const questions = all.slice(from, from + QUESTIONS_PER_SELECT);
      const types = questions.map(({ path, elements }) => typesAt(column, path, elements));
      const select = `SELECT ${asked.length},JSON_ARRAY(${types.join(',')}) FROM ${table.sql} WHERE ${where}`;
      asked.push({ document, questions });
      selects.push(select);
      size += select.length;
      if (size >= TEXT_PER_QUERY) await send();
    }
  }
  await send();
}

function typesAt(column: string, path: string, elements: boolean): string {
  if (!elements) return `JSON_TYPE(JSON_EXTRACT(${column},${quote(path)}))`;
  const each = quote(`${path}[*]`);
  return `(SELECT JSON_OBJECTAGG(n,JSON_TYPE(j)) FROM JSON_TABLE(${column},${each} COLUMNS(n FOR ORDINALITY,j JSON PATH '$')) e)`;
}

function inOrder(types: Record<string, string>): string[] {
  return Object.keys(types).map((_name, i) => types[String(i + 1)]!);
}
