/**
 * What the conformance suite writes: tables, and transactions on them that begin and end with whatever is there. Each kind is written live
 * (the link applies it as it comes), and again as one backlog (the link merges it).
 */
export interface Kind {
  name: string;
  /** Without their schema; the first word behind CREATE TABLE is the table's name. */
  tables: string[];
  /** Statements of one transaction each. */
  writes: string[][];
}

/** Column type → SQL expressions of values, among them the ones that others lose. The first values are also used as keys, where they can be. */
export type ColumnValues = Record<string, string[]>;

export const COMMON_COLUMNS: ColumnValues = {
  TINYINT: ['-128', '127', '0'],
  'TINYINT UNSIGNED': ['255', '0'],
  SMALLINT: ['-32768', '32767'],
  'SMALLINT UNSIGNED': ['65535'],
  MEDIUMINT: ['-8388608', '8388607', '-1'],
  'MEDIUMINT UNSIGNED': ['16777215'],
  INT: ['-2147483648', '2147483647', '-1'],
  'INT UNSIGNED': ['4294967295'],
  'INT(8) UNSIGNED ZEROFILL': ['42'],
  BIGINT: ['-9223372036854775808', '9223372036854775807', '-9007199254740993'],
  'BIGINT UNSIGNED': ['18446744073709551615', '9007199254740993', '9223372036854775808', '0'],
  'DECIMAL(65,30)': [
    '12345678901234567890123456789012345.678901234567890123456789012345',
    '-99999999999999999999999999999999999.999999999999999999999999999999',
    '-0.000000000000000000000000000001',
    '0',
  ],
  'DECIMAL(65,0)': [`-${'9'.repeat(65)}`, '1'],
  'DECIMAL(9,0)': ['-999999999', '123'],
  'DECIMAL(10,4)': ['-123456.7891', '0.0001', '-0.5'],
  'DECIMAL(4,4)': ['0.1234', '-0.9999'],
  'DECIMAL(30,10) UNSIGNED': ['12345678901234567890.0123456789'],
  FLOAT: ['0.1', '-3.4e38', '1.17549e-38', '16777217', '3.402823466e38', '1e-45', '1234567.9'],
  'FLOAT(7,3)': ['1234.567', '-0.001'],
  DOUBLE: [
    '0.1',
    '1.7976931348623157e308',
    '5e-324',
    '-2.2250738585072014e-308',
    '1e20',
    '3',
    '1.2345678901234567e-7',
  ],
  'DOUBLE(20,5)': ['-12345678901234.56789'],
  'BIT(1)': [`b'1'`, `b'0'`],
  'BIT(13)': [`b'1010101010101'`, '0'],
  'BIT(63)': [`b'${'1'.repeat(63)}'`],
  'BIT(64)': [`b'${'1'.repeat(64)}'`, '5'],
  YEAR: ['1901', '2155', '0', '2000'],
  DATE: [
    `'2024-02-29'`,
    `'0000-00-00'`,
    `'2020-00-00'`,
    `'9999-12-31'`,
    `'0001-01-01'`,
    `'2024-02-31'`,
    `'0000-03-01'`,
  ],
  TIME: [`'-838:59:59'`, `'838:59:59'`, `'00:00:00'`, `'-00:00:01'`, `'100:00:00'`],
  'TIME(1)': [`'-00:00:00.5'`, `'12:34:56.7'`],
  'TIME(2)': [`'-00:00:59.99'`],
  'TIME(3)': [`'-01:02:03.004'`, `'-00:00:00.001'`, `'23:59:59.999'`],
  'TIME(4)': [`'-838:59:58.0001'`],
  'TIME(5)': [`'-00:01:00.00001'`],
  'TIME(6)': [`'-00:00:00.000001'`, `'-838:59:58.999999'`, `'01:02:03.000004'`, `'-10:00:00.000000'`],
  DATETIME: [
    `'0000-00-00 00:00:00'`,
    `'9999-12-31 23:59:59'`,
    `'2020-02-00 01:02:03'`,
    `'1000-01-01 00:00:00'`,
    `'0000-01-00 23:00:00'`,
  ],
  'DATETIME(1)': [`'2024-01-02 03:04:05.9'`],
  'DATETIME(2)': [`'2024-01-02 03:04:05.06'`],
  'DATETIME(3)': [`'1969-12-31 23:59:59.999'`],
  'DATETIME(4)': [`'2024-01-02 03:04:05.0607'`],
  'DATETIME(5)': [`'2024-01-02 03:04:05.00001'`],
  'DATETIME(6)': [
    `'2024-01-02 03:04:05.000006'`,
    `'2024-01-02 03:04:05.999999'`,
    `'0000-00-00 00:00:00.000000'`,
  ],
  'TIMESTAMP NULL': [`'0000-00-00 00:00:00'`, `'1970-01-01 00:00:01'`, `'2038-01-19 03:14:07'`],
  'TIMESTAMP(3) NULL': [`'2024-10-27 02:30:00.123'`],
  'TIMESTAMP(6) NULL': [
    `'2024-03-31 01:30:00.000001'`,
    `'2038-01-19 03:14:07.999999'`,
    `'0000-00-00 00:00:00'`,
  ],
  'CHAR(10)': [`'abc'`, `''`, `'ü😀'`, `'  lead'`],
  'CHAR(255)': [`REPEAT('😀', 255)`],
  'VARCHAR(40)': [
    `'quote '' back \\\\ slash'`,
    `'line\\n\\r\\t\\0end'`,
    `'trail  '`,
    `'\\Z'`,
    `'😀𝒳'`,
    `''`,
    `_utf8mb4 x'EFBFBD'`,
    `'NULL'`,
  ],
  'VARCHAR(300)': [`REPEAT('ü', 300)`],
  'BINARY(4)': [`x'61'`, `x'00000000'`, `x'61006200'`, `x'FFFFFFFF'`],
  'BINARY(255)': [`x'0102'`],
  'VARBINARY(20)': [`x'00'`, `x'610000'`, `''`, `x'275C00FF'`],
  'VARBINARY(300)': [`REPEAT(x'00', 300)`],
  TINYBLOB: [`x'00FF'`],
  BLOB: [`REPEAT(x'00FF275C', 1000)`, `''`],
  MEDIUMBLOB: [`REPEAT(x'80', 70000)`],
  LONGBLOB: [`x'01'`],
  TINYTEXT: [`'t'`],
  TEXT: [`REPEAT('ü', 1000)`],
  MEDIUMTEXT: [`REPEAT('x', 70000)`],
  LONGTEXT: [`'l'`],
  [`ENUM('a','it''s','ü,x','')`]: [`'a'`, `'it''s'`, `'ü,x'`, `4`],
  [`ENUM(${Array.from({ length: 300 }, (_x, i) => `'e${i}'`).join(',')})`]: [`'e299'`, `'e0'`],
  [`SET('a','it''s','c','d','e','f','g','h','i')`]: [`'a,i'`, `''`, `'it''s,c,d'`],
  [`SET(${Array.from({ length: 64 }, (_x, i) => `'m${i}'`).join(',')})`]: [`'m0,m31,m32,m63'`, `'m63'`],
};

/** MariaDB has no negative zero. */
export const MYSQL_COLUMNS: ColumnValues = { FLOAT: ['-0e0', '0'], DOUBLE: ['-0e0', '-1'] };

/** Values that only a session without strict mode can write. */
export const ODD_COLUMNS: ColumnValues = {
  [`ENUM('x','y')`]: ['0', `'nothing'`, `'y'`],
};

export const MYSQL_JSON: ColumnValues = {
  JSON: [
    `'{"b": 1, "a": [1.0, 1, -0.5, 1e300, true, null, "x\\\\"y"], "": {}}'`,
    `'[]'`,
    `'"text"'`,
    `'1.0'`,
    `'18446744073709551615'`,
    `'-9223372036854775808'`,
    `'18446744073709551616'`,
    `'-0.0'`,
    `'null'`,
    `'{"__proto__": {"constructor": 1}, "10": 1, "9": 2}'`,
    `JSON_OBJECT('long', REPEAT('ü', 40000), 'i', 70000, 's', 5)`,
    `JSON_ARRAY(32768, -32769, 2147483648, 65535, -1)`,
    `CONCAT('[', REPEAT('"abcdefgh",', 20000), '1]')`,
    `'"\\\\u0001\\\\u0000\\\\n\\\\\\\\ \\\\ud83d\\\\ude00"'`,
    `'[0.1, 1e20, 123456789012345680000, 1e-7, 4.35, 0.3, 2.2250738585072014e-308, 5e-324, 179769313486231570000000000000000000000]'`,
  ],
};

/** Values inside JSON that JSON text does not have, or that MySQL's parser does not read exactly, or MariaDB not at all. */
export const MYSQL_JSON_OPAQUE: ColumnValues = {
  JSON: [
    `CONCAT(REPEAT('[', 99), REPEAT(']', 99))`,
    `JSON_ARRAY(235.21151361737114e0, -1.0773965665159565e-99, 968.5239650216395e0, 0.1e0 + 0.2e0, 1e15, 9007199254740993e0, 1e22, 1e23)`,
    `JSON_OBJECT('a', JSON_OBJECT('b', JSON_ARRAY(1.4611219486791621e-126, 'x', NULL, TRUE)), 'c', JSON_ARRAY())`,
    `JSON_OBJECT('d', CAST('1.50' AS DECIMAL(10,2)), 'when', CAST('2024-01-02 03:04:05.000006' AS DATETIME(6)), 'n', 1)`,
    `JSON_ARRAY(CAST('-00:00:01.5' AS TIME(6)), CAST('2024-01-02' AS DATE), x'00FF', 2.0e0)`,
    `CAST(CAST('12345678901234567890.123' AS DECIMAL(30,3)) AS JSON)`,
    `CAST(-0.000000000000000000000000000001 AS JSON)`,
    `JSON_OBJECT('z', CAST('0000-00-00' AS DATE), 'y', CAST('9999-12-31 23:59:59.999999' AS DATETIME(6)))`,
  ],
};

export const MARIADB_JSON: ColumnValues = {
  JSON: [`'{"b":  1.0, "a": [1 ,2]}'`, `'"\\\\u0001"'`, `'[1e400, 18446744073709551616]'`],
};

const SHAPES: Record<string, string[]> = {
  POINT: ['POINT(1 2)', 'POINT(-0.5 1e-300)'],
  LINESTRING: ['LINESTRING(0 0,1 1,2 0)'],
  POLYGON: ['POLYGON((0 0,10 0,10 10,0 10,0 0),(2 2,4 2,4 4,2 4,2 2))'],
  MULTIPOINT: ['MULTIPOINT(0 0,5 5)'],
  MULTILINESTRING: ['MULTILINESTRING((0 0,1 1),(5 5,6 6))'],
  MULTIPOLYGON: ['MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((5 5,6 5,6 6,5 5)))'],
  GEOMETRYCOLLECTION: ['GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))', 'GEOMETRYCOLLECTION EMPTY'],
  GEOMETRY: ['POINT(7 8)', 'LINESTRING(1 1,2 2)', 'GEOMETRYCOLLECTION(POINT(1 1))'],
};

/** Every kind of geometry, with no, a planar and a geographic SRID. */
export const GEOMETRY_COLUMNS: ColumnValues = Object.fromEntries(
  Object.entries(SHAPES).map(([type, shapes]) => [
    type,
    shapes.flatMap((shape) => [0, 3857, 4326].map((srid) => `ST_GeomFromText('${shape}', ${srid})`)),
  ]),
);

export const MARIADB_COLUMNS: ColumnValues = {
  // MariaDB takes surrogates for UTF-8, and any byte for ASCII.
  'VARCHAR(11) CHARACTER SET utf8mb3': [`_utf8mb3 x'EDA080'`, `_utf8mb3 x'61EDB08062'`],
  'VARCHAR(12)': [`_utf8mb4 x'EDA080EDB080'`],
  'VARCHAR(10) CHARACTER SET ascii': [`_ascii x'41E9FF'`],
  INET4: [`'1.2.3.0'`, `'0.0.0.0'`, `'255.255.255.255'`],
  INET6: [`'2001:db8::'`, `'::'`, `'::ffff:1.2.3.4'`, `'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00'`],
  UUID: [
    `'6ccd780c-baba-1026-9564-5b8c656024db'`,
    `'00000000-0000-0000-0000-000000000000'`,
    `'ffffffff-ffff-ffff-ffff-ffffffffff00'`,
    `'9b2f7a3e-0c1d-4e5f-8a6b-7c8d9e0f1a2b'`,
    `'018f7a3e-0c1d-7e5f-8a6b-7c8d9e0f1a2b'`,
    `'1ec9414c-232a-6b00-b3c8-9e6bdeced846'`,
    `'12345678-9abc-def0-0123-456789abcdef'`,
  ],
};

const NO_KEY = /TEXT|BLOB|JSON|GEOMETRY|POINT|LINESTRING|POLYGON|^(VAR)?(CHAR|BINARY)\((255|300)\)|^BIT/;

/** A table per column type, and one with the type as its key where a key can have it. */
export function columnKinds(columns: ColumnValues, prefix: string, nullable = true): Kind[] {
  return Object.entries(columns).map(([type, values], t) => {
    const name = `${prefix}${t}`;
    const row = (from: number, n: number): string =>
      values.map((value, i) => `(${from + i}, ${value}, ${n})`).join(',');
    const kind: Kind = {
      name: type.slice(0, 60),
      tables: [`CREATE TABLE ${name} (id INT PRIMARY KEY, v ${type}, n INT)`],
      writes: [
        [
          `INSERT INTO ${name} VALUES ${row(0, 0)}`,
          `INSERT INTO ${name} VALUES ${row(200, 2)}`,
          ...(nullable
            ? [`INSERT INTO ${name} VALUES ${values.map((_v, i) => `(${100 + i}, NULL, 1)`).join(',')}`]
            : []),
        ],
        values.map((value, i) => `UPDATE ${name} SET v = ${value}, n = 9 WHERE id = ${100 + i}`),
        [`UPDATE ${name} SET v = NULL WHERE id >= 200`, `DELETE FROM ${name} WHERE id = 0`],
        [
          `INSERT INTO ${name} VALUES ${row(300, 3)}`,
          `UPDATE ${name} SET v = ${values[0]!} WHERE id >= 300`,
          `DELETE FROM ${name} WHERE id >= 300 AND id % 2 = 0`,
          `INSERT INTO ${name} VALUES ${row(400, 4)}`,
          `UPDATE ${name} SET id = id + 100 WHERE id >= 400`,
        ],
      ],
    };
    if (NO_KEY.test(type)) return kind;
    const key = `${prefix}${t}_key`;
    kind.tables.push(
      `CREATE TABLE ${key} (v ${type.replace(/ NULL$/, '')} NOT NULL${type.startsWith('TIMESTAMP') ? " DEFAULT '1970-01-02 00:00:00'" : ''}, n INT, PRIMARY KEY (v))`,
    );
    kind.writes[0]!.push(...values.map((value, i) => `INSERT IGNORE INTO ${key} VALUES (${value}, ${i})`));
    kind.writes[1]!.push(`UPDATE ${key} SET n = n + 10`);
    kind.writes[2]!.push(`UPDATE ${key} SET n = 5 WHERE n = 10`, `DELETE FROM ${key} WHERE n = 11`);
    kind.writes[3]!.push(
      `DELETE FROM ${key} WHERE n = 5`,
      `INSERT IGNORE INTO ${key} VALUES (${values[0]!}, 77)`,
      `UPDATE ${key} SET n = n + 1`,
    );
    return kind;
  });
}

const TEXTS = [
  'abc',
  'É é ÿ ',
  '丠丼你好',
  'Привет',
  'γειά',
  'שלום',
  'กขค',
  '한국어',
  '日本語ソ表',
  `it's \\ "q"`,
  '',
];

/** All texts that a character set can hold, in every kind of text column, and as a key. */
export function charsetKind(charset: string): Kind {
  const t = `cs_${charset}`;
  // The wire library complains, at length, of members in a character set that it does not know.
  const e = `e ENUM('a','b')${/^(dec8|hp8|swe7|geostd8|keybcs2|armscii8)$/.test(charset) ? ' CHARACTER SET latin1' : ''}`;
  // The default collation of utf8mb4 is another one per server.
  const options = `CHARSET ${charset}${charset === 'utf8mb4' ? ' COLLATE utf8mb4_general_ci' : ''}`;
  const text = (s: string): string =>
    `CONVERT(_utf8mb4 x'${Buffer.from(s).toString('hex')}' USING ${charset})`;
  return {
    name: `character set ${charset}`,
    tables: [
      `CREATE TABLE ${t} (id INT PRIMARY KEY, v VARCHAR(60), c CHAR(12), t TEXT, ${e}, m MEDIUMTEXT) ${options}`,
      `CREATE TABLE ${t}_key (v VARCHAR(60) PRIMARY KEY, c CHAR(12), n INT, UNIQUE KEY u (c)) ${options}`,
    ],
    writes: [
      [
        `INSERT INTO ${t} VALUES ${TEXTS.map((s, i) => `(${i}, ${text(s)}, ${text(s)}, ${text(s.repeat(20))}, 'b', NULL)`).join(',')}`,
        ...TEXTS.map((s, i) => `INSERT IGNORE INTO ${t}_key VALUES (${text(s)}, ${text(s)}, ${i})`),
      ],
      [`UPDATE ${t} SET m = CONCAT(t, v), v = c`, `UPDATE ${t}_key SET n = n + 10`],
      [
        `UPDATE ${t}_key SET v = CONCAT(v, ${text('x')}), c = CONCAT(LEFT(c, 3), CONVERT(n USING ${charset}))`,
      ],
      [`DELETE FROM ${t}_key WHERE n % 2 = 0`, `DELETE FROM ${t} WHERE id = 2`],
    ],
  };
}

/** Keys that the collation takes for equal, in other bytes. */
export function collationKind(collation: string): Kind {
  const t = `co_${collation}`;
  const charset = collation.replace(/_.*$/, '');
  const column = `VARCHAR(20) CHARACTER SET ${charset} COLLATE ${collation}`;
  const writes = (name: string, unique: boolean): string[][] => [
    [`INSERT INTO ${name} VALUES ('a', 'x', 1), ('b', 'y', 2), ('c', 'z', 3), ('d', 'w', 4)`],
    [`UPDATE ${name} SET k = 'A' WHERE k = 'a'`, `UPDATE ${name} SET k = 'B ' WHERE k = 'b'`],
    [`UPDATE ${name} SET n = n + 1`],
    [`DELETE FROM ${name} WHERE k = 'c'`, `INSERT INTO ${name} VALUES ('C', 'Z', 30)`],
    [`UPDATE ${name} SET k = 'c', n = 31 WHERE k = 'C'`],
    [`DELETE FROM ${name} WHERE k = 'd'`],
    [`INSERT INTO ${name} VALUES ('D', 'W', 40)`],
    [`UPDATE ${name} SET u = CONCAT(UPPER(u), ' ')`],
    ...(unique
      ? [
          [
            `UPDATE ${name} SET u = NULL WHERE n = 40`,
            `UPDATE ${name} SET u = 'w' WHERE n = 31`,
            `UPDATE ${name} SET u = 'z' WHERE n = 40`,
          ],
          [`DELETE FROM ${name} WHERE n = 40`, `INSERT INTO ${name} VALUES ('e', 'Z', 50)`],
          [`UPDATE ${name} SET u = 'q' WHERE n = 50`],
          [`INSERT INTO ${name} VALUES ('f', 'z ', 60)`],
        ]
      : []),
  ];
  return {
    name: `collation ${collation}`,
    tables: [
      `CREATE TABLE ${t} (k ${column} PRIMARY KEY, u ${column}, n INT)`,
      `CREATE TABLE ${t}_u (k ${column} PRIMARY KEY, u ${column}, n INT, UNIQUE KEY u (u))`,
    ],
    writes: [...writes(t, false), ...writes(`${t}_u`, true)],
  };
}

export function tableName(create: string): string {
  return /CREATE TABLE (\S+)/.exec(create)![1]!;
}
