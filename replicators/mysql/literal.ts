import { InterlockError } from '../../src/errors.js';

/**
 * Row values travel as SQL literals: text that, sent back to a server of the same flavour in a session with
 * `time_zone = '+00:00'` and character set utf8mb4, stores exactly the bytes that the source stored.
 */
export type Literal = string;

export const NULL: Literal = 'NULL';

/** Character sets whose text is quoted as it is; any other goes as its own bytes. */
export const UTF8: ReadonlySet<string> = new Set(['utf8mb4', 'utf8mb3', 'utf8', 'ascii']);

const SPECIAL = /[\0\\'\x1a]/;
const SPECIALS = /[\0\\'\x1a]/g;
const ESCAPED: Record<string, string> = { '\0': '\\0', '\\': '\\\\', "'": "\\'", '\x1a': '\\Z' };

export function quote(text: string): Literal {
  return SPECIAL.test(text) ? `'${text.replace(SPECIALS, (c) => ESCAPED[c]!)}'` : `'${text}'`;
}

export function hex(bytes: Buffer): Literal {
  return bytes.length === 0 ? "''" : `x'${bytes.toString('hex')}'`;
}

/** Text of a character set of `UTF8`. */
export function utf8Literal(charset: string, buffer: Buffer, from = 0, end = buffer.length): Literal {
  const text = buffer.toString('utf8', from, end);
  // Hazard: the servers store some sequences (surrogates) that are no UTF-8 for Node, which replaces them.
  return text.includes('\ufffd') ? bytesLiteral(charset, buffer, from, end) : quote(text);
}

/** Text of any character set, as its own bytes: no conversion can lose one. */
export function bytesLiteral(charset: string, buffer: Buffer, from = 0, end = buffer.length): Literal {
  return from === end ? "''" : `_${charset} x'${buffer.toString('hex', from, end)}'`;
}

export function identifier(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}

const HEX = /^(?:_\w+ )?x'/;

/** The bytes of a text or binary string, text of `UTF8` as UTF-8; null for any other literal. */
export function bytesOf(literal: Literal): Buffer | null {
  const hexed = HEX.exec(literal);
  if (hexed !== null) return Buffer.from(literal.slice(hexed[0].length, -1), 'hex');
  return literal.startsWith("'") ? Buffer.from(textOf(literal)!) : null;
}

/** The value of a number or quoted-text literal as text; null for NULL. */
export function textOf(literal: Literal): string | null {
  if (literal === NULL) return null;
  if (!literal.startsWith("'")) {
    if (/^[-0-9.e+]+$/.test(literal)) return literal;
    throw new InterlockError('Internal', `${literal.slice(0, 40)} is not a number or text`);
  }
  const inner = literal.slice(1, -1);
  if (!inner.includes('\\')) return inner;
  return inner.replace(/\\(.)/gs, (_all, c: string) => (c === '0' ? '\0' : c === 'Z' ? '\x1a' : c));
}
