/** One lexical element of an SQL text. Comments are skipped, strings have no content. */
export interface Token {
  kind: 'word' | 'quoted-name' | 'string' | 'symbol';
  /** Upper case for words; the character (or `@@`, `:=`) for symbols. */
  text: string;
  /** Where it stands in the text; `end` is behind it. */
  start: number;
  end: number;
}

export type LexResult = { tokens: Token[]; problem?: undefined } | { tokens?: undefined; problem: string };

const WORD = /[A-Za-z0-9_$\u0080-\uffff]/;

/**
 * Splits SQL the way the servers' lexer does. `backslash`: whether a backslash escapes inside strings (not so under the SQL mode
 * NO_BACKSLASH_ESCAPES); `ansiQuotes`: whether "…" is a name, in which it never does. Executable comments (`/*! … *\/`, `/*M! … *\/`)
 * are a problem: what they do depends on the server.
 */
export function lex(sql: string, mode: { backslash: boolean; ansiQuotes: boolean }): LexResult {
  const tokens: Token[] = [];
  const length = sql.length;
  let at = 0;
  while (at < length) {
    const c = sql[at]!;
    if (c === ' ' || c === '\n' || c === '\t' || c === '\r' || c === '\f' || c === '\v') {
      at++;
    } else if (c === '#' || (c === '-' && sql[at + 1] === '-' && endsDashes(sql.charCodeAt(at + 2)))) {
      const end = sql.indexOf('\n', at);
      at = end < 0 ? length : end + 1;
    } else if (c === '/' && sql[at + 1] === '*') {
      if (sql[at + 2] === '!' || (sql[at + 2] === 'M' && sql[at + 3] === '!')) {
        return { problem: 'an executable comment (/*! … */)' };
      }
      const end = sql.indexOf('*/', at + 2);
      if (end < 0) return { problem: 'a comment that does not end' };
      at = end + 2;
    } else if (c === "'" || c === '"' || c === '`') {
      const name = c === '`' || (c === '"' && mode.ansiQuotes);
      const end = endOfQuoted(sql, at, c, mode.backslash && !name);
      if (end < 0) return { problem: `a quote (${c}) that does not end` };
      tokens.push({ kind: name ? 'quoted-name' : 'string', text: c, start: at, end });
      at = end;
    } else if (WORD.test(c)) {
      let end = at + 1;
      while (end < length && WORD.test(sql[end]!)) end++;
      tokens.push({ kind: 'word', text: sql.slice(at, end).toUpperCase(), start: at, end });
      at = end;
    } else if (c === '\0') {
      return { problem: 'a NUL character' };
    } else {
      const pair = sql.slice(at, at + 2);
      const text = pair === '@@' || pair === ':=' ? pair : c;
      tokens.push({ kind: 'symbol', text, start: at, end: at + text.length });
      at += text.length;
    }
  }
  return { tokens };
}

/** `--` begins a comment only before white space, a control character or the end. */
function endsDashes(code: number): boolean {
  return Number.isNaN(code) || code <= 0x20 || code === 0x7f;
}

/** The position behind the closing quote; -1 when there is none. */
function endOfQuoted(sql: string, start: number, quote: string, backslash: boolean): number {
  for (let at = start + 1; at < sql.length; at++) {
    const c = sql[at];
    if (c === '\\' && backslash) at++;
    else if (c === quote) {
      if (sql[at + 1] !== quote) return at + 1;
      at++;
    }
  }
  return -1;
}
