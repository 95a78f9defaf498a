import type { RowNet, TableBatch } from './batch.js';
import type { Literal } from './literal.js';
import { TooLarge } from './target-errors.js';

/**
 * How what is written to a server is cut, so that no message is above its max_allowed_packet. Lengths are of text in characters, of which each may
 * be three bytes.
 */
export interface Cut {
  packetBytes: number;
  /**
   * A statement, or several in one message, up to this length go as they are. Hazard: binary values travel as hex, twice their size, and a server
   * takes no packet above max_allowed_packet (16 MB on MariaDB by default), although it can hold a row of that size.
   */
  statement: number;
  /** The values of a statement of many rows. */
  rows: number;
  /** A value up to this length stays in its statement. */
  small: number;
  /** A piece of a large value: in hexadecimal digits, and in characters of text. */
  hex: number;
  text: number;
}

export function cutFor(packetBytes: number): Cut {
  const statement = Math.min(4 * 1024 * 1024, Math.floor(packetBytes / 4));
  return {
    packetBytes,
    statement,
    rows: statement / 8,
    small: statement / 16,
    // Two digits are a byte.
    hex: 2 * Math.floor(statement),
    text: Math.floor(statement / 2),
  };
}

/** A large value, in a user variable of the target's session. */
export interface Variable {
  name: string;
  bytes: number;
}

/**
 * The rows with user variables in the place of their large new values, and the statements that fill the variables piece by piece.
 * A value that is an expression (JSON with dates, for instance) stays as it is.
 * @throws TooLarge: the target can put no such value together
 */
export function outOfLine(
  table: TableBatch,
  rows: readonly RowNet[],
  cut: Cut,
): { rows: RowNet[]; pieces: string[]; variables: Variable[] } {
  const pieces: string[] = [];
  const variables: Variable[] = [];
  // What stays of one row has to fit, however many columns it has.
  const small = Math.min(cut.small, cut.statement / 2 / table.source.columns.length);
  const short = rows.map((row) => ({
    ...row,
    after:
      row.after?.map((value, i) => {
        // A value that stays has to stay recognisable.
        if (value.length <= small || value === row.before?.[i]) return value;
        const parts = partsOf(value, cut);
        if (parts === null) return value;
        const { bytes } = parts;
        // Hazard: above it CONCAT answers NULL, which would be stored.
        if (bytes > cut.packetBytes)
          throw new TooLarge(table, `${table.source.columns[i]} of key (${row.key})`, bytes, cut.packetBytes);
        const name = `@interlock_${variables.length}`;
        variables.push({ name, bytes });
        for (const [n, part] of parts.pieces.entries()) {
          pieces.push(n === 0 ? `SET ${name}=${part}` : `SET ${name}=CONCAT(${name},${part})`);
        }
        return parts.charset === null ? name : `CONVERT(${name} USING ${parts.charset})`;
      }) ?? null,
  }));
  return { rows: short, pieces, variables };
}

/** Fails (a subquery of two rows) when a value has not come together as it is at the source: nothing else would say so. */
export function requireWhole(variables: readonly Variable[]): string {
  const whole = variables.map(({ name, bytes }) => `COALESCE(LENGTH(${name}),-1)=${bytes}`).join(' AND ');
  return `SET @interlock_whole=IF(${whole},1,(SELECT 1 UNION ALL SELECT 1))`;
}

const HEX = /^(?:_(\w+) )?x'/;

function partsOf(
  value: Literal,
  cut: Cut,
): { pieces: Literal[]; charset: string | null; bytes: number } | null {
  const hex = HEX.exec(value);
  if (hex !== null) {
    const pieces: string[] = [];
    const start = hex[0].length;
    const end = value.length - 1;
    for (let at = start; at < end; at += cut.hex)
      pieces.push(`x'${value.slice(at, Math.min(at + cut.hex, end))}'`);
    // Bytes first, their character set at the end: a piece may end inside a character.
    return { pieces, charset: hex[1] ?? null, bytes: (end - start) / 2 };
  }
  if (!value.startsWith("'")) return null;
  const pieces: string[] = [];
  const end = value.length - 1;
  for (let at = 1; at < end;) {
    let to = Math.min(at + cut.text, end);
    if (to < end) to = wholeCharacter(value, to);
    pieces.push(`'${value.slice(at, to)}'`);
    at = to;
  }
  return { pieces, charset: null, bytes: Buffer.byteLength(value) - 2 - escapes(value) };
}

/** How many there are in quoted text; each is one byte more than what it stands for. */
function escapes(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\\'); at >= 0; at = text.indexOf('\\', at + 2)) count++;
  return count;
}

/** The next index that splits no escape and no pair of surrogates. */
function wholeCharacter(text: string, at: number): number {
  let backslashes = 0;
  while (text[at - 1 - backslashes] === '\\') backslashes++;
  if (backslashes % 2 === 1) return at + 1;
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code < 0xe000 ? at + 1 : at;
}
