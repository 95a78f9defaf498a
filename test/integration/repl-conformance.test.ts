import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Flavour } from '../../infra/mysql-server.js';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import {
  COMMON_COLUMNS,
  GEOMETRY_COLUMNS,
  MARIADB_COLUMNS,
  MARIADB_JSON,
  MYSQL_COLUMNS,
  MYSQL_JSON,
  MYSQL_JSON_OPAQUE,
  ODD_COLUMNS,
  charsetKind,
  collationKind,
  columnKinds,
  tableName,
} from '../support/column-kinds.js';
import type { Kind } from '../support/column-kinds.js';
import { createOnBoth, dump, linkConfig, rows, runLink, settled, startPair } from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';
import { MARIADB_TABLES, MYSQL_TABLES, TABLE_KINDS } from '../support/table-kinds.js';

const SCHEMA = 't_conf';

const COLLATIONS = [
  'utf8mb4_general_ci',
  'utf8mb4_unicode_ci',
  'utf8mb4_bin',
  'utf8mb4_0900_ai_ci',
  'utf8mb4_0900_as_cs',
  'utf8mb4_0900_bin',
  'utf8mb4_general_nopad_ci',
  'utf8mb4_nopad_bin',
  'utf8mb4_uca1400_ai_ci',
  'utf8mb3_general_ci',
  'utf16_general_ci',
  'latin1_swedish_ci',
  'latin1_german2_ci',
  'latin1_general_cs',
  'latin1_bin',
  'sjis_japanese_ci',
  'gbk_chinese_ci',
  'ascii_general_ci',
];

describe.each([
  ['mysql', 'mysql'],
  ['mariadb', 'mariadb'],
  ['mysql', 'mariadb'],
  ['mariadb', 'mysql'],
] as [Flavour, Flavour][])('conformance of %s → %s', (from, to) => {
  let pair: Pair;
  let link: RunningLink | undefined;
  let kinds: Kind[] = [];

  beforeAll(async () => {
    pair = await startPair(from, to);
    kinds = await kindsOf(pair);
    const tables = kinds.flatMap((kind) => kind.tables);
    await createOnBoth(pair, [
      `CREATE DATABASE ${SCHEMA} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci`,
      `USE ${SCHEMA}`,
      ...tables,
    ]);
  });
  afterAll(async () => {
    await link?.stop();
    await pair?.stop();
  });

  const config = (): ReturnType<typeof linkConfig> =>
    linkConfig(
      pair,
      'a',
      SCHEMA,
      Object.fromEntries(
        kinds
          .flatMap((kind) => kind.tables)
          .map((table) => [`${SCHEMA}.${bare(tableName(table))}`, { unrouted: true as const }]),
      ),
    );

  const compare = async (): Promise<void> => {
    const differences: string[] = [];
    for (const kind of kinds) {
      for (const table of kind.tables.map(tableName)) {
        const [a, b] = await Promise.all([
          dump(pair.a, `${SCHEMA}.${table}`),
          dump(pair.b, `${SCHEMA}.${table}`),
        ]);
        const at = a.findIndex((row, i) => row !== b[i]);
        if (at >= 0 || a.length !== b.length) {
          differences.push(
            `${kind.name} (${table}): ${a.length} and ${b.length} rows\n    ${a[at]}\n    ${b[at]}`,
          );
        }
      }
    }
    expect(differences.map((d) => d.slice(0, 800)).join('\n')).toBe('');
  };

  it('carries every kind byte for byte, as it comes', async () => {
    link = await runLink(config());
    await write(pair.a, kinds);
    await settled(link, pair.a);
    await compare();
    for (const kind of kinds) {
      const counts = await Promise.all(
        kind.tables.map((table) => rows(pair.b, `SELECT COUNT(*) AS n FROM ${SCHEMA}.${tableName(table)}`)),
      );
      expect({ kind: kind.name, rows: counts.some(([row]) => Number(row!['n']) > 0) }).toEqual({
        kind: kind.name,
        rows: true,
      });
    }
  });

  it('carries every kind again as one backlog', async () => {
    await link?.stop();
    await initialiseLink(config(), {});
    await empty(pair.a, kinds);
    await write(pair.a, kinds);
    link = await runLink(config(), null);
    await settled(link, pair.a);
    await compare();
  });
});

async function kindsOf(pair: Pair): Promise<Kind[]> {
  const names = async (side: Side, show: string, column: string): Promise<Set<string>> =>
    new Set((await rows(side, show)).map((row) => String(row[column])));
  const onBoth = async (show: string, column: string): Promise<string[]> => {
    const [a, b] = [await names(pair.a, show, column), await names(pair.b, show, column)];
    return [...a].filter((name) => b.has(name));
  };
  const charsets = (await onBoth('SHOW CHARACTER SET', 'Charset')).filter((name) => name !== 'binary');
  const collations = await onBoth('SHOW COLLATION', 'Collation');
  const flavours = [pair.a.server.flavour, pair.b.server.flavour];
  const both = (flavour: Flavour): boolean => flavours.every((f) => f === flavour);
  return [
    ...columnKinds(COMMON_COLUMNS, 't'),
    ...columnKinds(ODD_COLUMNS, 'odd'),
    ...columnKinds(GEOMETRY_COLUMNS, 'g'),
    ...(flavours[0] === 'mysql'
      ? columnKinds(MYSQL_JSON, 'j')
      : both('mariadb')
        ? columnKinds(MARIADB_JSON, 'j')
        : []),
    ...(both('mysql')
      ? [...columnKinds(MYSQL_JSON_OPAQUE, 'jo'), ...columnKinds(MYSQL_COLUMNS, 'nz'), ...MYSQL_TABLES]
      : []),
    ...(both('mariadb') ? [...columnKinds(MARIADB_COLUMNS, 'm'), ...MARIADB_TABLES] : []),
    ...TABLE_KINDS,
    ...charsets.map(charsetKind),
    ...COLLATIONS.filter(
      (name) => collations.includes(name) || (name.includes('uca1400') && both('mariadb')),
    ).map(collationKind),
    everyCollation(collations),
  ];
}

/** One column per collation: what the table map says of each must be read right. */
function everyCollation(collations: string[]): Kind {
  const tables: string[] = [];
  const writes: string[][] = [[], []];
  const named = collations.filter((name) => name !== 'binary' && !name.startsWith('uca'));
  for (let from = 0; from < named.length; from += 120) {
    const some = named.slice(from, from + 120);
    const table = `every_${from}`;
    tables.push(
      `CREATE TABLE ${table} (id INT PRIMARY KEY, ${some.map((name, i) => `c${i} VARCHAR(12) CHARACTER SET ${name.replace(/_.*$/, '')} COLLATE ${name}`).join(', ')}) ROW_FORMAT=DYNAMIC`,
    );
    writes[0]!.push(`INSERT INTO ${table} VALUES (1, ${some.map((_name, i) => `'Text ${i}'`).join(', ')})`);
    writes[1]!.push(`UPDATE ${table} SET ${some.map((_name, i) => `c${i} = CONCAT(c${i}, '!')`).join(', ')}`);
  }
  return { name: 'every collation', tables, writes };
}

/** Every kind's transactions in turn: the first of all kinds, then the second, … */
async function write(side: Side, kinds: Kind[]): Promise<void> {
  const connection = await side.pool.getConnection();
  try {
    await connection.query(`SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'`);
    await connection.query(`USE ${SCHEMA}`);
    for (let turn = 0; kinds.some((kind) => turn < kind.writes.length); turn++) {
      for (const kind of kinds) {
        await connection.beginTransaction();
        for (const statement of kind.writes[turn] ?? []) {
          await connection.query(statement).catch((error: unknown) => {
            throw new Error(`${kind.name}: ${statement.slice(0, 300)}`, { cause: error });
          });
        }
        await connection.commit();
      }
    }
  } finally {
    connection.destroy();
  }
}

async function empty(side: Side, kinds: Kind[]): Promise<void> {
  const connection = await side.pool.getConnection();
  await connection.query(`USE ${SCHEMA}`);
  await connection.query('SET SESSION foreign_key_checks = 0');
  for (const table of kinds.flatMap((kind) => kind.tables))
    await connection.query(`DELETE FROM ${tableName(table)}`);
  connection.destroy();
}

function bare(name: string): string {
  return name.startsWith('`') ? name.slice(1, -1).replaceAll('``', '`') : name;
}
