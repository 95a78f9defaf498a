import type { Pool, PoolConnection, ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../errors.js';
import { canonicalJson, sha256 } from '../routing/hash.js';
import type { Rules } from '../routing/rules.js';
import type { Flavour } from './flavour.js';
import { ER_DUP_ENTRY, ER_LOCK_DEADLOCK, errnoOf } from './mysql-errors.js';
import { openSession } from './session.js';
import { unavailable } from './unavailable.js';

/** A rules document as it is kept; `hash` is `rulesHash(rules)`. */
export interface StoredRules {
  rules: Rules;
  hash: string;
  /** ISO 8601, clock of the store. */
  createdAt: string;
}

const LOCK_WAIT_SECONDS = 5;

/** The table `interlock.rules` of a DC's control store. Epochs only grow; an epoch has one content. */
export class RulesStore {
  /** @param name names the store in messages: `dc-a mysql/main` */
  constructor(
    readonly name: string,
    private readonly pool: Pool,
    readonly flavour: Flavour,
  ) {}

  /** The rules of the highest epoch; undefined before `interlock rules init`. Errors: Unavailable, Internal (damaged document). */
  async current(): Promise<StoredRules | undefined> {
    return this.one('ORDER BY epoch DESC LIMIT 1', []);
  }

  async at(epoch: number): Promise<StoredRules | undefined> {
    return this.one('WHERE epoch = ?', [epoch]);
  }

  /** 0 when there are none. */
  async highestEpoch(): Promise<number> {
    try {
      const [rows] = await this.pool.query<RowDataPacket[]>(
        'SELECT COALESCE(MAX(epoch), 0) AS epoch FROM interlock.rules',
      );
      return Number(rows[0]!['epoch']);
    } catch (error) {
      throw unavailable(this.name, error);
    }
  }

  /**
   * Keeps a document. `changed` is false when it was there already.
   * Errors: StaleEpoch (a higher epoch is there), EpochConflict (the epoch is there with other content), Unavailable.
   */
  async publish(rules: Rules): Promise<{ changed: boolean; hash: string }> {
    try {
      for (let attempt = 1; ; attempt++) {
        const session = await openSession(this.pool, LOCK_WAIT_SECONDS);
        try {
          await session.query('START TRANSACTION');
          const result = await insertRules(session, this.name, rules);
          await session.query('COMMIT');
          session.release();
          return result;
        } catch (error) {
          session.destroy();
          if (errnoOf(error) !== ER_LOCK_DEADLOCK || attempt >= 5) throw error;
        }
      }
    } catch (error) {
      throw unavailable(this.name, error);
    }
  }

  private async one(clause: string, values: unknown[]): Promise<StoredRules | undefined> {
    let row: RowDataPacket | undefined;
    try {
      const [rows] = await this.pool.query<RowDataPacket[]>(
        `SELECT document, hash, DATE_FORMAT(created_at, '%Y-%m-%dT%H:%i:%s.%fZ') AS created_at FROM interlock.rules ${clause}`,
        values,
      );
      row = rows[0];
    } catch (error) {
      throw unavailable(this.name, error);
    }
    if (row === undefined) return undefined;
    const document = String(row['document']);
    const hash = String(row['hash']);
    // The document is kept as canonical JSON: a byte that was changed by hand shows here, before anybody routes by it.
    if (sha256(document) !== hash) {
      throw new InterlockError(
        'Internal',
        `${this.name}: interlock.rules holds a document whose hash is not ${hash}: it was changed by hand`,
      );
    }
    return { rules: JSON.parse(document) as Rules, hash, createdAt: String(row['created_at']) };
  }
}

/** Inserts a document within the caller's transaction (READ COMMITTED). Errors as `RulesStore.publish`. */
export async function insertRules(
  session: PoolConnection,
  store: string,
  rules: Rules,
): Promise<{ changed: boolean; hash: string }> {
  const document = canonicalJson(rules);
  const hash = sha256(document);
  const details = { store, epoch: rules.epoch, hash };
  // The first document is the lock under which inserts of this store take turns: else a lower epoch could commit after a higher.
  await session.query('SELECT epoch FROM interlock.rules ORDER BY epoch LIMIT 1 FOR UPDATE');
  const [rows] = await session.query<RowDataPacket[]>(
    'SELECT epoch, hash FROM interlock.rules WHERE epoch >= ? ORDER BY epoch',
    [rules.epoch],
  );
  const same = rows.find((row) => Number(row['epoch']) === rules.epoch);
  if (same !== undefined) {
    if (same['hash'] === hash) return { changed: false, hash };
    throw conflict(store, rules.epoch, details);
  }
  if (rows.length > 0) {
    const highest = Number(rows.at(-1)!['epoch']);
    throw new InterlockError(
      'StaleEpoch',
      `${store} has rules of epoch ${highest}; those of epoch ${rules.epoch} came late and were not kept`,
      { details: { ...details, highest } },
    );
  }
  try {
    await session.query<ResultSetHeader>(
      'INSERT INTO interlock.rules (epoch, document, hash, reason, created_at) VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6))',
      [rules.epoch, document, hash, rules.reason.slice(0, 1024)],
    );
  } catch (error) {
    // Two first documents at once: there was no row to take turns at.
    if (errnoOf(error) !== ER_DUP_ENTRY) throw error;
    const [again] = await session.query<RowDataPacket[]>('SELECT hash FROM interlock.rules WHERE epoch = ?', [
      rules.epoch,
    ]);
    if (again[0]?.['hash'] === hash) return { changed: false, hash };
    throw conflict(store, rules.epoch, details);
  }
  return { changed: true, hash };
}

function conflict(store: string, epoch: number, details: Record<string, unknown>): InterlockError {
  return new InterlockError(
    'EpochConflict',
    `${store} has other rules of epoch ${epoch}: an epoch has one content`,
    { details },
  );
}
