import { createWriteStream } from 'node:fs';
import type { WriteStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { InterlockError } from '../../../src/errors.js';

/**
 * acked    2xx: must be in the owner's database exactly once.
 * refused  a typed refusal (421) or the shop's own 4xx: nothing was carried out, so it must not be there.
 * unknown  anything else (5xx, 409, time-out, lost connection): may be there once or not at all.
 */
export type WriteStatus = 'acked' | 'refused' | 'unknown';

interface WriteBase {
  /** Request id, unique. */
  id: string;
  /** `dc-a/gateway-1`. */
  gateway: string;
  /** Milliseconds since 1970, client's clock. */
  sentAt: number;
  /** When the answer was complete or given up on. */
  endedAt: number;
  /** endedAt − sentAt by a monotonic clock. */
  latencyMs: number;
  status: WriteStatus;
  /** HTTP status; 0 when there was no answer. */
  http: number;
  /** DC that served it, by `x-interlock-dc`. */
  servedBy: string | null;
  error: string | null;
}

export interface DeductionRecord extends WriteBase {
  kind: 'deduction';
  coupon: string;
  userId: string;
  quantity: number;
}

export interface TransferRecord extends WriteBase {
  kind: 'transfer';
  region: string;
  userId: string;
  toRegion: string;
  toUserId: string;
  amount: number;
}

/** Counted in Redis. */
export interface VisitRecord extends WriteBase {
  kind: 'visit';
  region: string;
  userId: string;
}

export type WriteRecord = DeductionRecord | TransferRecord | VisitRecord;

/** An append-only file of writes, one JSON line each, outside of the databases under test. */
export class Journal {
  private readonly stream: WriteStream;

  constructor(readonly file: string) {
    this.stream = createWriteStream(file, { flags: 'a' });
  }

  append(record: WriteRecord): void {
    this.stream.write(`${JSON.stringify(record)}\n`);
  }

  /** Resolves when all that was appended is in the file. */
  async flush(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.stream.write('', (error) => (error ? reject(error) : resolve()));
    });
  }

  async close(): Promise<void> {
    this.stream.end();
    await once(this.stream, 'close');
  }
}

/**
 * All writes of a journal file, in the order in which they ended. `live`: its load goes on, and a last line without its end is left out.
 * Errors: BadInput (a line that is no document).
 */
export async function readJournal(
  file: string,
  { live = false }: { live?: boolean } = {},
): Promise<WriteRecord[]> {
  const lines = (await readFile(file, 'utf8')).split('\n').slice(0, live ? -1 : undefined);
  const records: WriteRecord[] = [];
  for (const [index, line] of lines.entries()) {
    if (line === '') continue;
    try {
      records.push(JSON.parse(line) as WriteRecord);
    } catch (error) {
      throw new InterlockError('BadInput', `journal ${file}, line ${index + 1}: not a JSON document`, {
        cause: error,
      });
    }
  }
  return records;
}

export interface WindowStats {
  writes: number;
  acked: number;
  refused: number;
  unknown: number;
  /** refused + unknown: what a client saw fail. */
  failed: number;
  /** Longest time from send to acknowledgement of a write under way in the window; null without writes. */
  slowestWriteMs: number | null;
  medianWriteMs: number | null;
}

/** What clients saw of the writes that were under way at any time between `from` and `to` (ms since 1970). */
export function windowStats(records: readonly WriteRecord[], from: number, to: number): WindowStats {
  const inWindow = records.filter((record) => record.sentAt <= to && record.endedAt >= from);
  const acked = inWindow.filter((record) => record.status === 'acked');
  const latencies = acked.map((record) => record.latencyMs).sort((a, b) => a - b);
  const count = (status: WriteStatus): number => inWindow.filter((record) => record.status === status).length;
  return {
    writes: inWindow.length,
    acked: acked.length,
    refused: count('refused'),
    unknown: count('unknown'),
    failed: inWindow.length - acked.length,
    slowestWriteMs: latencies.at(-1) ?? null,
    medianWriteMs: latencies[Math.floor((latencies.length - 1) / 2)] ?? null,
  };
}
