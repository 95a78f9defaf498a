import { describe, expect, it } from 'vitest';
import { jsonLiteral } from '../../replicators/mysql/json-binary.js';

function double(value: number, asText = false): string {
  const bytes = Buffer.alloc(9);
  bytes[0] = 11;
  bytes.writeDoubleLE(value, 1);
  return jsonLiteral(bytes, asText);
}

describe('a double in MySQL JSON', () => {
  it.each([
    [1, `'1.0'`],
    [-0, `'-0.0'`],
    [0.1, `'0.1'`],
    [1e22, `'1e+22'`],
    [123456.789, `'123456.789'`],
    // Its parser would be off in the last bit.
    [235.21151361737114, 'CAST(235.21151361737114e0 AS JSON)'],
    [-1.0773965665159565e-99, 'CAST(-1.0773965665159565e-99 AS JSON)'],
    [1e23, 'CAST(1e+23 AS JSON)'],
  ])('%s', (value, literal) => {
    expect(double(value)).toBe(literal);
  });

  it.each([
    [1, `'1.0'`],
    [1e20, `'1e20'`],
    [1e15, `'1e15'`],
    [123456789012345, `'123456789012345.0'`],
    [0.000000000000017555, `'0.000000000000017555'`],
    [2.5e-133, `'2.5e-133'`],
    [-235.21, `'-235.21'`],
  ])('%s as MySQL shows it', (value, literal) => {
    expect(double(value, true)).toBe(literal);
  });
});
