import { COUPON_CENTRAL, COUPON_UNIT, OPENING_STOCK } from '../schema.sql.js';
import type { ShopDatabase } from './database.js';
import { ShopEvents } from './events.js';
import { ShopError, onceOnly } from './requests.js';

export interface Deduction {
  requestId: string;
  coupon: string;
  userId: string;
  quantity: number;
}

/** Coupons of one inventory with one writer for all users. */
export class Coupons {
  private readonly events: ShopEvents;

  constructor(
    private readonly db: ShopDatabase,
    private readonly dc: string,
  ) {
    this.events = new ShopEvents(dc);
  }

  async deduct(deduction: Deduction): Promise<{ repeated: boolean; epoch: number | null }> {
    const { requestId, coupon, userId, quantity } = deduction;
    return onceOnly<{ repeated: boolean; epoch: number | null }>({ repeated: true, epoch: null }, () =>
      this.db.transaction({ central: COUPON_CENTRAL }, async (tx) => {
        const written = [requestId, this.dc, COUPON_UNIT, tx.epoch];
        await tx.query(
          'INSERT INTO shop.coupon_request (request_id, dc, unit, epoch, written_at) VALUES (?, ?, ?, ?, NOW(6))',
          written,
        );
        await tx.query(
          `INSERT INTO shop.coupon_inventory (coupon, remaining, request_id, dc, unit, epoch, written_at)
           VALUES (?, ?, ?, ?, ?, ?, NOW(6))
           ON DUPLICATE KEY UPDATE remaining = remaining - ?, request_id = ?, dc = ?, unit = ?, epoch = ?, written_at = NOW(6)`,
          [coupon, OPENING_STOCK - quantity, ...written, quantity, ...written],
        );
        await tx.query(
          `INSERT INTO shop.coupon_deduction (coupon, user_id, quantity, request_id, dc, unit, epoch, written_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, NOW(6))`,
          [coupon, userId, quantity, ...written],
        );
        const rows = await tx.query<{ remaining: number }[]>(
          'SELECT remaining FROM shop.coupon_inventory WHERE coupon = ?',
          [coupon],
        );
        if (Number(rows[0]?.remaining ?? 0) < 0) {
          throw new ShopError(422, 'SoldOut', `coupon ${coupon} is sold out`);
        }
        await this.events.emit(tx, {
          ...{ kind: 'coupon', key: [coupon], requestId, step: 'deduction', unit: COUPON_UNIT },
        });
        return { repeated: false, epoch: tx.epoch };
      }),
    );
  }

  async remaining(coupon: string): Promise<number> {
    const rows = await this.db.read<{ remaining: number }[]>(
      'SELECT remaining FROM shop.coupon_inventory WHERE coupon = ?',
      [coupon],
    );
    return Number(rows[0]?.remaining ?? OPENING_STOCK);
  }
}
