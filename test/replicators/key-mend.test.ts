import { describe, expect, it } from 'vitest';
import { keyStatements } from '../../replicators/mysql/key-mend.js';

const create = (lines: string[], engine = 'InnoDB'): string =>
  `CREATE TABLE \`item\` (\n  \`id\` int NOT NULL,\n  \`n\` int DEFAULT NULL,\n  ${lines.join(',\n  ')}\n) ENGINE=${engine} DEFAULT CHARSET=utf8mb4`;
const PRIMARY = 'PRIMARY KEY (`id`)';
const CASCADE =
  'CONSTRAINT `of` FOREIGN KEY (`n`) REFERENCES `parent` (`id`) ON DELETE CASCADE ON UPDATE RESTRICT';

describe('what makes the keys of a table agree', () => {
  it.each([
    ['nothing', [PRIMARY, 'KEY `k` (`n`)'], [PRIMARY], []],
    [
      'a unique key that the target lacks',
      [PRIMARY, 'UNIQUE KEY `one` (`n`)'],
      [PRIMARY],
      ['ALTER TABLE t ADD UNIQUE KEY `one` (`n`)'],
    ],
    [
      'one that it has beside, and one of other columns',
      [PRIMARY, 'UNIQUE KEY `one` (`n`,`id`)'],
      [PRIMARY, 'UNIQUE KEY `one` (`n`)', 'UNIQUE KEY `two` (`n`)'],
      ['ALTER TABLE t DROP INDEX `one`, DROP INDEX `two`, ADD UNIQUE KEY `one` (`n`,`id`)'],
    ],
    [
      'another primary key',
      ['PRIMARY KEY (`id`,`n`)'],
      [PRIMARY],
      ['ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (`id`,`n`)'],
    ],
    [
      'a cascade that does otherwise',
      [PRIMARY, CASCADE],
      [PRIMARY, CASCADE.replace('CASCADE', 'SET NULL')],
      ['ALTER TABLE t DROP FOREIGN KEY `of`', `ALTER TABLE t ADD ${CASCADE}`],
    ],
  ])('%s', (_what, source, target, statements) => {
    expect(keyStatements(create(source), create(target), 't')).toEqual(statements);
  });

  it('another engine', () => {
    expect(keyStatements(create([PRIMARY]), create([PRIMARY], 'MyISAM'), 't')).toEqual([
      'ALTER TABLE t ENGINE=InnoDB',
    ]);
  });
});
