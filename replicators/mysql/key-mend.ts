import { identifier } from './literal.js';

const PRIMARY = 'PRIMARY';
const CASCADES = /ON (?:DELETE|UPDATE) (?:CASCADE|SET NULL|SET DEFAULT)/;

/** What SHOW CREATE TABLE says of a table, as far as both sides have to agree on it beside its columns. */
interface Keys {
  engine: string;
  /** Name → definition, as it is added. */
  unique: Map<string, string>;
  cascading: Map<string, string>;
}

function keysOf(create: string): Keys {
  const keys: Keys = {
    engine: /^\).* ENGINE=(\w+)/m.exec(create)?.[1] ?? '',
    unique: new Map(),
    cascading: new Map(),
  };
  for (const line of create.split('\n').map((one) => one.trim().replace(/,$/, ''))) {
    const name = /^(?:UNIQUE KEY|CONSTRAINT) `((?:[^`]|``)+)`/.exec(line)?.[1]?.replaceAll('``', '`');
    if (line.startsWith('PRIMARY KEY')) keys.unique.set(PRIMARY, line);
    else if (line.startsWith('UNIQUE KEY')) keys.unique.set(name!, line);
    else if (/ FOREIGN KEY /.test(line) && CASCADES.test(line)) keys.cascading.set(name!, line);
  }
  return keys;
}

/** The statements that give a table of the target the engine, the unique and primary keys and the cascades that the source's has; none: it has them. */
export function keyStatements(source: string, target: string, table: string): string[] {
  const [from, to] = [keysOf(source), keysOf(target)];
  const lost = (of: 'unique' | 'cascading'): string[] =>
    [...to[of].keys()].filter((name) => from[of].get(name) !== to[of].get(name));
  const wanted = (of: 'unique' | 'cascading'): string[] =>
    [...from[of]].filter(([name, line]) => to[of].get(name) !== line).map(([, line]) => `ADD ${line}`);
  const clauses = [
    // A foreign key needs its index, and gives its name back only behind the statement.
    lost('cascading').map((name) => `DROP FOREIGN KEY ${identifier(name)}`),
    [
      ...(to.engine === from.engine ? [] : [`ENGINE=${from.engine}`]),
      ...lost('unique').map((name) =>
        name === PRIMARY ? 'DROP PRIMARY KEY' : `DROP INDEX ${identifier(name)}`,
      ),
      ...wanted('unique'),
    ],
    wanted('cascading'),
  ];
  return clauses.filter((some) => some.length > 0).map((some) => `ALTER TABLE ${table} ${some.join(', ')}`);
}
