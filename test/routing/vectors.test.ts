import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { KeyExtractor } from '../../src/routing/key.js';
import type { ApplicationRouting, Extraction, RequestParts } from '../../src/routing/key.js';
import { murmur3 } from '../../src/routing/murmur3.js';
import { Router } from '../../src/routing/rules.js';
import type { Rules } from '../../src/routing/rules.js';
import { bucketOf } from '../../src/routing/units.js';
import type { RoutingKey } from '../../src/routing/units.js';

type Bytes = string | { hex: string };
interface RequestVector {
  name: string;
  target: string;
  headers: [string, Bytes][];
  expect: Extraction;
}
interface Vectors {
  murmur3: { text: string; seed: number; hash: number }[];
  buckets: { userId: string; bucket: number }[];
  rules: Rules;
  routes: {
    key: RoutingKey;
    route: { unit: string; owner: string; state: string; mappingVersion: number } | null;
  }[];
  units: { unit: string; owner: string | null; state: string | null }[];
  applications: Record<string, ApplicationRouting>;
  requests: RequestVector[];
  noApplication: { applications: Record<string, ApplicationRouting>; requests: RequestVector[] };
}

const vectors = JSON.parse(readFileSync(new URL('vectors.json', import.meta.url), 'utf8')) as Vectors;

test('murmur3', () => {
  for (const { text, seed, hash } of vectors.murmur3) expect(murmur3(text, seed), text).toBe(hash);
});

test('buckets', () => {
  for (const { userId, bucket } of vectors.buckets) expect(bucketOf(userId), userId).toBe(bucket);
});

test('routes', () => {
  const router = new Router(vectors.rules);
  for (const { key, route } of vectors.routes) {
    const found = router.route(key);
    const expected = route === null ? undefined : { ...route, epoch: vectors.rules.epoch };
    expect(found, JSON.stringify(key)).toEqual(expected);
  }
});

test('units', () => {
  const router = new Router(vectors.rules);
  for (const { unit, owner, state } of vectors.units) {
    const found = router.routeUnit(unit);
    expect({ owner: found?.owner ?? null, state: found?.state ?? null }, unit).toEqual({ owner, state });
  }
});

/** As node:http gives it: byte strings, names in lower case, repeated ones joined. */
function asReceived({ target, headers }: RequestVector): RequestParts {
  const received: Record<string, string> = {};
  for (const [name, value] of headers) {
    const bytes = typeof value === 'string' ? Buffer.from(value, 'utf8') : Buffer.from(value.hex, 'hex');
    const key = name.toLowerCase();
    const before = received[key];
    const text = bytes.toString('latin1');
    received[key] = before === undefined ? text : `${before}${key === 'cookie' ? '; ' : ', '}${text}`;
  }
  return { target: Buffer.from(target, 'utf8').toString('latin1'), headers: received };
}

describe('requests', () => {
  const extractor = new KeyExtractor(vectors.applications);
  test.each(vectors.requests)('$name', (vector) => {
    expect(extractor.extract(asReceived(vector))).toEqual(vector.expect);
  });
  const lone = new KeyExtractor(vectors.noApplication.applications);
  test.each(vectors.noApplication.requests)('$name', (vector) => {
    expect(lone.extract(asReceived(vector))).toEqual(vector.expect);
  });
});

test('repeated headers may also come as a list', () => {
  const extractor = new KeyExtractor(vectors.applications);
  const extract = (headers: RequestParts['headers']): Extraction =>
    extractor.extract({ target: '/', headers });
  expect(extract({ 'x-user-id': ['1', '2'] })).toMatchObject({ key: { userId: '1, 2' } });
  expect(extract({ cookie: ['a=1', 'uid=9'] })).toMatchObject({ key: { userId: '9' } });
});
