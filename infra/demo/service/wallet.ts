import { OPENING_BALANCE } from '../schema.sql.js';
import type { ShopDatabase, ShopTransaction } from './database.js';
import { ShopEvents } from './events.js';
import { ShopError, onceOnly } from './requests.js';

export interface WalletRef {
  region: string;
  userId: string;
}

export interface Transfer {
  requestId: string;
  from: WalletRef;
  to: WalletRef;
  amount: number;
}

export interface TransferResult {
  /** `settled`: both halves are done. `pending`: debited and promised; the credit follows. */
  state: 'settled' | 'pending';
  repeated: boolean;
  epoch: number | null;
}

type Step = 'transfer' | 'debit' | 'credit';

/** Money moves between wallets: in one transaction inside a unit, in two idempotent steps across units. */
export class Wallets {
  private readonly events: ShopEvents;

  constructor(
    private readonly db: ShopDatabase,
    private readonly dc: string,
  ) {
    this.events = new ShopEvents(dc);
  }

  /** Both halves when the wallets share a unit; else the debit and, in the same transaction, the promise of the credit. */
  async transfer(transfer: Transfer): Promise<TransferResult> {
    const { from, to, amount } = transfer;
    if (from.region === to.region && from.userId === to.userId) {
      throw new ShopError(422, 'BadTransfer', 'a transfer needs two different wallets');
    }
    // Inside of the transaction: when the mapping of users has changed, it is run again with the new one.
    const within = (): boolean => this.db.unitOf(from) === this.db.unitOf(to);
    return onceOnly<TransferResult>(
      { state: within() ? 'settled' : 'pending', repeated: true, epoch: null },
      () =>
        this.db.transaction(from, async (tx) => {
          const unit = this.db.unitOf(from);
          const oneUnit = within();
          await this.begin(tx, oneUnit ? 'transfer' : 'debit', transfer.requestId, unit, from);
          if (oneUnit) {
            // Two transfers in opposite directions would deadlock: wallets are locked in one order.
            const moves = [
              { wallet: from, delta: -amount },
              { wallet: to, delta: amount },
            ].sort((a, b) => (keyOf(a.wallet) < keyOf(b.wallet) ? -1 : 1));
            for (const move of moves) {
              await this.change(tx, transfer.requestId, unit, move.wallet, move.delta);
            }
            await this.entries(tx, transfer.requestId, unit, amount, [
              ['debit', from],
              ['credit', to],
            ]);
          } else {
            await this.change(tx, transfer.requestId, unit, from, -amount);
            await this.entries(tx, transfer.requestId, unit, amount, [['debit', from]]);
            await tx.query(
              `INSERT INTO shop.wallet_outbox
               (state, region, user_id, to_region, to_user_id, amount, request_id, dc, unit, epoch, written_at)
             VALUES ('pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, NOW(6))`,
              [
                from.region,
                from.userId,
                to.region,
                to.userId,
                amount,
                transfer.requestId,
                this.dc,
                unit,
                tx.epoch,
              ],
            );
          }
          await this.mustCover(tx, from);
          return { state: oneUnit ? 'settled' : 'pending', repeated: false, epoch: tx.epoch };
        }),
    );
  }

  /** The second half of a transfer across units, in the receiver's unit. Once only per transfer. */
  async credit(requestId: string, to: WalletRef, amount: number): Promise<{ repeated: boolean }> {
    return onceOnly<{ repeated: boolean }>({ repeated: true }, () =>
      this.db.transaction(to, async (tx) => {
        const unit = this.db.unitOf(to);
        await this.begin(tx, 'credit', requestId, unit, to);
        await this.change(tx, requestId, unit, to, amount);
        await this.entries(tx, requestId, unit, amount, [['credit', to]]);
        return { repeated: false };
      }),
    );
  }

  /** Marks the promise of a transfer as kept, in the sender's unit. */
  async settled(requestId: string, from: WalletRef): Promise<void> {
    await this.db.transaction(from, (tx) =>
      tx.query(
        `UPDATE shop.wallet_outbox SET state = 'done', dc = ?, unit = ?, epoch = ?, written_at = NOW(6)
         WHERE request_id = ? AND state = 'pending'`,
        [this.dc, this.db.unitOf(from), tx.epoch, requestId],
      ),
    );
  }

  async balance(wallet: WalletRef): Promise<number> {
    const rows = await this.db.read<{ balance: number }[]>(
      'SELECT balance FROM shop.wallet WHERE region = ? AND user_id = ?',
      [wallet.region, wallet.userId],
    );
    return Number(rows[0]?.balance ?? OPENING_BALANCE);
  }

  private async begin(
    tx: ShopTransaction,
    step: Step,
    requestId: string,
    unit: string,
    at: WalletRef,
  ): Promise<void> {
    await tx.query(
      `INSERT INTO shop.wallet_request (step, region, user_id, request_id, dc, unit, epoch, written_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, NOW(6))`,
      [step, at.region, at.userId, requestId, this.dc, unit, tx.epoch],
    );
  }

  private async change(
    tx: ShopTransaction,
    requestId: string,
    unit: string,
    wallet: WalletRef,
    delta: number,
  ): Promise<void> {
    const written = [requestId, this.dc, unit, tx.epoch];
    await tx.query(
      `INSERT INTO shop.wallet (region, user_id, balance, request_id, dc, unit, epoch, written_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, NOW(6))
       ON DUPLICATE KEY UPDATE balance = balance + ?, request_id = ?, dc = ?, unit = ?, epoch = ?, written_at = NOW(6)`,
      [wallet.region, wallet.userId, OPENING_BALANCE + delta, ...written, delta, ...written],
    );
  }

  private async entries(
    tx: ShopTransaction,
    requestId: string,
    unit: string,
    amount: number,
    legs: ['debit' | 'credit', WalletRef][],
  ): Promise<void> {
    await tx.query(
      `INSERT INTO shop.wallet_entry (leg, region, user_id, amount, request_id, dc, unit, epoch, written_at)
       VALUES ${legs.map(() => '(?, ?, ?, ?, ?, ?, ?, ?, NOW(6))').join(', ')}`,
      legs.flatMap(([leg, wallet]) => [
        leg,
        wallet.region,
        wallet.userId,
        amount,
        requestId,
        this.dc,
        unit,
        tx.epoch,
      ]),
    );
    for (const [step, { region, userId }] of legs)
      await this.events.emit(tx, { kind: 'wallet', key: [region, userId], requestId, step, unit });
  }

  private async mustCover(tx: ShopTransaction, wallet: WalletRef): Promise<void> {
    const rows = await tx.query<{ balance: number }[]>(
      'SELECT balance FROM shop.wallet WHERE region = ? AND user_id = ?',
      [wallet.region, wallet.userId],
    );
    if (Number(rows[0]?.balance ?? 0) < 0) {
      throw new ShopError(422, 'InsufficientFunds', `wallet ${keyOf(wallet)} does not cover the transfer`);
    }
  }
}

function keyOf(wallet: WalletRef): string {
  return `${wallet.region}/${wallet.userId}`;
}
