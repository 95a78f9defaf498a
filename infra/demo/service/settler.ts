import { request } from 'undici';
import { isInterlockError, messageOf } from '../../../src/errors.js';
import type { ShopDatabase } from './database.js';
import type { Transfer, WalletRef } from './wallet.js';
import type { Wallets } from './wallet.js';

export interface SettlerOptions {
  db: ShopDatabase;
  wallets: Wallets;
  /** This DC's gateway: credits of wallets that another DC owns go through it. */
  gatewayUrl: string;
  /** More headers for a credit that goes through the gateway. */
  creditHeaders?: (to: WalletRef) => Record<string, string>;
  /** Promises older than this are taken up by every instance's sweep, whoever made them. */
  sweepAfterMs?: number;
  sweepEveryMs?: number;
  onError?: (message: string) => void;
}

const AT_ONCE = 4;
const CREDIT_TIMEOUT_MS = 15_000;

/**
 * Keeps the promises of transfers across units: credits the receiver, then marks the outbox row. Each step is idempotent by the
 * transfer's id, so a promise may be taken up twice, by any instance of the sender's owner.
 */
export class Settler {
  private readonly queue: Transfer[] = [];
  private readonly known = new Set<string>();
  private readonly idle: (() => void)[] = [];
  private readonly stopping = new AbortController();
  private running: Promise<unknown> | undefined;

  constructor(private readonly options: SettlerOptions) {}

  /** Starts the workers here, outside of any request: what they do is no part of a request's context. */
  start(): void {
    const workers = Array.from({ length: AT_ONCE }, () => this.work());
    this.running = Promise.all([...workers, this.sweep()]);
  }

  enqueue(transfer: Transfer): void {
    if (this.known.has(transfer.requestId)) return;
    this.known.add(transfer.requestId);
    this.queue.push(transfer);
    this.idle.shift()?.();
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    for (const wake of this.idle.splice(0)) wake();
    await this.running;
  }

  private async work(): Promise<void> {
    while (!this.stopping.signal.aborted) {
      const transfer = this.queue.shift();
      if (transfer === undefined) {
        await new Promise<void>((resolve) => this.idle.push(resolve));
        continue;
      }
      try {
        await this.settle(transfer);
      } catch (error) {
        // The outbox row stays pending: a later sweep, here or at the unit's new owner, takes it up again.
        if (!isRefusal(error)) this.options.onError?.(`transfer ${transfer.requestId}: ${messageOf(error)}`);
      } finally {
        this.known.delete(transfer.requestId);
      }
    }
  }

  private async settle(transfer: Transfer): Promise<void> {
    const { wallets, db } = this.options;
    const here = db.ownsUnit(db.unitOf(transfer.to));
    if (here) {
      try {
        await wallets.credit(transfer.requestId, transfer.to, transfer.amount);
      } catch (error) {
        if (!isRefusal(error)) throw error;
        await this.creditThroughGateway(transfer);
      }
    } else {
      await this.creditThroughGateway(transfer);
    }
    await wallets.settled(transfer.requestId, transfer.from);
  }

  private async creditThroughGateway({ requestId, to, amount }: Transfer): Promise<void> {
    const url = `${this.options.gatewayUrl}/wallets/${encodeURIComponent(to.userId)}/credits`;
    const response = await request(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'x-region': to.region,
        'x-request-id': requestId,
        ...this.options.creditHeaders?.(to),
      },
      body: JSON.stringify({ amount }),
      headersTimeout: CREDIT_TIMEOUT_MS,
      bodyTimeout: CREDIT_TIMEOUT_MS,
      signal: this.stopping.signal,
    });
    const text = await response.body.text();
    if (response.statusCode !== 200) {
      throw new Error(`credit answered ${response.statusCode}: ${text.slice(0, 200)}`);
    }
  }

  private async sweep(): Promise<void> {
    const { db, sweepAfterMs = 1000, sweepEveryMs = 500 } = this.options;
    while (!this.stopping.signal.aborted) {
      await sleep(sweepEveryMs, this.stopping.signal);
      if (this.stopping.signal.aborted || this.queue.length > 1000) continue;
      try {
        const rows = await db.read<OutboxRow[]>(
          `SELECT request_id, unit, region, user_id, to_region, to_user_id, amount FROM shop.wallet_outbox
           WHERE state = 'pending' AND written_at < NOW(6) - INTERVAL ? MICROSECOND LIMIT 500`,
          [sweepAfterMs * 1000],
        );
        for (const row of rows) {
          const from: WalletRef = { region: row.region, userId: row.user_id };
          if (!db.ownsUnit(db.unitOf(from))) continue;
          const to: WalletRef = { region: row.to_region, userId: row.to_user_id };
          this.enqueue({ requestId: row.request_id, from, to, amount: Number(row.amount) });
        }
      } catch (error) {
        this.options.onError?.(`outbox sweep: ${messageOf(error)}`);
      }
    }
  }
}

interface OutboxRow {
  request_id: string;
  unit: string;
  region: string;
  user_id: string;
  to_region: string;
  to_user_id: string;
  amount: number;
}

/** The unit is fenced or has moved: not this instance's to do now. */
function isRefusal(error: unknown): boolean {
  return (
    isInterlockError(error, 'WriteDisabled') ||
    isInterlockError(error, 'NotOwner') ||
    isInterlockError(error, 'StaleMapping') ||
    isInterlockError(error, 'PartiallyExecuted')
  );
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
