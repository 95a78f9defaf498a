import { lex } from './lexer.js';
import type { Token } from './lexer.js';
import { KNOWN_BEFORE_PARENTHESIS } from './statement.js';

export interface TableName {
  /** Undefined: the connection's. */
  schema: string | undefined;
  table: string;
}

const MODIFIERS = new Set(['LOW_PRIORITY', 'HIGH_PRIORITY', 'IGNORE', 'QUICK', 'INTO', 'FROM']);
/** What may follow the table's name, by verb. */
const FOLLOWERS: Record<string, ReadonlySet<string>> = {
  INSERT: new Set(['(', 'VALUES', 'VALUE', 'SET']),
  REPLACE: new Set(['(', 'VALUES', 'VALUE', 'SET']),
  UPDATE: new Set(['SET']),
  DELETE: new Set(['WHERE', 'ORDER', 'LIMIT', '']),
};
/** Words of another row source or another table: then it is not a plain write. */
const ELSEWHERE = new Set(['SELECT', 'TABLE', 'WITH', 'JOIN', 'USING', 'PARTITION']);

/**
 * The one table that a plain INSERT, REPLACE, UPDATE or DELETE writes, in the letters of the text. Undefined when that is not plain to see: several
 * tables, an alias, a query in it, a call of a function that is not built in, a text that reads otherwise in another SQL mode.
 */
export function writeTarget(sql: string, backslash: boolean): TableName | undefined {
  // A double quote begins a string or a name, by the server's mode; inside a name a backslash is none.
  if (sql.includes('"')) return undefined;
  const { tokens } = lex(sql, { backslash, ansiQuotes: false });
  if (tokens === undefined) return undefined;
  while (tokens.at(-1)?.text === ';') tokens.pop();
  const verb = tokens[0]?.kind === 'word' ? tokens[0].text : '';
  const followers = Object.hasOwn(FOLLOWERS, verb) ? FOLLOWERS[verb]! : undefined;
  if (followers === undefined) return undefined;
  let at = 1;
  while (isModifier(tokens[at])) at++;
  const first = nameOf(tokens[at], sql);
  if (first === undefined) return undefined;
  const dotted = tokens[at + 1]?.text === '.';
  const second = dotted ? nameOf(tokens[at + 2], sql) : undefined;
  if (dotted && second === undefined) return undefined;
  at += dotted ? 3 : 1;
  const next = tokens[at];
  if (next?.kind === 'string' || next?.kind === 'quoted-name' || !followers.has(next?.text ?? ''))
    return undefined;
  for (let i = at; i < tokens.length; i++) {
    const token = tokens[i]!;
    if (token.kind === 'word' && ELSEWHERE.has(token.text)) return undefined;
    // A stored function may write any table.
    if (i > at && token.text === '(' && token.kind === 'symbol' && mayCall(tokens, i - 1)) return undefined;
  }
  return second === undefined ? { schema: undefined, table: first } : { schema: first, table: second };
}

function isModifier(token: Token | undefined): boolean {
  return token?.kind === 'word' && MODIFIERS.has(token.text);
}

function nameOf(token: Token | undefined, sql: string): string | undefined {
  if (token?.kind === 'quoted-name') return sql.slice(token.start + 1, token.end - 1).replaceAll('``', '`');
  return token?.kind === 'word' ? sql.slice(token.start, token.end) : undefined;
}

function mayCall(tokens: readonly Token[], before: number): boolean {
  const token = tokens[before]!;
  if (token.kind === 'quoted-name') return true;
  if (token.kind !== 'word') return false;
  return tokens[before - 1]?.text === '.' || !KNOWN_BEFORE_PARENTHESIS.has(token.text);
}
