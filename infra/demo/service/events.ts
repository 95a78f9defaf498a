import type { Outbox } from '../../../src/sdk/index.js';
import { COUPON_UNIT, EVENTS } from '../schema.sql.js';
import type { EventKind } from '../schema.sql.js';
import type { ShopTransaction } from './database.js';

/** What an event says: the change number `seq` of one wallet or coupon. */
export interface ShopEvent {
  kind: EventKind;
  /** Values of the kind's key columns. */
  key: string[];
  requestId: string;
  step: string;
  seq: number;
}

export type Outboxes = Record<EventKind, Outbox>;

/** Writes an event of each change into the outbox, in the transaction of the change. */
export class ShopEvents {
  constructor(private readonly dc: string) {}

  /** Nothing without a Kafka. */
  async emit(tx: ShopTransaction, event: Omit<ShopEvent, 'seq'> & { unit: string }): Promise<void> {
    if (tx.emit === undefined) return;
    const { kind, key, requestId, step, unit } = event;
    const { topic, columns } = EVENTS[kind];
    const by = [requestId, this.dc, unit, tx.epoch];
    await tx.query(
      `INSERT INTO shop.${kind}_emitted (${columns.join(', ')}, seq, request_id, dc, unit, epoch, written_at)
       VALUES (${columns.map(() => '?').join(', ')}, 1, ?, ?, ?, ?, NOW(6))
       ON DUPLICATE KEY UPDATE seq = seq + 1, request_id = ?, dc = ?, unit = ?, epoch = ?, written_at = NOW(6)`,
      [...key, ...by, ...by],
    );
    const rows = await tx.query<{ seq: number }[]>(
      `SELECT seq FROM shop.${kind}_emitted WHERE ${columns.map((column) => `${column} = ?`).join(' AND ')}`,
      key,
    );
    const said: ShopEvent = { kind, key, requestId, step, seq: Number(rows[0]!.seq) };
    const value = JSON.stringify(said);
    const [region, userId] = key;
    await tx.emit(
      kind,
      unit === COUPON_UNIT
        ? { topic, key: key.join('/'), value }
        : { topic, value, userId: userId!, region: region! },
    );
  }
}
