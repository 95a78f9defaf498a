import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KeyExtractor } from '../../src/routing/key.js';
import type { KeySource } from '../../src/routing/key.js';
import { murmur3 } from '../../src/routing/murmur3.js';
import { bucketOf } from '../../src/routing/units.js';

const wire = (text: string): string => Buffer.from(text, 'utf8').toString('latin1');

function extractor(source: KeySource): KeyExtractor {
  return new KeyExtractor({
    app: { paths: ['/'], routingKey: { userId: [source], region: [] }, central: {} },
  });
}

const wellFormed = (text: string): boolean => !/\p{Surrogate}/u.test(text);

/** Texts that a routing key may be: no control characters, at most 256 bytes, well-formed. */
const userId = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 40 })
  .filter((text) => !/[\u0000-\u001f\u007f]/.test(text) && wellFormed(text));

test('what a client encodes is what is read, whatever the source', () => {
  fc.assert(
    fc.property(userId, (user) => {
      const encoded = encodeURIComponent(user);
      const form = new URLSearchParams([['user id', user]]).toString();
      const found = [
        extractor({ query: 'user id' }).extract({ target: `/?a=1&${form}`, headers: {} }),
        extractor({ query: 'u' }).extract({ target: `/?u=${encoded}`, headers: {} }),
        extractor({ path: '/u/:userId/*' }).extract({ target: `/u/${encoded}/x`, headers: {} }),
        extractor({ cookie: 'uid' }).extract({ target: '/', headers: { cookie: `a=b; uid="${encoded}"` } }),
      ];
      if (user.trim() === user) {
        found.push(
          extractor({ header: 'X-User' }).extract({ target: '/', headers: { 'x-user': wire(user) } }),
        );
      }
      for (const each of found)
        expect(each).toEqual({ kind: 'key', application: 'app', key: { userId: user } });
    }),
    { numRuns: 300 },
  );
});

test('no bytes of a client make it throw, or answer a key that is no text of 1 to 256 bytes', () => {
  const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array).toString('latin1'));
  const hostile = fc.oneof(
    bytes,
    fc.string({ unit: fc.constantFrom('/', '%', '2', 'f', '?', '&', '=', '+', '#', ';', '"', 'u') }),
  );
  const any = new KeyExtractor({
    app: {
      paths: ['/'],
      routingKey: {
        userId: [{ header: 'u' }, { cookie: 'u' }, { query: 'u' }, { path: '/u/:userId/*' }],
        region: [{ query: 'r' }],
      },
      central: { '/u/2': 'central:x' },
    },
  });
  fc.assert(
    fc.property(hostile, fc.option(hostile, { nil: undefined }), hostile, (target, u, cookie) => {
      const found = any.extract({ target, headers: { u, cookie } });
      if (found.kind !== 'key') return;
      const length = Buffer.byteLength(found.key.userId);
      expect(length).toBeGreaterThan(0);
      expect(length).toBeLessThanOrEqual(256);
      expect(wellFormed(found.key.userId)).toBe(true);
    }),
    { numRuns: 2000 },
  );
});

test('buckets spread evenly', () => {
  const counts = new Array<number>(1000).fill(0);
  for (let i = 0; i < 200_000; i++) counts[bucketOf(`user-${i}`)]!++;
  // 200 per bucket; five standard deviations are 71.
  expect(Math.min(...counts)).toBeGreaterThan(129);
  expect(Math.max(...counts)).toBeLessThan(271);
});

test('murmur3 is an unsigned 32-bit number of any text', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.integer(), (text, seed) => {
      const hash = murmur3(text, seed);
      expect(Number.isInteger(hash) && hash >= 0 && hash <= 0xffffffff).toBe(true);
      expect(murmur3(text, seed)).toBe(hash);
    }),
  );
});
