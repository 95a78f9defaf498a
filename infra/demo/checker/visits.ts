import { openRedis } from '../../../src/fence/redis-client.js';
import type { RedisAddress } from '../../../src/topology/redis-address.js';
import type { WriteRecord } from '../load/journal.js';
import type { LedgerFinding } from './ledger.js';

export interface VisitAudit {
  journal: readonly WriteRecord[];
  stores: readonly { dc: string; address: RedisAddress }[];
  ownerOf: (unit: string) => string | undefined;
  unitOf: (region: string, userId: string) => string;
  /** How long the links may take to converge. */
  timeoutMs: number;
}

/** What a store has of visits: request id → how often it was carried out, and the count, by `<region>:<user>`. */
type Visits = Map<string, { ids: Map<string, number>; count: number }>;

/** Holds the visits that were acknowledged against what both Redis stores have, when these are equal. */
export async function auditVisits(audit: VisitAudit): Promise<LedgerFinding[]> {
  const findings: LedgerFinding[] = [];
  if (audit.stores.length === 0) return findings;
  const find = (kind: LedgerFinding['kind'], requestId: string | null, message: string): void =>
    void findings.push({ kind, requestId, message });
  const deadline = Date.now() + audit.timeoutMs;
  let books: [string, Visits][];
  for (;;) {
    books = await Promise.all(
      audit.stores.map(async ({ dc, address }): Promise<[string, Visits]> => [dc, await read(address)]),
    );
    const [one, other] = books.map(([, visits]) => text(visits));
    if (one === other) break;
    if (Date.now() > deadline) {
      find('lost', null, 'the visits in the Redis stores of the two data centers differ');
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const byDc = new Map(books);
  const known = new Set<string>();
  for (const write of audit.journal) {
    if (write.kind !== 'visit') continue;
    known.add(write.id);
    const owner = audit.ownerOf(audit.unitOf(write.region, write.userId));
    const times =
      byDc
        .get(owner ?? '')
        ?.get(`${write.region}:${write.userId}`)
        ?.ids.get(write.id) ?? 0;
    if (times > 1) find('doubled', write.id, `visit was counted ${times} times`);
    else if (times === 0 && write.status === 'acked')
      find('lost', write.id, `visit was acknowledged (${write.gateway}) and is not in the Redis of ${owner}`);
    else if (times === 1 && write.status === 'refused')
      find('refused-but-there', write.id, `visit was refused (HTTP ${write.http}) and is there`);
  }
  for (const [dc, visits] of books) {
    for (const [user, { ids, count }] of visits) {
      if (ids.size !== count)
        find('money', null, `${dc}: ${user} has ${ids.size} visits, the count is ${count}`);
      for (const id of ids.keys())
        if (!known.has(id)) find('stray', id, `${dc} has a visit that was never sent`);
    }
  }
  return findings;
}

async function read(address: RedisAddress): Promise<Visits> {
  const client = openRedis(address, 'checker');
  try {
    const visits: Visits = new Map();
    for await (const keys of client.scanStream({ match: 'visit:*', count: 1000 })) {
      for (const key of keys as string[]) {
        const user = key.slice('visit:'.length);
        const [ids, count] = await Promise.all([client.hgetall(key), client.get(`count:${user}`)]);
        visits.set(user, {
          ids: new Map(Object.entries(ids).map(([id, times]) => [id, Number(times)])),
          count: Number(count),
        });
      }
    }
    return visits;
  } finally {
    client.disconnect();
  }
}

function text(visits: Visits): string {
  const lines = [...visits].map(
    ([user, { ids, count }]) => `${user} ${count} ${[...ids].map(String).sort().join()}`,
  );
  return lines.sort().join('\n');
}
