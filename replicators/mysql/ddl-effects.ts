/** What a statement does to rows that no row event shows. */
export interface RowEffect {
  schema: string;
  /** Null: every table of the schema. */
  table: string | null;
  /**
   * `emptied`: the rows are gone, of the whole table or of `partitions`. `dropped`: the `partitions` are gone, with their rows.
   * `unseen`: other rows than before, and the target cannot be asked whether they are there.
   */
  how: 'emptied' | 'dropped' | 'unseen';
  partitions?: string[];
}

export interface Token {
  text: string;
  /** In upper case; empty for a quoted name, which is no keyword. */
  word: string;
  /** Where it is in the statement. */
  from: number;
  to: number;
}

const OBJECTS = new Set(
  'USER ROLE SERVER FUNCTION PROCEDURE EVENT VIEW SEQUENCE PACKAGE TEMPORARY TABLESPACE RESOURCE'.split(' '),
);
const HARMLESS = new Set('GRANT REVOKE FLUSH ANALYZE OPTIMIZE REPAIR SET'.split(' '));

/** Whether a statement is on accounts, statistics or stored programs: no table of a link changes. */
export function isIrrelevant(statement: string): boolean {
  const reader = new Reader(statement);
  const first = reader.word;
  if (first === '' || HARMLESS.has(first)) return true;
  if (!reader.skip('CREATE') && !reader.skip('ALTER') && !reader.skip('DROP') && !reader.skip('RENAME'))
    return false;
  if (reader.skip('OR')) reader.skip('REPLACE');
  if (reader.skip('DEFINER')) {
    reader.skip('=');
    reader.take();
    if (reader.skip('@')) reader.take();
  }
  return OBJECTS.has(reader.word);
}

/**
 * @param defaultSchema of names without one
 * @returns the tables, carried or not, whose rows the statement removes or replaces
 */
export function rowEffects(statement: string, defaultSchema: string): RowEffect[] {
  const reader = new Reader(statement);
  const names = (): { schema: string; table: string }[] => {
    const found = [reader.name(defaultSchema)];
    while (reader.skip(',')) found.push(reader.name(defaultSchema));
    return found;
  };
  if (reader.skip('TRUNCATE')) {
    reader.skip('TABLE');
    return names().map((name) => ({ ...name, how: 'emptied' }));
  }
  if (reader.skip('DROP')) {
    if (reader.skip('DATABASE') || reader.skip('SCHEMA')) {
      reader.skip('IF', 'EXISTS');
      return [{ schema: reader.take(), table: null, how: 'emptied' }];
    }
    if (!reader.skip('TABLE') && !reader.skip('TABLES')) return [];
    reader.skip('IF', 'EXISTS');
    return names().map((name) => ({ ...name, how: 'emptied' }));
  }
  if (reader.skip('CREATE', 'OR', 'REPLACE')) {
    if (!reader.skip('TABLE')) return [];
    return [{ ...reader.name(defaultSchema), how: 'emptied' }];
  }
  if (reader.skip('RENAME')) {
    if (!reader.skip('TABLE') && !reader.skip('TABLES')) return [];
    reader.skip('IF', 'EXISTS');
    const renamed: RowEffect[] = [];
    do {
      renamed.push({ ...reader.name(defaultSchema), how: 'unseen' });
      reader.wait();
      reader.skip('TO');
      renamed.push({ ...reader.name(defaultSchema), how: 'unseen' });
    } while (reader.skip(','));
    return renamed;
  }
  return reader.skip('ALTER') ? alterEffects(reader, defaultSchema) : [];
}

function alterEffects(reader: Reader, defaultSchema: string): RowEffect[] {
  reader.skip('ONLINE');
  // MariaDB: rows that a new unique key does not allow are removed.
  const ignore = reader.skip('IGNORE');
  if (!reader.skip('TABLE')) return [];
  reader.skip('IF', 'EXISTS');
  const name = reader.name(defaultSchema);
  reader.wait();
  const effects: RowEffect[] = ignore ? [{ ...name, how: 'unseen' }] : [];
  do {
    if (reader.skip('TRUNCATE', 'PARTITION')) {
      const partitions = reader.partitions();
      effects.push({ ...name, how: 'emptied', ...(partitions.length > 0 && { partitions }) });
    } else if (reader.skip('DROP', 'PARTITION')) {
      reader.skip('IF', 'EXISTS');
      effects.push({ ...name, how: 'dropped', partitions: reader.partitions() });
    } else if (reader.skip('EXCHANGE', 'PARTITION')) {
      effects.push({ ...name, how: 'unseen' });
      reader.take();
      if (reader.skip('WITH', 'TABLE')) effects.push({ ...reader.name(defaultSchema), how: 'unseen' });
    } else if (reader.skip('CONVERT', 'PARTITION')) {
      effects.push({ ...name, how: 'unseen' });
      reader.take();
      if (reader.skip('TO', 'TABLE')) effects.push({ ...reader.name(defaultSchema), how: 'unseen' });
    } else if (reader.skip('CONVERT', 'TABLE')) {
      effects.push({ ...name, how: 'unseen' }, { ...reader.name(defaultSchema), how: 'unseen' });
    } else if (
      ['DISCARD', 'IMPORT'].some((verb) => reader.skip(verb, 'TABLESPACE') || reader.skip(verb, 'PARTITION'))
    ) {
      effects.push({ ...name, how: 'unseen' });
    } else if (reader.skip('RENAME')) {
      if (['COLUMN', 'INDEX', 'KEY'].includes(reader.word)) continue;
      for (const word of ['TO', 'AS', '=']) if (reader.skip(word)) break;
      effects.push({ ...name, how: 'unseen' }, { ...reader.name(defaultSchema), how: 'unseen' });
    }
  } while (reader.nextClause());
  return effects;
}

/** Reads a statement word by word; comments are left out, but for those that the server runs. */
class Reader {
  private readonly tokens: Token[];
  private at = 0;

  constructor(statement: string) {
    this.tokens = tokensOf(statement);
    // MariaDB: `SET STATEMENT variable=value FOR …` is the statement behind it.
    if (this.skip('SET', 'STATEMENT')) while (this.at < this.tokens.length && !this.skip('FOR')) this.at++;
  }

  /** The next keyword; empty at the end, and for a quoted name. */
  get word(): string {
    return this.tokens[this.at]?.word ?? '';
  }

  /** Passes these words when they come next, all of them. */
  skip(...words: string[]): boolean {
    if (!words.every((word, i) => this.tokens[this.at + i]?.word === word)) return false;
    this.at += words.length;
    return true;
  }

  take(): string {
    return this.tokens[this.at++]?.text ?? '';
  }

  name(defaultSchema: string): { schema: string; table: string } {
    const first = this.take();
    return this.skip('.') ? { schema: first, table: this.take() } : { schema: defaultSchema, table: first };
  }

  /** MariaDB: how long to wait for the table. */
  wait(): void {
    if (this.skip('WAIT')) this.take();
    else this.skip('NOWAIT');
  }

  /** The partitions that are listed; none for ALL. */
  partitions(): string[] {
    if (this.skip('ALL')) return [];
    const found = [this.take()];
    while (this.skip(',')) found.push(this.take());
    return found;
  }

  /** Goes behind the next comma that is not in parentheses. */
  nextClause(): boolean {
    let depth = 0;
    while (this.at < this.tokens.length) {
      const { word } = this.tokens[this.at++]!;
      if (word === '(') depth++;
      else if (word === ')') depth--;
      else if (word === ',' && depth === 0) return true;
    }
    return false;
  }
}

const TOKEN =
  /(?<comment>\/\*(?!M?!)[\s\S]*?\*\/|--(?=\s|$)[^\n]*|#[^\n]*|\/\*M?!\d*|\*\/)|`(?<name>(?:[^`]|``)*)`|"(?<double>(?:[^"\\]|""|\\[\s\S])*)"|(?<text>'(?:[^'\\]|''|\\[\s\S])*')|(?<word>[\w$\u0080-\uffff]+)|(?<sign>\S)/g;

export function tokensOf(statement: string): Token[] {
  const tokens: Token[] = [];
  for (const { groups, index, 0: whole } of statement.matchAll(TOKEN)) {
    const { comment, name, double, text, word, sign } = groups!;
    if (comment !== undefined) continue;
    const at = { from: index, to: index + whole.length };
    if (name !== undefined) tokens.push({ text: name.replaceAll('``', '`'), word: '', ...at });
    else if (double !== undefined) tokens.push({ text: double.replaceAll('""', '"'), word: '', ...at });
    else if (text !== undefined) tokens.push({ text, word: '', ...at });
    else tokens.push({ text: (word ?? sign)!, word: (word ?? sign)!.toUpperCase(), ...at });
  }
  return tokens;
}

const COMMENT = /^(?:\s+|\/\*(?!M?!)[\s\S]*?\*\/|--\s[^\n]*(?:\n|$)|#[^\n]*(?:\n|$))+/;

/** Data that was changed by a statement in the stream, and not by row events: nobody can tell from it which rows. */
export function changesRows(statement: string): boolean {
  const text = statement.replace(COMMENT, '').replace(/^\/\*M?!\d*\s*/, '');
  return /^(INSERT|UPDATE|DELETE|REPLACE|LOAD|CALL|WITH|DO|EXECUTE|IMPORT|SET\s+STATEMENT)\b/i.test(text);
}

/** Every `a.b` in it: tables with their schema, and columns with their table or its alias. */
export function qualifiedNames(statement: string): { schema: string; table: string }[] {
  const tokens = tokensOf(statement);
  return tokens.flatMap(({ text }, i) =>
    text === '.' && i > 0 && i + 1 < tokens.length
      ? [{ schema: tokens[i - 1]!.text, table: tokens[i + 1]!.text }]
      : [],
  );
}
