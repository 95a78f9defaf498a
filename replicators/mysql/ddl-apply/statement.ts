import { InterlockError } from '../../../src/errors.js';
import { tokensOf } from '../ddl-effects.js';
import type { Token } from '../ddl-effects.js';

/** A statement that can go to every data center by itself, as far as its text tells. */
export interface DdlStatement {
  text: string;
  /** `schema.table`. */
  name: string;
  verb: 'alter' | 'create' | 'create-index' | 'drop-index' | 'drop';
  /** Where the table's name is in the text, so that it can be rehearsed on another. */
  nameFrom: number;
  nameTo: number;
  /** It names ALGORITHM or LOCK itself. */
  chooses: boolean;
}

const SYSTEM = new Set(['mysql', 'information_schema', 'performance_schema', 'sys', 'interlock']);
const ROWS = new Set('INSERT UPDATE DELETE REPLACE LOAD CALL DO WITH SELECT EXECUTE PREPARE'.split(' '));

/** The statements of a file, without their `;`. */
export function splitStatements(file: string): string[] {
  const tokens = tokensOf(file);
  const ends = tokens.filter(({ word }) => word === ';');
  const pieces: string[] = [];
  let from = 0;
  for (const end of [...ends.map((token) => token.from), file.length]) {
    const piece = file.slice(from, end).trim();
    if (tokensOf(piece).length > 0) pieces.push(piece);
    from = end + 1;
  }
  return pieces;
}

/** @throws InterlockError BadInput that says what cannot go so, and what to do instead */
export function readStatement(text: string, number = 1): DdlStatement {
  const tokens = tokensOf(text);
  const refuse = (why: string): never => {
    throw new InterlockError(
      'BadInput',
      `statement ${number} (${text.replace(/\s+/g, ' ').slice(0, 80)}): ${why}`,
      { details: { field: '--file', statement: number, text: text.slice(0, 1000) } },
    );
  };
  if (/\/\*M?!/.test(withoutText(text, tokens)))
    refuse('it has a comment that only some servers run; write it out');
  const words = tokens.map(({ word }) => word);
  const starts = (...wanted: string[]): boolean => wanted.every((word, i) => words[i] === word);
  const at = (from: number, verb: DdlStatement['verb']): DdlStatement => {
    const dotted = words[from + 1] === '.';
    const [schema, table] = dotted ? [tokens[from], tokens[from + 2]] : [undefined, undefined];
    if (schema === undefined || table === undefined)
      return refuse('name the table with its schema: `schema`.`table`');
    if (SYSTEM.has(schema.text.toLowerCase())) refuse(`${schema.text} is not a schema of applications`);
    if (schema.text.includes('.') || table.text.includes('.')) refuse('a name with a dot is not carried');
    return {
      ...{ text, verb, name: `${schema.text}.${table.text}`, nameFrom: schema.from, nameTo: table.to },
      chooses: words.includes('ALGORITHM') || words.includes('LOCK'),
    };
  };

  if (starts('DELIMITER')) refuse('DELIMITER is of the mysql client; statements here end with `;`');
  if (ROWS.has(words[0] ?? ''))
    refuse('it changes rows; run it as an application does, in the data center that owns them');
  if (starts('TRUNCATE'))
    refuse('it empties a table, which no row of the stream shows; DELETE the rows at their owners instead');
  if (starts('RENAME')) refuse(RENAME);
  if (starts('DROP', 'TABLE')) {
    const from = words[2] === 'IF' ? 4 : 2;
    const found = at(from, 'drop');
    if (words.length > from + 3) refuse('one table per statement, and no options');
    return found;
  }
  if (starts('DROP', 'INDEX')) {
    const on = words.indexOf('ON');
    return on < 0 ? refuse('DROP INDEX name ON `schema`.`table`') : at(on + 1, 'drop-index');
  }
  if (words[0] === 'CREATE') {
    const index = words.slice(1, 3).indexOf('INDEX') + 1;
    if (index > 0) {
      if (['IF', 'ON'].includes(words[index + 1] ?? ''))
        refuse('give the index a name, and leave IF NOT EXISTS out: what is there is skipped');
      const on = words.indexOf('ON');
      return on < 0 ? refuse('CREATE INDEX name ON `schema`.`table` (…)') : at(on + 1, 'create-index');
    }
    if (words[1] !== 'TABLE') return refuse(OTHER);
    const found = at(words[2] === 'IF' ? 5 : 2, 'create');
    if (words.includes('SELECT'))
      refuse('CREATE TABLE … SELECT writes rows; create it empty, and write them as an application does');
    foreignKeys(words, refuse);
    return found;
  }
  if (!starts('ALTER', 'TABLE')) return refuse(OTHER);
  const found = at(words[2] === 'IF' ? 4 : 2, 'alter');
  foreignKeys(words, refuse);
  if (words.includes('PARTITION') || words.includes('PARTITIONING')) refuse(PARTITION);
  for (const clause of clausesOf(words, tokens, found)) alterClause(clause, refuse);
  return found;
}

const RENAME =
  'a renamed column or table looks to the links like one that is gone and a new one. Add the new one, let applications write both, copy the values, and drop the old one (in another file)';
const OTHER =
  'only ALTER TABLE, CREATE TABLE, DROP TABLE, CREATE INDEX and DROP INDEX go to all data centers by this command; run it on each of them by hand';

type Refuse = (why: string) => never;

function foreignKeys(words: readonly string[], refuse: Refuse): void {
  if (words.includes('REFERENCES') || (words.includes('FOREIGN') && words.includes('KEY')))
    refuse(
      'foreign keys decide in what order rows are applied: pause the links, run it on both sides, resume them',
    );
}

/** The clauses of an ALTER TABLE, each as its words and texts. */
function clausesOf(words: string[], tokens: Token[], { nameTo }: DdlStatement): Token[][] {
  const first = tokens.findIndex(({ from }) => from >= nameTo);
  if (first < 0) return [[]];
  const clauses: Token[][] = [[]];
  let depth = 0;
  for (let i = first; i < tokens.length; i++) {
    if (words[i] === '(') depth++;
    if (words[i] === ')') depth--;
    if (words[i] === ',' && depth === 0) clauses.push([]);
    else clauses.at(-1)!.push(tokens[i]!);
  }
  return clauses;
}

/** What the rehearsal judges by the definition that it makes. */
const KNOWN = new Set(
  'MODIFY COMMENT ENGINE ROW_FORMAT KEY_BLOCK_SIZE ALGORITHM LOCK CONVERT DEFAULT CHARACTER CHARSET COLLATE'.split(
    ' ',
  ),
);

function alterClause(clause: Token[], refuse: Refuse): void {
  const words = clause.map(({ word }) => word);
  const [verb = '', second = '', third = ''] = words;
  const pick = (i: number): string => (clause[i]?.text ?? '').toLowerCase();
  switch (verb) {
    case 'RENAME':
      if (second === 'INDEX' || second === 'KEY') return;
      return refuse(RENAME);
    case 'CHANGE': {
      const column = second === 'COLUMN' ? 2 : 1;
      if (pick(column) !== pick(column + 1)) refuse(RENAME);
      return;
    }
    case 'ADD': {
      if (second === 'CONSTRAINT' || second === 'CHECK' || second === 'PERIOD') refuse(CHECK);
      if (second === 'PRIMARY') refuse(KEY);
      if (words.slice(1).includes('PARTITION') && second === 'PARTITION') refuse(PARTITION);
      if (second === '(') refuse('write one ADD COLUMN per column');
      const unique = ['UNIQUE', 'FULLTEXT', 'SPATIAL'].includes(second);
      const isIndex = unique || second === 'INDEX' || second === 'KEY';
      const named = unique ? (third === 'INDEX' || third === 'KEY' ? 3 : 2) : 2;
      if (isIndex && ['(', 'USING', 'IF', ''].includes(words[named] ?? '') && clause[named]?.word !== '')
        refuse('give the index a name, and leave IF NOT EXISTS out: what is there is skipped');
      return;
    }
    case 'DISCARD':
    case 'IMPORT':
      return refuse('tablespaces are moved by hand, on each side');
    case 'AUTO_INCREMENT':
    case 'ORDER':
    case 'ENABLE':
    case 'DISABLE':
    case 'FORCE':
      return refuse('it changes no definition; run it where it is wanted');
    case 'TRUNCATE':
    case 'EXCHANGE':
    case 'REORGANIZE':
    case 'COALESCE':
    case 'PARTITION':
    case 'REMOVE':
    case 'ANALYZE':
    case 'CHECK':
    case 'OPTIMIZE':
    case 'REBUILD':
    case 'REPAIR':
      return refuse(PARTITION);
    case 'DROP':
      if (second === 'PARTITION') refuse(PARTITION);
      if (second === 'PRIMARY') refuse(KEY);
      if (second === 'CONSTRAINT' || second === 'CHECK') refuse(CHECK);
      return;
    case 'ALTER':
      if (second === 'CONSTRAINT' || second === 'CHECK') refuse(CHECK);
      return;
    default:
      // What is not known here may do anything, a rename behind WAIT, say.
      if (!KNOWN.has(verb)) refuse(`${verb || 'it'} is not known here: ${OTHER}`);
  }
}

const PARTITION = 'partitions may hold other rows on each side; run it on each of them by hand';
const CHECK =
  'constraints decide which rows a side takes (a unique one is ADD UNIQUE KEY name): pause the links, run it on both sides, resume them';
const KEY =
  'rows are found by their primary key on both sides. Make a new table with the new key, let applications write both, copy the rows, and drop the old one';

/** The text without what is quoted. */
function withoutText(text: string, tokens: readonly Token[]): string {
  let rest = '';
  let at = 0;
  for (const { from, to, word } of tokens) {
    rest += text.slice(at, from) + (word === '' ? ' ' : text.slice(from, to));
    at = to;
  }
  return rest + text.slice(at);
}
