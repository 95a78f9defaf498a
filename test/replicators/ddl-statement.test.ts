import { describe, expect, it } from 'vitest';
import { readStatement, splitStatements } from '../../replicators/mysql/ddl-apply/statement.js';
import { algorithmsOf, textFor } from '../../replicators/mysql/ddl-apply/attempts.js';
import { InterlockError } from '../../src/errors.js';

describe('the statements of a file', () => {
  it('are what stands between semicolons that are no text', () => {
    expect(
      splitStatements(`-- first; not one
        ALTER TABLE s.t COMMENT='a;b''c;'; # x;
        /* y; */ CREATE TABLE s.\`u;\` (id INT);;
        DROP TABLE s.v`),
    ).toEqual([
      "-- first; not one\n        ALTER TABLE s.t COMMENT='a;b''c;'",
      '# x;\n        /* y; */ CREATE TABLE s.`u;` (id INT)',
      'DROP TABLE s.v',
    ]);
  });

  it.each([
    ['alter table `s`.`t` ADD x INT', 'alter', 's.t', '`s`.`t`'],
    ['ALTER TABLE IF EXISTS s . t DROP COLUMN x', 'alter', 's.t', 's . t'],
    ['/* c */ CREATE TABLE IF NOT EXISTS s.t (id INT PRIMARY KEY)', 'create', 's.t', 's.t'],
    ['CREATE UNIQUE INDEX one ON s.t (a)', 'create-index', 's.t', 's.t'],
    ['CREATE INDEX `on` ON s.t (a)', 'create-index', 's.t', 's.t'],
    ['DROP INDEX one ON s.t', 'drop-index', 's.t', 's.t'],
    ['DROP TABLE IF EXISTS s.t', 'drop', 's.t', 's.t'],
    ['ALTER TABLE s.t CHANGE a A BIGINT', 'alter', 's.t', 's.t'],
    ['ALTER TABLE s.t RENAME INDEX a TO b', 'alter', 's.t', 's.t'],
    ['ALTER TABLE s.t ADD `partition` INT, ADD KEY `if` (`partition`)', 'alter', 's.t', 's.t'],
    ["ALTER TABLE s.t COMMENT='x', ALTER COLUMN a SET DEFAULT 3, MODIFY b BIGINT", 'alter', 's.t', 's.t'],
    ["ALTER TABLE s.t ADD x ENUM('/*! a */')", 'alter', 's.t', 's.t'],
  ])('goes: %s', (text, verb, name, at) => {
    const found = readStatement(text);
    expect([found.verb, found.name, text.slice(found.nameFrom, found.nameTo)]).toEqual([verb, name, at]);
  });

  it.each([
    ['ALTER TABLE s.t RENAME COLUMN a TO b', 'renamed'],
    ['ALTER TABLE s.t RENAME TO u', 'renamed'],
    ['ALTER TABLE s.t RENAME AS s.u', 'renamed'],
    ['ALTER TABLE s.t CHANGE COLUMN a b INT', 'renamed'],
    ['RENAME TABLE s.t TO s.u', 'renamed'],
    ['TRUNCATE s.t', 'DELETE the rows'],
    ['INSERT INTO s.t VALUES (1)', 'changes rows'],
    ['with x AS (SELECT 1) DELETE FROM s.t', 'changes rows'],
    ['CREATE TABLE s.t AS SELECT 1 AS a', 'SELECT writes rows'],
    ['CREATE TABLE s.t SELECT * FROM s.u', 'SELECT writes rows'],
    ['DROP TABLE s.t, s.u', 'one table per statement'],
    ['DROP TABLE s.t CASCADE', 'one table per statement'],
    ['DROP DATABASE s', 'only ALTER TABLE'],
    ['CREATE VIEW s.v AS SELECT 1', 'only ALTER TABLE'],
    ['CREATE TRIGGER s.x BEFORE INSERT ON s.t FOR EACH ROW SET @a = 1', 'only ALTER TABLE'],
    ['CREATE TEMPORARY TABLE s.t (id INT)', 'only ALTER TABLE'],
    ['GRANT ALL ON *.* TO x', 'only ALTER TABLE'],
    ['ALTER TABLE t ADD x INT', 'name the table with its schema'],
    ['ALTER TABLE mysql.user ADD x INT', 'not a schema of applications'],
    ['DROP TABLE Interlock.marker', 'not a schema of applications'],
    ['ALTER TABLE s.t DROP PRIMARY KEY, ADD PRIMARY KEY (b)', 'primary key'],
    ['ALTER TABLE s.t ADD PRIMARY KEY (b)', 'primary key'],
    ['ALTER TABLE s.t TRUNCATE PARTITION p0', 'partitions'],
    ['ALTER TABLE s.t ADD x INT, DROP PARTITION p0', 'partitions'],
    ['ALTER TABLE s.t ADD PARTITION (PARTITION p9 VALUES LESS THAN (9))', 'partitions'],
    ["ALTER TABLE s.t COMMENT='x' PARTITION BY HASH (a)", 'partitions'],
    ['ALTER TABLE s.t WAIT 5 RENAME TO s.u', 'WAIT is not known here'],
    ['ALTER TABLE s.t', 'only ALTER TABLE'],
    ['ALTER TABLE s.t IMPORT TABLESPACE', 'tablespaces'],
    ['ALTER TABLE s.t ADD CONSTRAINT c CHECK (a > 0)', 'constraints'],
    ['ALTER TABLE s.t DROP CONSTRAINT c', 'constraints'],
    ['ALTER TABLE s.t ADD FOREIGN KEY (a) REFERENCES s.u (b)', 'foreign keys'],
    ['ALTER TABLE s.t DROP FOREIGN KEY f', 'foreign keys'],
    ['CREATE TABLE s.t (a INT PRIMARY KEY REFERENCES s.u (b))', 'foreign keys'],
    ['ALTER TABLE s.t AUTO_INCREMENT=5', 'changes no definition'],
    ['ALTER TABLE s.t ADD INDEX (a)', 'give the index a name'],
    ['ALTER TABLE s.t ADD UNIQUE KEY USING BTREE (a)', 'give the index a name'],
    ['CREATE INDEX ON s.t (a)', 'give the index a name'],
    ['ALTER TABLE s.t ADD (a INT, b INT)', 'one ADD COLUMN per column'],
    ['ALTER TABLE s.t ADD x INT /*!80000 INVISIBLE */', 'only some servers run'],
    ['/*M! DROP */ TABLE s.t', 'only some servers run'],
    ['DELIMITER $$', 'DELIMITER'],
  ])('does not go: %s', (text, why) => {
    expect(() => readStatement(text, 3)).toThrow(InterlockError);
    expect(() => readStatement(text, 3)).toThrow(why);
    expect(() => readStatement(text, 3)).toThrow('statement 3 (');
  });

  it('are asked to cost as little as they can, on whatever table', () => {
    const alter = readStatement('ALTER TABLE s.t ADD x INT -- why');
    expect(algorithmsOf(alter, 'mysql')).toEqual(['instant', 'inplace', 'copy']);
    expect(textFor(alter, 'instant')).toBe('ALTER TABLE s.t ADD x INT -- why\n, ALGORITHM=INSTANT');
    expect(textFor(alter, 'inplace', 'i.u')).toBe(
      'ALTER TABLE i.u ADD x INT -- why\n, ALGORITHM=INPLACE, LOCK=NONE',
    );
    expect(textFor(alter, 'copy')).toBe(alter.text);
    expect(textFor(readStatement('CREATE INDEX a ON s.t (b)'), 'inplace')).toBe(
      'CREATE INDEX a ON s.t (b)\nALGORITHM=INPLACE LOCK=NONE',
    );
    expect(algorithmsOf(readStatement('ALTER TABLE s.t ADD x INT, ALGORITHM=COPY'), 'mysql')).toEqual([null]);
    expect(algorithmsOf(readStatement('DROP INDEX a ON s.t'), 'mariadb')).toEqual([null]);
  });
});
