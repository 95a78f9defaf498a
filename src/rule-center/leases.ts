import { InterlockError } from '../errors.js';
import type { InstanceView, LeaseRequest } from './api.js';

/** An instance renews about every third of this. */
export const LEASE_TTL_MS = 10_000;
const MOST_INSTANCES = 10_000;

/** Which SDK instances live, and which epoch each works by. In memory only: they renew within seconds. */
export class Leases {
  private readonly byInstance = new Map<string, LeaseRequest & { renewedAt: number }>();

  constructor(
    private readonly ttlMs = LEASE_TTL_MS,
    private readonly now: () => number = Date.now,
  ) {}

  /** @throws InterlockError Refused: there are too many instances already. */
  renew(lease: LeaseRequest): void {
    const key = keyOf(lease);
    if (!this.byInstance.has(key) && this.byInstance.size >= MOST_INSTANCES) {
      this.sweep();
      // Anybody who reaches the port may ask for a lease: the memory for it has a bound.
      if (this.byInstance.size >= MOST_INSTANCES) {
        throw new InterlockError('Refused', `there are ${MOST_INSTANCES} leases already; no more are given`);
      }
    }
    this.byInstance.set(key, { ...lease, renewedAt: this.now() });
  }

  /** An instance that ends needs not be waited for. */
  end(lease: Pick<LeaseRequest, 'application' | 'instance'>): void {
    this.byInstance.delete(keyOf(lease));
  }

  /** The living, by application and instance. */
  list(): InstanceView[] {
    this.sweep();
    const now = this.now();
    return [...this.byInstance.values()]
      .map(({ renewedAt, ...lease }) => ({
        ...lease,
        renewedAt: new Date(renewedAt).toISOString(),
        expiresInMs: renewedAt + this.ttlMs - now,
      }))
      .sort((a, b) => compare(a.application, b.application) || compare(a.instance, b.instance));
  }

  private sweep(): void {
    const oldest = this.now() - this.ttlMs;
    for (const [key, { renewedAt }] of this.byInstance) {
      if (renewedAt <= oldest) this.byInstance.delete(key);
    }
  }
}

function keyOf({ application, instance }: Pick<LeaseRequest, 'application' | 'instance'>): string {
  return JSON.stringify([application, instance]);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
