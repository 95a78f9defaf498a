import { randomUUID } from 'node:crypto';
import { Pool } from 'undici';
import { messageOf } from '../../../src/errors.js';
import { bucketOf } from '../../../src/routing/units.js';
import { Journal } from './journal.js';
import type { WriteRecord, WriteStatus } from './journal.js';
import { randomOf, usersOf } from './users.js';
import type { RegionUsers } from './users.js';

export interface LoadOptions {
  /** Gateways of both DCs; requests take them in turn. */
  gateways: { name: string; url: string }[];
  regions: string[];
  journal: string;
  /** Writes offered per second, whatever the answers do (open loop). */
  rate: number;
  /** Instead of `rate`: so many clients, each sending its next write when the last was answered. */
  clients?: number;
  /** Reads offered per second beside the writes (open loop). */
  readRate?: number;
  /** Whether the shop counts visits (in Redis). */
  visits?: boolean;
  seed?: number;
  /** Also send the user's bucket as `x-bucket`, for gateways that cannot compute it. */
  bucketHeader?: boolean;
  /** Give a request up after this; it is then `unknown`. */
  timeoutMs?: number;
}

export interface LoadCounts {
  sent: number;
  acked: number;
  refused: number;
  unknown: number;
  reads: number;
  failedReads: number;
  inFlight: number;
}

interface Gateway {
  name: string;
  pool: Pool;
}

type Draft =
  | { kind: 'deduction'; coupon: string; userId: string; region: string; quantity: number }
  | { kind: 'visit'; userId: string; region: string }
  | { kind: 'transfer'; region: string; userId: string; toRegion: string; toUserId: string; amount: number };

const COUPONS = 20;
const DEDUCTION_SHARE = 0.2;
const ACROSS_SHARE = 0.2;
const VISIT_SHARE = 0.2;
const TICK_MS = 2;

/** Writes to the shop through the gateways of both DCs and keeps a journal of every write's end. */
export class LoadGenerator {
  readonly counts: LoadCounts = {
    sent: 0,
    acked: 0,
    refused: 0,
    unknown: 0,
    reads: 0,
    failedReads: 0,
    inFlight: 0,
  };
  private readonly journal: Journal;
  private readonly gateways: Gateway[];
  private readonly users: RegionUsers[];
  private readonly random: () => number;
  private readonly timeoutMs: number;
  /** Requests under way, and the clients of a closed loop beside them. */
  private readonly requests = new Set<Promise<void>>();
  private readonly clients = new Set<Promise<void>>();
  private turn = 0;
  private timer: NodeJS.Timeout | undefined;
  private generation = 0;

  constructor(private readonly options: LoadOptions) {
    this.journal = new Journal(options.journal);
    this.timeoutMs = options.timeoutMs ?? 20_000;
    // Enough connections that a held request never queues another in the client.
    this.gateways = options.gateways.map(({ name, url }) => ({
      name,
      pool: new Pool(url, { connections: options.clients ?? 512, pipelining: 1 }),
    }));
    this.users = options.regions.map((region) => usersOf(region));
    this.random = randomOf(options.seed ?? 1);
  }

  /** Starts or goes on offering load. */
  start(): void {
    if (this.timer !== undefined) return;
    const generation = ++this.generation;
    const { clients, rate, readRate = 0 } = this.options;
    const startedAt = performance.now();
    let writes = 0;
    let reads = 0;
    if (clients !== undefined) {
      for (let n = 0; n < clients; n++) void track(this.clients, this.client(generation));
    }
    this.timer = setInterval(() => {
      const seconds = (performance.now() - startedAt) / 1000;
      if (clients === undefined) {
        for (; writes < seconds * rate; writes++) void track(this.requests, this.write());
      }
      for (; reads < seconds * readRate; reads++) void track(this.requests, this.read());
    }, TICK_MS);
  }

  /** Stops offering; resolves when every request under way has ended and the journal is in the file. */
  async pause(): Promise<void> {
    clearInterval(this.timer);
    this.timer = undefined;
    this.generation++;
    await Promise.allSettled([...this.clients]);
    await Promise.allSettled([...this.requests]);
    await this.journal.flush();
  }

  /** Resolves when every request that is under way now has ended and is in the journal's file; the load goes on. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.requests]);
    await this.journal.flush();
  }

  async stop(): Promise<void> {
    await this.pause();
    await Promise.all(this.gateways.map(({ pool }) => pool.close()));
    await this.journal.close();
  }

  private async client(generation: number): Promise<void> {
    while (generation === this.generation) await track(this.requests, this.write());
  }

  private nextGateway(): Gateway {
    return this.gateways[this.turn++ % this.gateways.length]!;
  }

  private draft(): Draft {
    const region = this.pick(this.users);
    const bucket = this.pick(region.byBucket);
    const [userId, neighbour] = this.random() < 0.5 ? [bucket[0]!, bucket[1]!] : [bucket[1]!, bucket[0]!];
    const dice = this.random();
    if (dice < DEDUCTION_SHARE) {
      const coupon = `coupon-${1 + Math.floor(this.random() * COUPONS)}`;
      return { kind: 'deduction', coupon, userId, region: region.region, quantity: 1 };
    }
    if (this.options.visits === true && dice >= 1 - VISIT_SHARE)
      return { kind: 'visit', userId, region: region.region };
    const amount = 1 + Math.floor(this.random() * 100);
    if (dice >= DEDUCTION_SHARE + ACROSS_SHARE) {
      return {
        kind: 'transfer',
        region: region.region,
        userId,
        toRegion: region.region,
        toUserId: neighbour,
        amount,
      };
    }
    const other = this.pick(this.users);
    const toUserId = this.pick(this.pick(other.byBucket).filter((user) => user !== userId));
    return {
      kind: 'transfer',
      region: region.region,
      userId,
      toRegion: other.region,
      toUserId,
      amount,
    };
  }

  private pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.random() * list.length)]!;
  }

  private async write(): Promise<void> {
    const draft = this.draft();
    const gateway = this.nextGateway();
    const id = randomUUID();
    const { path, body } = requestOf(draft);
    this.counts.sent++;
    this.counts.inFlight++;
    const sentAt = Date.now();
    const started = performance.now();
    let status: WriteStatus = 'unknown';
    let http = 0;
    let servedBy: string | null = null;
    let error: string | null = null;
    try {
      const response = await gateway.pool.request({
        method: 'POST',
        path,
        headers: {
          'content-type': 'application/json',
          'x-request-id': id,
          'x-user-id': draft.userId,
          'x-region': draft.region,
          ...(this.options.bucketHeader ? bucketHeader(draft.userId) : {}),
        },
        body: JSON.stringify(body),
        headersTimeout: this.timeoutMs,
        bodyTimeout: this.timeoutMs,
      });
      const text = await response.body.text();
      http = response.statusCode;
      const served = response.headers['x-interlock-dc'];
      servedBy = typeof served === 'string' ? served : null;
      status = statusOf(http);
      if (status !== 'acked') error = text.slice(0, 300);
    } catch (thrown) {
      error = messageOf(thrown);
    }
    const latencyMs = performance.now() - started;
    this.counts.inFlight--;
    this.counts[status]++;
    const { kind, ...data } = draft;
    this.journal.append({
      ...{ id, kind },
      ...data,
      ...{ gateway: gateway.name, sentAt, endedAt: sentAt + latencyMs, latencyMs },
      ...{ status, http, servedBy, error },
    } as WriteRecord);
  }

  private async read(): Promise<void> {
    const draft = this.draft();
    const gateway = this.nextGateway();
    const path = draft.kind === 'deduction' ? `/coupons/${draft.coupon}` : `/wallets/${draft.userId}`;
    this.counts.reads++;
    try {
      const response = await gateway.pool.request({
        method: 'GET',
        path,
        headers: {
          'x-user-id': draft.userId,
          'x-region': draft.region,
          ...(this.options.bucketHeader ? bucketHeader(draft.userId) : {}),
        },
        headersTimeout: this.timeoutMs,
        bodyTimeout: this.timeoutMs,
      });
      await response.body.dump();
      if (response.statusCode !== 200) this.counts.failedReads++;
    } catch {
      this.counts.failedReads++;
    }
  }
}

function requestOf(draft: Draft): { path: string; body: object } {
  switch (draft.kind) {
    case 'deduction':
      return {
        path: `/coupons/${draft.coupon}/deductions`,
        body: { userId: draft.userId, quantity: draft.quantity },
      };
    case 'transfer': {
      const { toRegion, toUserId, amount } = draft;
      return { path: `/wallets/${draft.userId}/transfers`, body: { toRegion, toUserId, amount } };
    }
    case 'visit':
      return { path: '/visits', body: {} };
  }
}

export function bucketHeader(userId: string): { 'x-bucket': string } {
  return { 'x-bucket': String(bucketOf(userId)) };
}

function track(set: Set<Promise<void>>, work: Promise<void>): Promise<void> {
  const tracked: Promise<void> = work.finally(() => set.delete(tracked));
  set.add(tracked);
  return tracked;
}

/** What an HTTP status says of a write. 409 (partly executed) and 5xx say nothing. */
export function statusOf(http: number): WriteStatus {
  if (http >= 200 && http < 300) return 'acked';
  if (http >= 400 && http < 500 && http !== 408 && http !== 409) return 'refused';
  return 'unknown';
}
