import { describe, expect, it } from 'vitest';
import type { TableBatch } from '../../replicators/mysql/batch.js';
import { cutFor, outOfLine } from '../../replicators/mysql/large-values.js';
import { quote } from '../../replicators/mysql/literal.js';
import { TooLarge } from '../../replicators/mysql/target-errors.js';

const MB = 1024 * 1024;
const table = { source: { name: 'shop.doc', columns: ['id', 'text'] } } as unknown as TableBatch;

/** The values that the pieces put together again; the text of each piece has to be whole. */
function joined(
  value: string,
  before: string | null = null,
  packetBytes = 64 * MB,
): { pieces: string[]; after: string; text: string } {
  const row = { key: '1', before: before === null ? null : ['1', before], after: ['1', value] };
  const { rows, pieces } = outOfLine(table, [row], cutFor(packetBytes));
  const parts = pieces.map(
    (sql) => /^SET @interlock_0=(?:CONCAT\(@interlock_0,)?(x?'[\s\S]*')\)?$/.exec(sql)![1]!,
  );
  return {
    pieces,
    after: rows[0]!.after![1]!,
    text: parts.map((part) => part.replace(/^x?'/, '').slice(0, -1)).join(''),
  };
}

describe('large values in pieces', () => {
  it('are whole again, of any length', () => {
    for (const length of [300_000, 2 * 1024 * 1024 - 1, 2 * 1024 * 1024, 5_000_001]) {
      const value = quote('x'.repeat(length));
      expect(`'${joined(value).text}'` === value).toBe(true);
    }
  });

  it('split no escape and no character', () => {
    for (let shift = 0; shift < 4; shift++) {
      const value = quote('a'.repeat(shift) + "\\'😀\0".repeat(700_000));
      const { text, pieces } = joined(value);
      expect(`'${text}'` === value).toBe(true);
      expect(pieces.length).toBeGreaterThan(2);
      for (const piece of pieces) {
        const inner = piece.slice(piece.indexOf("'") + 1, piece.lastIndexOf("'"));
        expect(/(?:^|[^\\])(?:\\\\)*\\$/.test(inner.slice(-8))).toBe(false);
        expect(/^[\uDC00-\uDFFF]|[\uD800-\uDBFF]$/.test(inner)).toBe(false);
      }
    }
  });

  it('give bytes of a character set that set at the end, and leave what did not change', () => {
    const value = `_gbk x'${'C4E3'.repeat(200_000)}'`;
    expect(joined(value).after).toBe('CONVERT(@interlock_0 USING gbk)');
    expect(joined(value, value)).toEqual({ pieces: [], after: value, text: '' });
    const expression = `JSON_ARRAY('${'x'.repeat(400_000)}')`;
    expect(joined(expression).after).toBe(expression);
  });

  it.each([1, 4, 8, 16])('fit a packet of %s MB', (megabytes) => {
    for (const value of [quote('ü'.repeat(400_000)), `x'${'ab'.repeat(900_000)}'`]) {
      const { pieces, text } = joined(value, null, megabytes * MB);
      expect(text === value.replace(/^x?'/, '').slice(0, -1)).toBe(true);
      for (const piece of pieces) expect(Buffer.byteLength(piece)).toBeLessThan(megabytes * MB);
    }
  });

  it('are refused by name where the target can put none together', () => {
    expect(() => joined(quote('ü'.repeat(MB)), null, 2 * MB - 1)).toThrow(TooLarge);
    expect(() => joined(`x'${'ab'.repeat(2 * MB)}'`, null, 2 * MB - 1)).toThrow(
      /shop\.doc: text of key \(1\) has 2097152 bytes, the target's max_allowed_packet is 2097151/,
    );
    expect(joined(`x'${'ab'.repeat(2 * MB)}'`, null, 2 * MB).pieces.length).toBeGreaterThan(0);
  });
});
