import { lex } from './lexer.js';
import type { Token } from './lexer.js';

/**
 * What a statement may do.
 *  read        changes nothing. `opaque`: it may call a stored function, which could write.
 *  write       changes rows; may run in a fenced transaction only.
 *  refused     may end the transaction under its handle, or change the session of a pooled connection.
 */
export type Statement =
  | { kind: 'read'; verb: string; opaque: boolean }
  | { kind: 'write'; verb: string }
  | { kind: 'refused'; verb: string; reason: string };

const COMMITS = 'it commits implicitly';
const CONTROL = 'the SDK begins and ends the transaction';
const SESSION = 'it changes the session of a pooled connection';

/** Verbs whose refusal deserves a better reason than "not known to be safe". */
const REASONS: Record<string, string> = {
  START: CONTROL,
  BEGIN: CONTROL,
  COMMIT: CONTROL,
  ROLLBACK: CONTROL,
  END: CONTROL,
  SET: `${SESSION} (only SET @variable is allowed)`,
  USE: SESSION,
  RESET: SESSION,
  XA: 'MariaDB gives the fence lock up at XA PREPARE',
  CALL: 'a procedure may commit; call it outside of fenced data, or put its statements here',
  EXECUTE: 'what a prepared statement does cannot be seen; use tx.execute(sql, values)',
  PREPARE: 'what a prepared statement does cannot be seen; use tx.execute(sql, values)',
  LOAD: 'LOAD DATA may commit per engine; use INSERT',
  LOCK: COMMITS,
  UNLOCK: COMMITS,
  CREATE: COMMITS,
  ALTER: COMMITS,
  DROP: COMMITS,
  RENAME: COMMITS,
  TRUNCATE: COMMITS,
  GRANT: COMMITS,
  REVOKE: COMMITS,
  ANALYZE: COMMITS,
  OPTIMIZE: COMMITS,
  REPAIR: COMMITS,
  CHECK: COMMITS,
  CACHE: COMMITS,
  FLUSH: COMMITS,
  INSTALL: COMMITS,
  UNINSTALL: COMMITS,
  IMPORT: COMMITS,
};

const ROW_SOURCES = new Set(['SELECT', 'TABLE', 'VALUES']);
const CHANGES = new Set(['INSERT', 'UPDATE', 'DELETE', 'REPLACE']);

/** Words that may stand before `(` and call nothing, and built-in functions without effects. Any other makes a read opaque. */
export const KNOWN_BEFORE_PARENTHESIS = new Set(
  (
    'ALL AND ANY AS BETWEEN BY CASE CROSS DISTINCT DIV ELSE EXCEPT EXISTS FROM GROUP HAVING IN INNER INTERSECT INTERVAL IS JOIN LATERAL LIKE ' +
    'LIMIT MOD NOT OFFSET ON OR ORDER OVER PARTITION RECURSIVE REGEXP RLIKE SELECT SOME STRAIGHT_JOIN THEN UNION USING VALUES WHEN WHERE ' +
    'WITH XOR ROW INDEX KEY ' +
    'BINARY CHAR DECIMAL NUMERIC FLOAT DOUBLE TIME DATETIME TIMESTAMP VARCHAR SIGNED UNSIGNED NCHAR YEAR ' +
    'COUNT SUM MIN MAX AVG STD STDDEV STDDEV_POP STDDEV_SAMP VAR_POP VAR_SAMP VARIANCE BIT_AND BIT_OR BIT_XOR GROUP_CONCAT ' +
    'ROW_NUMBER RANK DENSE_RANK PERCENT_RANK CUME_DIST NTILE LAG LEAD FIRST_VALUE LAST_VALUE NTH_VALUE GROUPING ANY_VALUE ' +
    'IF IFNULL NULLIF COALESCE GREATEST LEAST ISNULL FIELD ELT INTERVAL ' +
    'ABS CEIL CEILING FLOOR ROUND TRUNCATE SIGN SQRT POW POWER EXP LN LOG LOG2 LOG10 RAND CRC32 CONV HEX UNHEX OCT BIN ' +
    'CONCAT CONCAT_WS LENGTH CHAR_LENGTH CHARACTER_LENGTH OCTET_LENGTH BIT_LENGTH LOWER UPPER LCASE UCASE TRIM LTRIM RTRIM LPAD RPAD ' +
    'LEFT RIGHT SUBSTR SUBSTRING SUBSTRING_INDEX MID LOCATE POSITION INSTR REPLACE INSERT REPEAT REVERSE SPACE FORMAT ASCII ORD QUOTE ' +
    'STRCMP SOUNDEX FIND_IN_SET MAKE_SET EXPORT_SET REGEXP_LIKE REGEXP_REPLACE REGEXP_SUBSTR REGEXP_INSTR TO_BASE64 FROM_BASE64 ' +
    'NOW CURDATE CURTIME CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP LOCALTIME LOCALTIMESTAMP SYSDATE UTC_DATE UTC_TIME UTC_TIMESTAMP ' +
    'UNIX_TIMESTAMP FROM_UNIXTIME DATE DATE_ADD DATE_SUB ADDDATE SUBDATE ADDTIME SUBTIME DATEDIFF TIMEDIFF TIMESTAMPADD TIMESTAMPDIFF ' +
    'DATE_FORMAT STR_TO_DATE TIME_FORMAT EXTRACT DAY DAYNAME DAYOFMONTH DAYOFWEEK DAYOFYEAR HOUR MINUTE MONTH MONTHNAME QUARTER SECOND ' +
    'MICROSECOND WEEK WEEKDAY WEEKOFYEAR YEARWEEK LAST_DAY TO_DAYS FROM_DAYS TO_SECONDS SEC_TO_TIME TIME_TO_SEC MAKEDATE MAKETIME ' +
    'CAST CONVERT JSON_EXTRACT JSON_UNQUOTE JSON_VALUE JSON_OBJECT JSON_ARRAY JSON_ARRAYAGG JSON_OBJECTAGG JSON_CONTAINS ' +
    'JSON_CONTAINS_PATH JSON_KEYS JSON_LENGTH JSON_SEARCH JSON_SET JSON_INSERT JSON_REPLACE JSON_REMOVE JSON_TYPE JSON_VALID ' +
    'JSON_QUOTE JSON_DEPTH JSON_OVERLAPS JSON_TABLE JSON_PRETTY JSON_MERGE_PATCH JSON_MERGE_PRESERVE ' +
    'MD5 SHA SHA1 SHA2 UUID UUID_TO_BIN BIN_TO_UUID IS_UUID INET_ATON INET_NTOA INET6_ATON INET6_NTOA ' +
    'DATABASE SCHEMA USER CURRENT_USER SESSION_USER VERSION CONNECTION_ID LAST_INSERT_ID ROW_COUNT FOUND_ROWS CHARSET COLLATION COERCIBILITY'
  ).split(' '),
);

const CACHE_ENTRIES = 1_000;
const CACHED_CHARACTERS = 4_096;
const cache = new Map<string, Statement>();

/** What one SQL text may do. `backslash`: false under NO_BACKSLASH_ESCAPES. Pure; texts seen before are remembered. */
export function classify(sql: string, backslash = true): Statement {
  const key = backslash ? sql : `\0${sql}`;
  const known = cache.get(key);
  if (known !== undefined) return known;
  const statement = classifyInModes(sql, backslash);
  if (sql.length <= CACHED_CHARACTERS) {
    if (cache.size >= CACHE_ENTRIES) cache.delete(cache.keys().next().value!);
    cache.set(key, statement);
  }
  return statement;
}

/** The server does not say whether ANSI_QUOTES is on; where it matters (a backslash and a double quote), both readings must be harmless. */
function classifyInModes(sql: string, backslash: boolean): Statement {
  const statement = classifyText(sql, { backslash, ansiQuotes: false });
  if (statement.kind === 'refused' || !backslash || !(sql.includes('\\') && sql.includes('"')))
    return statement;
  const other = classifyText(sql, { backslash, ansiQuotes: true });
  if (other.kind === 'refused') return other;
  return statement.kind === 'read' && other.kind === 'write' ? other : statement;
}

function classifyText(sql: string, mode: { backslash: boolean; ansiQuotes: boolean }): Statement {
  const { tokens, problem } = lex(sql, mode);
  if (problem !== undefined) return { kind: 'refused', verb: 'the text', reason: `it has ${problem}` };
  while (tokens.at(-1)?.text === ';') tokens.pop();
  if (tokens.length === 0) return { kind: 'refused', verb: 'the text', reason: 'it is empty' };
  if (tokens.some((token) => token.kind === 'symbol' && token.text === ';')) {
    return { kind: 'refused', verb: 'the text', reason: 'it has several statements; send them one by one' };
  }
  return classifyTokens(tokens);
}

function classifyTokens(tokens: readonly Token[]): Statement {
  const start = tokens.findIndex((token) => token.text !== '(');
  const first = tokens[start];
  const verb = first?.kind === 'word' ? first.text : (first?.text ?? '(');
  if (first?.kind !== 'word') return refused(verb, tokens);
  const rest = tokens.slice(start + 1);
  switch (verb) {
    case 'SELECT':
    case 'TABLE':
    case 'VALUES':
      return rowSource(verb, tokens);
    case 'WITH': {
      const main = mainVerbOfWith(rest);
      if (main === undefined) return refused(verb, tokens);
      return CHANGES.has(main) ? { kind: 'write', verb: main } : rowSource(main, tokens);
    }
    case 'INSERT':
    case 'UPDATE':
    case 'DELETE':
    case 'REPLACE':
      return { kind: 'write', verb };
    case 'DO':
    case 'SAVEPOINT':
      return { kind: 'write', verb };
    case 'RELEASE':
      // RELEASE SAVEPOINT name; COMMIT … RELEASE does not begin with it.
      return is(rest[0], 'SAVEPOINT') ? { kind: 'write', verb: 'RELEASE SAVEPOINT' } : refused(verb, tokens);
    case 'ROLLBACK': {
      const to = is(rest[0], 'WORK') ? rest[1] : rest[0];
      return is(to, 'TO') ? { kind: 'write', verb: 'ROLLBACK TO SAVEPOINT' } : refused(verb, tokens);
    }
    case 'SET':
      return setsVariablesOnly(rest) ? { kind: 'write', verb: 'SET @variable' } : refused(verb, tokens);
    case 'SHOW':
    case 'HELP':
      return { kind: 'read', verb, opaque: false };
    case 'EXPLAIN':
    case 'DESCRIBE':
    case 'DESC': {
      const analyze = rest.findIndex((token) => is(token, 'ANALYZE'));
      // MySQL may carry out a derived table to explain it, with the functions that it calls.
      if (analyze < 0) return { kind: 'read', verb, opaque: true };
      // EXPLAIN ANALYZE executes its statement.
      const explained = rest.findIndex(
        (token) =>
          token.kind === 'word' &&
          (ROW_SOURCES.has(token.text) || CHANGES.has(token.text) || token.text === 'WITH'),
      );
      return explained < 0 ? refused(verb, tokens) : classifyTokens(rest.slice(explained));
    }
    default:
      return refused(verb, tokens);
  }
}

function refused(verb: string, tokens: readonly Token[]): Statement {
  const second = tokens[1]?.kind === 'word' ? ` ${tokens[1].text}` : '';
  const reason = Object.hasOwn(REASONS, verb)
    ? REASONS[verb]!
    : 'it is not known to leave the transaction alone';
  return { kind: 'refused', verb: verb + second, reason };
}

/** A statement that answers rows: a read, unless it locks, stores its result or draws from a sequence. */
function rowSource(verb: string, tokens: readonly Token[]): Statement {
  let opaque = false;
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i]!;
    const next = tokens[i + 1];
    if (token.kind === 'word') {
      if (token.text === 'INTO') return { kind: 'write', verb: `${verb} … INTO` };
      if (token.text === 'FOR' && (is(next, 'UPDATE') || is(next, 'SHARE'))) {
        return { kind: 'write', verb: `${verb} … FOR ${next!.text}` };
      }
      if (token.text === 'LOCK' && is(next, 'IN'))
        return { kind: 'write', verb: `${verb} … LOCK IN SHARE MODE` };
      if (token.text === 'VALUE' && is(next, 'FOR')) opaque = true;
    }
    if (next?.text === '(' && next.kind === 'symbol' && token.kind !== 'symbol' && token.kind !== 'string') {
      // Hazard: a stored function may write. A qualified or unknown name before a parenthesis may be one.
      const qualified = tokens[i - 1]?.text === '.';
      if (token.kind !== 'word' || qualified || !KNOWN_BEFORE_PARENTHESIS.has(token.text)) opaque = true;
    }
  }
  return { kind: 'read', verb, opaque };
}

/** The verb behind the common table expressions, which are all in parentheses. */
function mainVerbOfWith(tokens: readonly Token[]): string | undefined {
  let depth = 0;
  for (const token of tokens) {
    if (token.text === '(') depth++;
    else if (token.text === ')') depth--;
    else if (
      depth <= 0 &&
      token.kind === 'word' &&
      (ROW_SOURCES.has(token.text) || CHANGES.has(token.text))
    ) {
      return token.text;
    }
  }
  return undefined;
}

/** `SET @a = …, @b = …`: every assignment is to a user variable. */
function setsVariablesOnly(tokens: readonly Token[]): boolean {
  let depth = 0;
  let expectTarget = true;
  for (const token of tokens) {
    if (expectTarget) {
      if (token.text !== '@') return false;
      expectTarget = false;
    } else if (token.text === '(') depth++;
    else if (token.text === ')') depth--;
    else if (token.text === ',' && depth === 0) expectTarget = true;
  }
  return !expectTarget;
}

function is(token: Token | undefined, word: string): boolean {
  return token?.kind === 'word' && token.text === word;
}
