import type { Kind } from './column-kinds.js';

/** Tables whose rows can be in each other's way, or have columns that nobody writes. */
export const TABLE_KINDS: Kind[] = [
  {
    name: 'generated columns: stored, virtual, in keys',
    tables: [
      `CREATE TABLE gen (id INT PRIMARY KEY, a INT, kept INT AS (a + 1) STORED, virt INT AS (a * 2) VIRTUAL, \`odd \`\`name\` INT,
        touched TIMESTAMP NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP, s VARCHAR(20), up VARCHAR(30) AS (CONCAT(s, '!')) STORED,
        UNIQUE KEY by_kept (kept), KEY by_virt (virt))`,
      `CREATE TABLE gen_unique (id INT PRIMARY KEY, a INT, u INT AS (a % 100) VIRTUAL, n INT, UNIQUE KEY u (u))`,
    ],
    writes: [
      ["INSERT INTO gen (id, a, `odd ``name`, s) VALUES (1, 5, 7, 'x'), (2, 6, 8, NULL), (3, NULL, 9, 'z')"],
      [`UPDATE gen SET a = 50, touched = '2001-01-01 00:00:00' WHERE id = 1`],
      ['UPDATE gen SET a = 51, touched = touched WHERE id = 1'],
      ['UPDATE gen SET a = a + 1 ORDER BY a DESC'],
      [
        `UPDATE gen SET a = NULL WHERE id = 1`,
        `UPDATE gen SET a = 52 WHERE id = 2`,
        `UPDATE gen SET a = 7, s = 'sw' WHERE id = 1`,
      ],
      ['DELETE FROM gen WHERE id = 3', "INSERT INTO gen (id, a, s) VALUES (4, 99, 'n')"],
      ['INSERT INTO gen_unique (id, a, n) VALUES (1, 101, 1), (2, 202, 2), (3, 303, 3)'],
      [
        'UPDATE gen_unique SET a = NULL WHERE id = 1',
        'UPDATE gen_unique SET a = 401 WHERE id = 2',
        'UPDATE gen_unique SET a = 502 WHERE id = 1',
      ],
      ['UPDATE gen_unique SET n = n + 1'],
      ['DELETE FROM gen_unique WHERE id = 3', 'INSERT INTO gen_unique (id, a, n) VALUES (4, 903, 4)'],
    ],
  },
  {
    name: 'unique values that swap, in one transaction and over several',
    tables: ['CREATE TABLE swap_u (id INT PRIMARY KEY, place INT, n INT, UNIQUE KEY one (place))'],
    writes: [
      ['INSERT INTO swap_u VALUES (1, 10, 0), (2, 20, 0), (3, 30, 0), (4, 40, 0)'],
      [
        'UPDATE swap_u SET place = NULL WHERE id = 1',
        'UPDATE swap_u SET place = 10 WHERE id = 2',
        'UPDATE swap_u SET place = 20 WHERE id = 1',
      ],
      ['UPDATE swap_u SET place = NULL WHERE id = 3'],
      ['UPDATE swap_u SET place = 30 WHERE id = 4'],
      ['UPDATE swap_u SET place = 40 WHERE id = 3'],
      ['DELETE FROM swap_u WHERE id = 3', 'INSERT INTO swap_u VALUES (5, 40, 1)'],
      ['UPDATE swap_u SET id = 6 WHERE id = 4', 'INSERT INTO swap_u VALUES (4, 41, 1)'],
      ['DELETE FROM swap_u WHERE id IN (1, 2)'],
      ['INSERT INTO swap_u VALUES (1, 10, 7), (2, 20, 8)'],
      ['UPDATE swap_u SET place = place + 1 ORDER BY place DESC'],
      ['REPLACE INTO swap_u VALUES (9, 11, 9)'],
      ['INSERT INTO swap_u VALUES (9, 999, 10) ON DUPLICATE KEY UPDATE n = 11'],
    ],
  },
  {
    name: 'two unique keys of several columns and a prefix',
    tables: [
      `CREATE TABLE swap_w (id INT PRIMARY KEY, a INT, b VARCHAR(40), c INT, UNIQUE KEY ab (a, b), UNIQUE KEY cp (b(3)))`,
    ],
    writes: [
      [`INSERT INTO swap_w VALUES (1, 1, 'one-x', 1), (2, 1, 'two-x', 2), (3, NULL, 'thr-x', 3)`],
      [
        `UPDATE swap_w SET b = 'tmp' WHERE id = 1`,
        `UPDATE swap_w SET b = 'one-y' WHERE id = 2`,
        `UPDATE swap_w SET b = 'two-y' WHERE id = 1`,
      ],
      [`UPDATE swap_w SET c = c + 1`],
      [`DELETE FROM swap_w WHERE id = 3`, `INSERT INTO swap_w VALUES (4, 5, 'thr-z', 4)`],
    ],
  },
  {
    name: 'primary keys that change, swap and shift',
    tables: [
      'CREATE TABLE move_k (id INT PRIMARY KEY, n INT)',
      'CREATE TABLE move_2 (a INT, b VARCHAR(10), n INT, PRIMARY KEY (a, b))',
    ],
    writes: [
      [
        'INSERT INTO move_k VALUES (1, 1), (2, 2), (3, 3), (4, 4)',
        `INSERT INTO move_2 VALUES (1, 'a', 1), (1, 'b', 2), (2, 'a', 3)`,
      ],
      [
        'UPDATE move_k SET id = 99 WHERE id = 1',
        'UPDATE move_k SET id = 1 WHERE id = 2',
        'UPDATE move_k SET id = 2 WHERE id = 99',
      ],
      ['UPDATE move_k SET id = id + 1 ORDER BY id DESC'],
      ['UPDATE move_k SET id = -id'],
      ['UPDATE move_k SET id = -id, n = n * 10'],
      [
        'DELETE FROM move_k WHERE id = 3',
        'UPDATE move_k SET id = 3 WHERE id = 2',
        'INSERT INTO move_k VALUES (2, 22)',
      ],
      [`UPDATE move_2 SET b = 'c' WHERE b = 'a'`, `UPDATE move_2 SET b = 'a' WHERE b = 'b'`],
      [`UPDATE move_2 SET a = a + 1 ORDER BY a DESC`, 'UPDATE move_2 SET n = n + 1'],
    ],
  },
  {
    name: 'a key of text, binary, time and decimal',
    tables: [
      'CREATE TABLE keys_4 (k VARCHAR(20) CHARACTER SET latin1, b BINARY(3), d DATETIME(3), f DECIMAL(6,2), v INT, PRIMARY KEY (k, b, d, f))',
    ],
    writes: [
      [
        `INSERT INTO keys_4 VALUES (_latin1 x'E981', x'61', '2024-01-01 00:00:00.001', 1.50, 1), ('b', x'620000', '2024-01-01 00:00:00', -1.5, 2), ('c', x'63', '2024-01-01 00:00:00', 0, 3)`,
      ],
      ['UPDATE keys_4 SET v = v + 10'],
      [`UPDATE keys_4 SET v = 7 WHERE k = 'b'`],
      [`DELETE FROM keys_4 WHERE k <> 'c'`],
    ],
  },
  {
    name: 'a self-referencing foreign key',
    tables: ['CREATE TABLE self_r (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES self_r (id))'],
    writes: [
      ['INSERT INTO self_r VALUES (1, NULL), (2, 1), (3, 2)', 'INSERT INTO self_r VALUES (5, 5)'],
      ['UPDATE self_r SET up = 3 WHERE id = 1'],
      [
        'UPDATE self_r SET up = NULL WHERE id = 2',
        'DELETE FROM self_r WHERE id = 3 AND 0',
        'INSERT INTO self_r VALUES (0, 3)',
      ],
      ['UPDATE self_r SET up = NULL', 'DELETE FROM self_r WHERE id IN (1, 3)'],
    ],
  },
  {
    name: 'transactions over tables with foreign keys',
    tables: [
      'CREATE TABLE fk_a (id INT PRIMARY KEY, n INT)',
      'CREATE TABLE fk_b (id INT PRIMARY KEY, a INT NOT NULL, n INT, FOREIGN KEY (a) REFERENCES fk_a (id))',
      'CREATE TABLE fk_c (id INT PRIMARY KEY, b INT, FOREIGN KEY (b) REFERENCES fk_b (id))',
    ],
    writes: [
      [
        'INSERT INTO fk_a VALUES (1, 1), (2, 2)',
        'INSERT INTO fk_b VALUES (10, 1, 1)',
        'INSERT INTO fk_c VALUES (100, 10)',
      ],
      [
        'DELETE FROM fk_c',
        'DELETE FROM fk_b',
        'DELETE FROM fk_a WHERE id = 1',
        'INSERT INTO fk_b VALUES (11, 2, 2)',
      ],
      [
        'INSERT INTO fk_a VALUES (1, 5)',
        'UPDATE fk_b SET a = 1',
        'DELETE FROM fk_a WHERE id = 2',
        'INSERT INTO fk_c VALUES (101, 11)',
      ],
      ['UPDATE fk_a, fk_b SET fk_a.n = 7, fk_b.n = 8 WHERE fk_b.a = fk_a.id'],
    ],
  },
  {
    name: 'ON DELETE CASCADE over three tables',
    tables: [
      'CREATE TABLE cd_a (id INT PRIMARY KEY, n INT)',
      'CREATE TABLE cd_b (id INT PRIMARY KEY, a INT, n INT, FOREIGN KEY (a) REFERENCES cd_a (id) ON DELETE CASCADE)',
      'CREATE TABLE cd_c (id INT PRIMARY KEY, b INT, FOREIGN KEY (b) REFERENCES cd_b (id) ON DELETE CASCADE)',
    ],
    writes: [
      [
        'INSERT INTO cd_a VALUES (1, 1), (2, 2), (3, 3)',
        'INSERT INTO cd_b VALUES (10, 1, 0), (11, 1, 0), (20, 2, 0), (30, 3, 0)',
        'INSERT INTO cd_c VALUES (100, 10), (200, 20), (300, 30)',
      ],
      ['DELETE FROM cd_a WHERE id = 1'],
      [
        'INSERT INTO cd_a VALUES (1, 9)',
        'INSERT INTO cd_b VALUES (10, 1, 9)',
        'INSERT INTO cd_c VALUES (100, 10)',
      ],
      ['UPDATE cd_b SET a = 1 WHERE id = 20', 'DELETE FROM cd_a WHERE id = 2'],
      [
        'DELETE FROM cd_a WHERE id = 3',
        'INSERT INTO cd_a VALUES (3, 33)',
        'INSERT INTO cd_b VALUES (30, 3, 33)',
      ],
      ['REPLACE INTO cd_a VALUES (3, 34)'],
      [
        'SET SESSION foreign_key_checks = 0',
        'DELETE FROM cd_a WHERE id = 1',
        'SET SESSION foreign_key_checks = 1',
      ],
      ['INSERT INTO cd_a VALUES (1, 10)'],
    ],
  },
  {
    name: 'ON UPDATE CASCADE',
    tables: [
      'CREATE TABLE cu_a (id INT PRIMARY KEY, n INT)',
      'CREATE TABLE cu_b (a INT, seq INT, n INT, PRIMARY KEY (a, seq), FOREIGN KEY (a) REFERENCES cu_a (id) ON UPDATE CASCADE ON DELETE CASCADE)',
    ],
    writes: [
      ['INSERT INTO cu_a VALUES (1, 1), (2, 2)', 'INSERT INTO cu_b VALUES (1, 1, 0), (1, 2, 0), (2, 1, 0)'],
      ['UPDATE cu_a SET id = 10 WHERE id = 1'],
      ['UPDATE cu_b SET n = 5 WHERE a = 10 AND seq = 2'],
      [
        'UPDATE cu_a SET id = 1 WHERE id = 10',
        'UPDATE cu_b SET n = 6 WHERE a = 1',
        'UPDATE cu_a SET id = 11 WHERE id = 1',
      ],
      ['DELETE FROM cu_b WHERE a = 11 AND seq = 1', 'UPDATE cu_a SET id = id + 100 ORDER BY id DESC'],
      ['DELETE FROM cu_a WHERE id = 111'],
    ],
  },
  {
    name: 'ON DELETE SET NULL, ON UPDATE SET NULL',
    tables: [
      'CREATE TABLE sn_a (id INT PRIMARY KEY, n INT)',
      'CREATE TABLE sn_b (id INT PRIMARY KEY, a INT, n INT, FOREIGN KEY (a) REFERENCES sn_a (id) ON DELETE SET NULL ON UPDATE SET NULL)',
      'CREATE TABLE sn_c (id INT PRIMARY KEY, b INT, FOREIGN KEY (b) REFERENCES sn_b (id))',
    ],
    writes: [
      [
        'INSERT INTO sn_a VALUES (1, 1), (2, 2)',
        'INSERT INTO sn_b VALUES (10, 1, 0), (20, 2, 0)',
        'INSERT INTO sn_c VALUES (100, 10)',
      ],
      ['DELETE FROM sn_a WHERE id = 1'],
      ['UPDATE sn_b SET n = 7 WHERE a IS NULL', 'UPDATE sn_a SET id = 3 WHERE id = 2'],
      [
        'INSERT INTO sn_a VALUES (1, 5)',
        'UPDATE sn_b SET a = 1',
        'DELETE FROM sn_c',
        'DELETE FROM sn_b WHERE id = 10',
      ],
      ['DELETE FROM sn_a WHERE id = 1'],
    ],
  },
  {
    name: 'a self-referencing foreign key that cascades',
    tables: [
      'CREATE TABLE cs_self (id INT PRIMARY KEY, up INT, n INT, FOREIGN KEY (up) REFERENCES cs_self (id) ON DELETE CASCADE)',
    ],
    writes: [
      ['INSERT INTO cs_self VALUES (1, NULL, 0), (2, 1, 0), (3, 2, 0), (4, 3, 0), (9, NULL, 0)'],
      ['DELETE FROM cs_self WHERE id IN (2, 3)'],
      ['INSERT INTO cs_self VALUES (2, 1, 5), (3, 9, 5)', 'UPDATE cs_self SET up = 3 WHERE id = 2'],
      ['DELETE FROM cs_self WHERE id = 9', 'INSERT INTO cs_self VALUES (2, NULL, 6)'],
    ],
  },
  {
    name: 'full-text and plain keys on text',
    tables: [
      'CREATE TABLE ft (id INT PRIMARY KEY, title VARCHAR(100), body TEXT, FULLTEXT KEY ft (title, body), KEY t (body(10)))',
    ],
    writes: [
      [`INSERT INTO ft VALUES (1, 'one two', 'three four'), (2, 'five', NULL), (3, 'six', 'seven')`],
      [`UPDATE ft SET body = 'eight nine' WHERE id = 2`, `DELETE FROM ft WHERE id = 1`],
      [`UPDATE ft SET title = CONCAT(title, ' ten')`, `INSERT INTO ft VALUES (1, 'again', 'and again')`],
    ],
  },
  {
    name: 'spatial keys',
    tables: ['CREATE TABLE sp (id INT PRIMARY KEY, g POINT NOT NULL, n INT, SPATIAL KEY g (g))'],
    writes: [
      [`INSERT INTO sp VALUES (1, ST_GeomFromText('POINT(1 2)'), 1), (2, ST_GeomFromText('POINT(3 4)'), 2)`],
      [`UPDATE sp SET g = ST_GeomFromText('POINT(5 6)') WHERE id = 1`, 'UPDATE sp SET n = n + 1'],
      [`DELETE FROM sp WHERE id = 2`, `INSERT INTO sp VALUES (3, ST_GeomFromText('POINT(7 8)'), 3)`],
    ],
  },
  {
    name: 'savepoints and rolled-back parts',
    tables: ['CREATE TABLE sv (id INT PRIMARY KEY, n INT)'],
    writes: [
      [
        'INSERT INTO sv VALUES (1, 1)',
        'SAVEPOINT s1',
        'INSERT INTO sv VALUES (2, 2)',
        'UPDATE sv SET n = 9',
        'ROLLBACK TO SAVEPOINT s1',
        'INSERT INTO sv VALUES (3, 3)',
      ],
      [
        'SAVEPOINT a',
        'UPDATE sv SET n = 5 WHERE id = 1',
        'SAVEPOINT b',
        'DELETE FROM sv WHERE id = 3',
        'ROLLBACK TO b',
        'RELEASE SAVEPOINT a',
      ],
      ['INSERT INTO sv VALUES (4, 4)', 'SAVEPOINT x', 'DELETE FROM sv', 'ROLLBACK TO x'],
    ],
  },
  {
    name: 'auto-increment, key 0, defaults and checks',
    tables: [
      `CREATE TABLE ai (id INT AUTO_INCREMENT PRIMARY KEY, n INT DEFAULT 5, c INT, t DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
        CHECK (c < 1000), UNIQUE KEY c (c))`,
    ],
    writes: [
      [`INSERT INTO ai (c) VALUES (1), (2), (NULL)`],
      [`UPDATE ai SET id = 0 WHERE c = 1`],
      [`UPDATE ai SET n = 6`],
      [`INSERT INTO ai (id, c) VALUES (-7, 70)`, `DELETE FROM ai WHERE c = 2`],
      [`DELETE FROM ai WHERE id = 0`],
    ],
  },
  {
    name: 'partitions',
    tables: [
      'CREATE TABLE pt (id INT, day INT, n INT, PRIMARY KEY (id, day)) PARTITION BY RANGE (day) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))',
    ],
    writes: [
      ['INSERT INTO pt VALUES (1, 1, 1), (2, 15, 2)'],
      ['UPDATE pt SET day = 16 WHERE id = 1', 'UPDATE pt SET n = n + 1'],
      ['DELETE FROM pt WHERE id = 2'],
    ],
  },
  {
    name: 'names that need quotes',
    tables: [
      'CREATE TABLE `od``d-ü.t` (`pri``mary` INT PRIMARY KEY, `select` INT, `a.b` VARCHAR(10), `ünï` INT)',
    ],
    writes: [
      ["INSERT INTO `od``d-ü.t` VALUES (1, 2, 'x', 3), (2, 3, 'y', 4)"],
      [
        'UPDATE `od``d-ü.t` SET `select` = 9, `ünï` = 8 WHERE `pri``mary` = 1',
        'DELETE FROM `od``d-ü.t` WHERE `pri``mary` = 2',
      ],
    ],
  },
];

export const MYSQL_TABLES: Kind[] = [
  {
    name: 'a generated column in the primary key',
    tables: ['CREATE TABLE gen_key (a INT NOT NULL, k INT AS (a DIV 10) STORED, n INT, PRIMARY KEY (k, a))'],
    writes: [
      ['INSERT INTO gen_key (a, n) VALUES (15, 1), (25, 2), (26, 3)'],
      ['UPDATE gen_key SET n = n + 1'],
      ['UPDATE gen_key SET a = 35 WHERE a = 25', 'DELETE FROM gen_key WHERE a = 15'],
    ],
  },
  {
    name: 'invisible columns and an invisible key',
    tables: [
      `CREATE TABLE inv (id INT PRIMARY KEY, a INT, hidden INT INVISIBLE, g INT AS (a + 1) STORED INVISIBLE)`,
      `CREATE TABLE gipk (my_row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE PRIMARY KEY, n INT)`,
    ],
    writes: [
      [
        'INSERT INTO inv (id, a, hidden) VALUES (1, 1, 7)',
        'INSERT INTO inv VALUES (2, 2)',
        'INSERT INTO gipk VALUES (1), (2)',
      ],
      ['UPDATE inv SET hidden = 8 WHERE id = 2', 'UPDATE gipk SET n = n + 10'],
      ['DELETE FROM inv WHERE id = 1', 'DELETE FROM gipk WHERE n = 11'],
    ],
  },
  {
    name: 'unique keys of expressions',
    tables: [
      'CREATE TABLE fx (id INT PRIMARY KEY, s VARCHAR(20), n INT, UNIQUE KEY low ((LOWER(s))), KEY mv ((n + 1)))',
    ],
    writes: [
      [`INSERT INTO fx VALUES (1, 'One', 1), (2, 'Two', 2)`],
      [
        `UPDATE fx SET s = 'x' WHERE id = 1`,
        `UPDATE fx SET s = 'ONE' WHERE id = 2`,
        `UPDATE fx SET s = 'TWO' WHERE id = 1`,
      ],
      ['UPDATE fx SET n = n + 1', 'DELETE FROM fx WHERE id = 1'],
      [`INSERT INTO fx VALUES (3, 'two', 3)`],
    ],
  },
  {
    name: 'multi-valued keys on JSON',
    tables: [
      `CREATE TABLE mv (id INT PRIMARY KEY, j JSON, g VARCHAR(20) AS (j->>'$.n') STORED, v VARCHAR(20) AS (j->>'$.v') VIRTUAL, KEY z ((CAST(j->'$.z' AS UNSIGNED ARRAY))), KEY v (v))`,
    ],
    writes: [
      [
        `INSERT INTO mv VALUES (1, '{"z": [1, 2], "n": "x", "v": "w"}', DEFAULT, DEFAULT), (2, '{"z": []}', DEFAULT, DEFAULT)`,
      ],
      [
        `UPDATE mv SET j = JSON_SET(j, '$.z', CAST('[3]' AS JSON)) WHERE id = 1`,
        `DELETE FROM mv WHERE id = 2`,
      ],
      [`UPDATE mv SET j = JSON_REMOVE(j, '$.n')`],
    ],
  },
  {
    name: 'JSON of columns',
    tables: [
      "CREATE TABLE jcol (id INT PRIMARY KEY, j JSON, t TIMESTAMP(6) NULL, d DATETIME, b BIT(9), y YEAR, vb VARBINARY(9), bl BLOB, e ENUM('x'), f FLOAT, g POINT)",
    ],
    writes: [
      [
        `INSERT INTO jcol VALUES (1, NULL, '2024-01-02 03:04:05.000006', '2024-01-02 03:04:05', 5, 2024, x'00FF', x'00FF27', 'x', 0.1, ST_GeomFromText('POINT(1 2)'))`,
      ],
      [
        `UPDATE jcol SET j = JSON_OBJECT('t', t, 'd', d, 'b', b, 'y', y, 'vb', vb, 'bl', bl, 'e', e, 'f', f, 'g', g, 'n', JSON_ARRAY(bl, b, t))`,
      ],
      [`UPDATE jcol SET j = JSON_ARRAY(j, f)`],
    ],
  },
  {
    name: 'columns that take one SRID only',
    tables: [
      'CREATE TABLE srid (id INT PRIMARY KEY, g GEOMETRY NOT NULL SRID 4326, p POINT SRID 0, SPATIAL KEY g (g))',
    ],
    writes: [
      [
        `INSERT INTO srid VALUES (1, ST_GeomFromText('POINT(10 20)', 4326), ST_GeomFromText('POINT(1 2)')), (2, ST_GeomFromText('LINESTRING(0 0, 45 -170)', 4326), NULL)`,
      ],
      [`UPDATE srid SET g = ST_GeomFromText('POLYGON((0 0, 10 0, 10 20, 0 0))', 4326) WHERE id = 1`],
      [`DELETE FROM srid WHERE id = 2`],
    ],
  },
];

export const MARIADB_TABLES: Kind[] = [
  {
    name: 'invisible columns',
    tables: [
      `CREATE TABLE inv (id INT PRIMARY KEY, a INT, hidden INT INVISIBLE DEFAULT 3, g INT AS (a + 1) STORED INVISIBLE)`,
    ],
    writes: [
      ['INSERT INTO inv (id, a, hidden) VALUES (1, 1, 7)', 'INSERT INTO inv VALUES (2, 2)'],
      ['UPDATE inv SET hidden = 8 WHERE id = 2'],
      ['DELETE FROM inv WHERE id = 1'],
    ],
  },
  {
    name: 'addresses between texts',
    tables: [
      'CREATE TABLE adr (id INT PRIMARY KEY, a VARCHAR(10) CHARACTER SET latin1, u UUID, b VARCHAR(10) CHARACTER SET utf16, i INET6, c CHAR(4) CHARACTER SET sjis, v INET4, d BINARY(4), e TEXT, UNIQUE KEY u (u))',
    ],
    writes: [
      [
        `INSERT INTO adr VALUES (1, 'é', UUID(), 'ü', '::1', '表', '10.0.0.0', x'0100', '😀'), (2, 'ÿ', '6ccd780c-baba-1026-9564-5b8c656024db', '丠', '2001::', 'ソ', '10.0.0.1', x'00', 'x')`,
      ],
      [`UPDATE adr SET i = '::2', u = '00000000-0000-0000-0000-000000000001' WHERE id = 1`],
      [
        `UPDATE adr SET u = '00000000-0000-0000-0000-000000000002' WHERE id = 2`,
        `UPDATE adr SET u = '6ccd780c-baba-1026-9564-5b8c656024db' WHERE id = 1`,
      ],
    ],
  },
  {
    name: 'unique keys on long text (hash)',
    tables: ['CREATE TABLE lu (id INT PRIMARY KEY, b TEXT, n INT, UNIQUE KEY b (b))'],
    writes: [
      [`INSERT INTO lu VALUES (1, 'one', 1), (2, 'two', 2)`],
      [
        `UPDATE lu SET b = NULL WHERE id = 1`,
        `UPDATE lu SET b = 'one' WHERE id = 2`,
        `UPDATE lu SET b = 'two' WHERE id = 1`,
      ],
      ['UPDATE lu SET n = n + 1'],
      ['DELETE FROM lu WHERE id = 1', `INSERT INTO lu VALUES (3, 'two', 3)`],
    ],
  },
  {
    name: 'periods of application time',
    tables: [
      'CREATE TABLE per (id INT, s DATE, e DATE, n INT, PERIOD FOR p (s, e), PRIMARY KEY (id, p WITHOUT OVERLAPS))',
    ],
    writes: [
      [`INSERT INTO per VALUES (1, '2020-01-01', '2021-01-01', 1), (1, '2021-01-01', '2022-01-01', 2)`],
      [`UPDATE per FOR PORTION OF p FROM '2020-03-01' TO '2020-06-01' SET n = 5`],
      [`DELETE FROM per FOR PORTION OF p FROM '2021-02-01' TO '2021-03-01'`],
      [`UPDATE per SET e = '2020-02-15' WHERE n = 1 AND s = '2020-01-01'`],
    ],
  },
];
