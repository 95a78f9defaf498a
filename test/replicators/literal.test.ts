import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { hex, identifier, quote, textOf } from '../../replicators/mysql/literal.js';

describe('SQL literals', () => {
  it('text comes back as it was', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary-ascii' }), (text) => {
        expect(textOf(quote(text))).toBe(text);
      }),
    );
  });

  it('no text can end its literal', () => {
    for (const text of [`'; DROP TABLE x; --`, `\\'`, `\\`, `\0`, `a\\`, `''`]) {
      const inner = quote(text).slice(1, -1);
      expect(inner.replace(/\\./gs, '')).not.toMatch(/['\\]/);
    }
  });

  it('knows numbers, NULL, bytes and names', () => {
    expect(textOf('-12.50')).toBe('-12.50');
    expect(textOf('NULL')).toBeNull();
    expect(hex(Buffer.from([0, 255]))).toBe(`x'00ff'`);
    expect(hex(Buffer.alloc(0))).toBe(`''`);
    expect(identifier('a`b')).toBe('`a``b`');
    expect(() => textOf(`_latin1 x'00'`)).toThrowError();
  });
});
