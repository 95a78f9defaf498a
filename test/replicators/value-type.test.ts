import { describe, expect, it } from 'vitest';
import {
  columnDefault,
  defaultTest,
  holds,
  lengthOf,
  valueTypeOf,
} from '../../replicators/mysql/value-type.js';
import type { ValueType } from '../../replicators/mysql/value-type.js';

const typeOf = (type: string, bytesPerChar = 4): ValueType => {
  const dataType = /^\w+/.exec(type)![0];
  const chars = Number(/char\((\d+)\)/.exec(type)?.[1]);
  return valueTypeOf({ type, dataType, octets: Number.isNaN(chars) ? null : chars * bytesPerChar });
};

describe('whether a column holds what another one has', () => {
  it.each([
    ['bigint', 'int'],
    ['bigint(20)', 'int(11) unsigned'],
    ['int unsigned', 'mediumint unsigned'],
    ['varchar(40)', 'varchar(40)'],
    ['text', 'varchar(200)'],
    ['varchar(300)', 'tinytext'],
    ['mediumblob', 'varbinary(9)'],
    ['char(9)', 'char(3)'],
    ['decimal(10,4)', 'decimal(8,2) unsigned'],
    ['datetime(6)', 'datetime'],
    ["enum('a','b','c')", "enum('a','b')"],
    ["set('a','b''','c')", "set('a','b''')"],
    ['bit(9)', 'bit(8)'],
    ['json', 'json'],
  ])('%s holds all of %s', (target, source) => {
    expect(holds(typeOf(target), typeOf(source))).toBe('always');
  });

  it.each([
    ['int', 'varchar(9)'],
    ['varchar(9)', 'int'],
    ['varchar(9)', 'char(9)'],
    ['varchar(9)', 'varbinary(9)'],
    ['datetime', 'timestamp'],
    ['double', 'float'],
    ["enum('b','a')", "enum('a','b')"],
    ["enum('a','c')", "enum('a','b','c')"],
    ['json', 'longtext'],
    ['point', 'polygon'],
  ])('%s holds %s never', (target, source) => {
    expect(holds(typeOf(target), typeOf(source))).toBe('never');
  });

  it.each([
    ['tinyint', 'int', ['127', '-128'], ['128', '-129']],
    ['int unsigned', 'int', ['0'], ['-1']],
    ['bigint', 'bigint unsigned', ['9223372036854775807'], ['9223372036854775808']],
    ['decimal(4,2)', 'decimal(9,4)', ['-99.99', '0.1000', '7'], ['100', '0.001', '-100.00']],
    ['decimal(4,2) unsigned', 'decimal(4,2)', ['1.00', '0.00'], ['-1.00']],
    [
      'varchar(3)',
      'varchar(9)',
      ["'abc'", "'éé\\''", "''", "_latin1 x'616263'"],
      ["'abc '", "_latin1 x'61626320'"],
    ],
    ['varchar(100)', 'tinytext', [`'${'a'.repeat(100)}'`], [`'${'a'.repeat(101)}'`]],
    ['tinytext', 'text', [`'${'é'.repeat(127)}'`], [`'${'é'.repeat(128)}'`]],
    ['varbinary(2)', 'varbinary(3)', ["x'0000'", "''"], ["x'000000'"]],
    ['datetime(3)', 'datetime(6)', ["'2020-01-01 00:00:00.120000'"], ["'2020-01-01 00:00:00.000100'"]],
    ['time', 'time(6)', ["'-00:00:01.000000'", "'01:00:00'"], ["'-00:00:00.000001'"]],
    ["enum('a','b')", "enum('a','b','c')", ['0', '2'], ['3']],
    ["set('a','b')", "set('a','b','c')", ['0', '3'], ['4', '-1']],
    ['bit(3)', 'bit(8)', ['7'], ['8']],
  ])('%s holds some of %s', (target, source, fitting, others) => {
    const fits = holds(typeOf(target), typeOf(source));
    if (typeof fits === 'string') throw new Error(fits);
    expect(fitting.filter((value) => !fits(value))).toEqual([]);
    expect(others.filter((value) => fits(value))).toEqual([]);
  });

  it('measures text as it is stored', () => {
    expect(lengthOf("'a\\'\\\\\\0é€'")).toEqual({ bytes: 9, chars: 6 });
    expect(lengthOf("'😀'")).toEqual({ bytes: 4, chars: 1 });
    expect(lengthOf("_gbk x'8140'")).toEqual({ bytes: 2, chars: null });
  });
});

describe('defaults', () => {
  it('are read as each flavour shows them', () => {
    expect(columnDefault(null, '', false)).toEqual({ kind: 'none' });
    expect(columnDefault('NULL', '', true)).toEqual({ kind: 'none' });
    expect(columnDefault('NULL', '', false)).toEqual({ kind: 'literal', text: 'NULL' });
    expect(columnDefault("it's", '', false)).toEqual({ kind: 'literal', text: "it's" });
    expect(columnDefault("'it''s'", '', true)).toEqual({ kind: 'literal', text: "it's" });
    expect(columnDefault('-1.50', '', true)).toEqual({ kind: 'literal', text: '-1.50' });
    expect(columnDefault('uuid()', 'default_generated', false)).toEqual({ kind: 'expression' });
    expect(columnDefault('CURRENT_TIMESTAMP(3)', '', false)).toEqual({ kind: 'expression' });
    expect(columnDefault('current_timestamp()', '', true)).toEqual({ kind: 'expression' });
    expect(columnDefault("'a' + 'b'", '', true)).toEqual({ kind: 'expression' });
  });

  const test = (
    type: string,
    text: string | null,
    charset: string | null = null,
    nullable = false,
  ): ReturnType<typeof defaultTest> =>
    defaultTest({
      ...{ type, dataType: /^\w+/.exec(type)![0], charset, octets: null, nullable },
      default: text === null ? { kind: 'none' } : { kind: 'literal', text },
    });

  it.each([
    ['int', '007', null, '7', ['8', 'NULL']],
    ['decimal(6,2)', '1.5', null, '1.50', ['-1.50', '1.51']],
    ['decimal(6,2)', '-0.00', null, '0.00', ['0.01']],
    ['varchar(9)', 'a b', 'utf8mb4', "'a b'", ["'a b '", "'A b'", 'NULL']],
    ['varchar(9)', 'ab', 'latin1', "_latin1 x'6162'", ["_latin1 x'616220'", "''"]],
    ['varchar(9)', '', 'utf8mb4', "''", ["' '"]],
    ['char(9)', 'ab  ', 'utf8mb4', "'ab'", ["'abc'"]],
    [
      'datetime(6)',
      '2020-01-01 00:00:00',
      null,
      "'2020-01-01 00:00:00.000000'",
      ["'2020-01-01 00:00:00.000001'"],
    ],
    ["enum('a','b')", 'b', 'utf8mb4', '2', ['1', '0']],
    ['bit(4)', "b'101'", null, '5', ['4']],
    ['float', '0.1', null, '0.10000000149011612e0', ['0.1e0']],
    ['double', '0.1', null, '0.1e0', ['0.2e0']],
    ['year', '2020', null, '2020', ['2021']],
  ])('of %s %j: a value is told to be it', (type, text, charset, same, others) => {
    const is = test(type, text, charset)!;
    expect(is(same)).toBe(true);
    expect(others.filter((value) => is(value))).toEqual([]);
  });

  it('that cannot be compared are none', () => {
    expect(test('timestamp', '2020-01-01 00:00:00')).toBeUndefined();
    expect(test('varchar(9)', 'é', 'utf8mb4')).toBeUndefined();
    expect(test('varchar(9)', 'a', 'utf16')).toBeUndefined();
    expect(test('binary(2)', '\\0')).toBeUndefined();
    expect(test('int', null)).toBeUndefined();
    expect(test('int', null, null, true)!('NULL')).toBe(true);
    expect(test('int', null, null, true)!('0')).toBe(false);
  });
});
