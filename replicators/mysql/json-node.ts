import { InterlockError } from '../../src/errors.js';
import { hex, quote } from './literal.js';
import type { Literal } from './literal.js';

/** `text`: JSON text. `sql`: an expression, for a document that has values JSON text cannot carry. */
export type Node = { text: string } | { sql: string };

export function nodeLiteral(node: Node): Literal {
  return 'text' in node ? quote(node.text) : node.sql;
}

export function objectNode(names: readonly string[], nodes: readonly Node[]): Node {
  if (nodes.every((node) => 'text' in node))
    return { text: `{${nodes.map(({ text }, i) => `${JSON.stringify(names[i])}: ${text}`).join(', ')}}` };
  return {
    sql: `JSON_OBJECT(${nodes.map((node, i) => `${quote(names[i]!)}, ${expressionOf(node)}`).join(', ')})`,
  };
}

export function arrayNode(nodes: readonly Node[]): Node {
  if (nodes.every((node) => 'text' in node)) return { text: `[${nodes.map(({ text }) => text).join(', ')}]` };
  return { sql: `JSON_ARRAY(${nodes.map(expressionOf).join(', ')})` };
}

function expressionOf(node: Node): string {
  return 'text' in node ? `CAST(${quote(node.text)} AS JSON)` : node.sql;
}

const EXACT = /^-?(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/;

/**
 * Hazard: MySQL's JSON parser (RapidJSON, without full precision) is off in the last bit for about every fifth double; a number of SQL is
 * read exactly. It is exact itself for a whole number up to 2^53, times or divided by a power of ten up to 10^22.
 */
export function doubleNode(value: number): Node {
  if (Object.is(value, -0)) return { text: '-0.0' };
  const text = String(value);
  const [, whole, fraction = '', exponent = '0'] = EXACT.exec(text)!;
  const power = Number(exponent) - fraction.length;
  if (Number(whole! + fraction) > 2 ** 53 || Math.abs(power) > 22)
    return { sql: `CAST(${text.includes('e') ? text : `${text}e0`} AS JSON)` };
  // A double that is integral would come back as an integer without its point.
  return {
    text: fraction === '' && exponent === '0' ? (whole!.length < 15 ? `${text}.0` : `${text}e0`) : text,
  };
}

export function decimalNode(digits: string, precision: number, scale: number): Node {
  return { sql: `CAST(CAST(${digits} AS DECIMAL(${precision},${scale})) AS JSON)` };
}

export type TimeType = 'DATE' | 'TIME' | 'DATETIME' | 'TIMESTAMP';

export function timeNode(type: TimeType, text: string): Node {
  if (type === 'TIMESTAMP') return { sql: ofColumn('TIMESTAMP(6)', quote(`["${text}"]`)) };
  return { sql: `CAST(CAST(${quote(text)} AS ${type}${type === 'DATE' ? '' : '(6)'}) AS JSON)` };
}

/** @param type of the column that it came from, as on the wire */
export function bytesNode(type: number, bytes: Buffer): Node {
  switch (type) {
    case 16:
      return {
        sql: ofColumn(`BIT(${bytes.length * 8})`, `'[${BigInt(`0x${bytes.toString('hex') || '0'}`)}]'`),
      };
    // The server gives a binary string in JSON the type of its expression. No expression has the type of a TINYBLOB, MEDIUMBLOB, LONGBLOB or
    // BINARY column: their bytes are carried, as a BLOB's or VARBINARY's.
    case 249:
    case 250:
    case 251:
    case 252:
      return { sql: ofColumn('BLOB', `'[null]'`, `COALESCE(c,${hex(bytes)})`) };
    case 15:
    case 253:
    case 254:
      // Not `hex`: an empty string that is not binary would be read as a document.
      return { sql: `CAST(x'${bytes.toString('hex')}' AS JSON)` };
    default:
      throw new InterlockError('LinkStopped', `a JSON value holds the type ${type}, which cannot be carried`);
  }
}

/** A JSON value of a column's type, which no literal has. */
function ofColumn(type: string, json: string, value = 'c'): string {
  return `(SELECT CAST(${value} AS JSON) FROM JSON_TABLE(${json},'$[*]' COLUMNS(c ${type} PATH '$')) t)`;
}
