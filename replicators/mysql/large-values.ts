import type { RowNet } from './batch.js';
import type { Literal } from './literal.js';

/**
 * A statement up to this many characters goes as it is. Hazard: binary values travel as hex, twice their size, and a server takes no packet
 * above max_allowed_packet (16 MB on MariaDB by default), although it can hold a row of that size.
 */
export const LARGE_TEXT = 4 * 1024 * 1024;
/** In hexadecimal digits, and in characters of text, which may be four bytes each. */
const PIECE = { hex: 8 * 1024 * 1024, text: 2 * 1024 * 1024 };
const SMALL_VALUE = 256 * 1024;

/**
 * The rows with user variables in the place of their large new values, and the statements that fill the variables piece by piece.
 * A value that is an expression (JSON with dates, for instance) stays as it is.
 */
export function outOfLine(rows: readonly RowNet[]): { rows: RowNet[]; pieces: string[]; names: string[] } {
  const pieces: string[] = [];
  const names: string[] = [];
  const short = rows.map((row) => ({
    ...row,
    after:
      row.after?.map((value, i) => {
        // A value that stays has to stay recognisable.
        if (value.length <= SMALL_VALUE || value === row.before?.[i]) return value;
        const parts = partsOf(value);
        if (parts === null) return value;
        const name = `@interlock_${names.length}`;
        names.push(name);
        for (const [n, part] of parts.pieces.entries()) {
          pieces.push(n === 0 ? `SET ${name}=${part}` : `SET ${name}=CONCAT(${name},${part})`);
        }
        return parts.charset === null ? name : `CONVERT(${name} USING ${parts.charset})`;
      }) ?? null,
  }));
  return { rows: short, pieces, names };
}

const HEX = /^(?:_(\w+) )?x'/;

function partsOf(value: Literal): { pieces: Literal[]; charset: string | null } | null {
  const hex = HEX.exec(value);
  if (hex !== null) {
    const pieces: string[] = [];
    const end = value.length - 1;
    for (let at = hex[0].length; at < end; at += PIECE.hex)
      pieces.push(`x'${value.slice(at, Math.min(at + PIECE.hex, end))}'`);
    // Bytes first, their character set at the end: a piece may end inside a character.
    return { pieces, charset: hex[1] ?? null };
  }
  if (!value.startsWith("'")) return null;
  const pieces: string[] = [];
  const end = value.length - 1;
  for (let at = 1; at < end;) {
    let to = Math.min(at + PIECE.text, end);
    if (to < end) to = wholeCharacter(value, to);
    pieces.push(`'${value.slice(at, to)}'`);
    at = to;
  }
  return { pieces, charset: null };
}

/** The next index that splits no escape and no pair of surrogates. */
function wholeCharacter(text: string, at: number): number {
  let backslashes = 0;
  while (text[at - 1 - backslashes] === '\\') backslashes++;
  if (backslashes % 2 === 1) return at + 1;
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code < 0xe000 ? at + 1 : at;
}
