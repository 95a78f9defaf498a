/**
 * `npm run bench -- routing [--json]`: routing decisions per second of one thread. The peer is the least that a router could do: one lookup of a
 * ready-made answer in a Map by user id. Not measured: a network, many threads.
 */
import { KeyExtractor } from '../../src/routing/key.js';
import { Router } from '../../src/routing/rules.js';
import type { Route, Rules } from '../../src/routing/rules.js';
import { benchFlags } from './flags.js';
import { compare, machine, printReport } from './report.js';

const USERS = 100_000;
const PAIRS = 9;
const RUN_MS = 400;

const { json } = benchFlags('routing', { json: { type: 'boolean', default: false } });

const userIds = Array.from({ length: USERS }, (_, i) => `user-${i * 7919}`);
const rules: Rules = {
  format: 1,
  topology: 'bench',
  epoch: 1,
  mappingVersion: 1,
  unitMappingVersions: {},
  defaultRegion: 'cn-east',
  regions: {
    'cn-east': [
      { from: 0, to: 99, owner: 'dc-b', state: 'open' },
      { from: 100, to: 999, owner: 'dc-a', state: 'open' },
    ],
  },
  segments: {
    vip: { owner: 'dc-b', state: 'open', members: userIds.filter((_, i) => i % 100 === 0).sort() },
  },
  central: { coupons: { owner: 'dc-a', state: 'open' } },
  holder: null,
  reason: 'benchmark',
};
const router = new Router(rules);
const extractor = new KeyExtractor({
  shop: {
    paths: ['/'],
    routingKey: { userId: [{ header: 'x-user-id' }, { query: 'userId' }], region: [{ header: 'x-region' }] },
    central: { '/coupons': 'central:coupons' },
  },
});
const requests = userIds.map((id, i) => ({
  target: i % 2 === 0 ? '/wallet/transfer?x=1' : `/wallet/transfer?x=1&userId=${id}`,
  headers: i % 2 === 0 ? { host: 'shop', 'x-user-id': id } : { host: 'shop' },
}));
const ready = new Map<string, Route>(userIds.map((userId) => [userId, router.route({ userId })!]));

/** Keeps the engine from leaving the work out. */
let sink = 0;

/** Calls per second of `work(i)` over all users, for RUN_MS. */
function rate(work: (i: number) => Route | undefined): number {
  let calls = 0;
  const started = performance.now();
  let now = started;
  while (now - started < RUN_MS) {
    for (let i = 0; i < 10_000; i++) if (work((calls + i) % USERS)!.owner === 'dc-b') sink++;
    calls += 10_000;
    now = performance.now();
  }
  return calls / ((now - started) / 1000);
}

function measure(ours: (i: number) => Route | undefined): { ours: number; peer: number }[] {
  const peer = (i: number): Route | undefined => ready.get(userIds[i]!);
  rate(ours);
  rate(peer);
  return Array.from({ length: PAIRS }, (_, i) => {
    // Taking turns at being first: what warms up or slows down meets both.
    if (i % 2 === 0) return { ours: rate(ours), peer: rate(peer) };
    const second = rate(peer);
    return { ours: rate(ours), peer: second };
  });
}

const decision = measure((i) => router.route({ userId: userIds[i]! }));
const request = measure((i) => {
  const extraction = extractor.extract(requests[i]!);
  return extraction.kind === 'key' ? router.route(extraction.key) : undefined;
});
if (sink === 0) throw new Error('nothing was routed to dc-b');

printReport(
  {
    bench: 'routing',
    machine: machine(),
    settings: { users: USERS, segmentMembers: USERS / 100, pairs: PAIRS, runMs: RUN_MS, threads: 1 },
    results: [
      compare('routing decisions', '1/s', 'lookup of a ready-made answer in a Map', decision),
      compare('routing decisions from a request', '1/s', 'lookup of a ready-made answer in a Map', request),
    ],
  },
  json,
);
