import { format } from 'mysql2/promise';
import type { Pool, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../errors.js';
import { canonicalJson, sha256 } from '../routing/hash.js';
import type { Rules } from '../routing/rules.js';
import type { Flavour } from './flavour.js';
import { ER_DUP_ENTRY, ER_LOCK_DEADLOCK, errnoOf } from './mysql-errors.js';
import { ABANDONED_AFTER_SECONDS, FORGIVING, ask, bounds, openSession } from './session.js';
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

  /** The next lower one. */
  async before(epoch: number): Promise<StoredRules | undefined> {
    return this.one('WHERE epoch < ? ORDER BY epoch DESC LIMIT 1', [epoch]);
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
        const session = await openSession(this.pool);
        try {
          const begin = [bounds(ABANDONED_AFTER_SECONDS, LOCK_WAIT_SECONDS), 'START TRANSACTION'];
          const found = await ask(session, [...begin, ...rulesInTheWay(rules)], 1);
          const insert = rulesInsert(this.name, rules, found[0]!);
          await session.query([...insert, 'COMMIT', FORGIVING].join(';'));
          session.release();
          return { changed: insert.length > 0, hash: sha256(canonicalJson(rules)) };
        } catch (error) {
          session.destroy();
          // A duplicate: two first documents at once, there was no row to take turns at.
          const again = [ER_LOCK_DEADLOCK, ER_DUP_ENTRY].includes(errnoOf(error) ?? 0);
          if (!again || attempt >= 5) throw error;
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

/** What to ask in the transaction (READ COMMITTED) that is to insert a document; the rows of the last answer are for `rulesInsert`. */
export function rulesInTheWay(rules: Rules): string[] {
  return [
    // The first document is the lock under which inserts of this store take turns: else a lower epoch could commit after a higher.
    'SELECT epoch FROM interlock.rules ORDER BY epoch LIMIT 1 FOR UPDATE',
    format('SELECT epoch, hash FROM interlock.rules WHERE epoch >= ? ORDER BY epoch', [rules.epoch]),
  ];
}

/** The statement that keeps a document; none when it is there already. Errors as `RulesStore.publish`. */
export function rulesInsert(store: string, rules: Rules, found: readonly RowDataPacket[]): string[] {
  const document = canonicalJson(rules);
  const hash = sha256(document);
  const details = { store, epoch: rules.epoch, hash };
  const same = found.find((row) => Number(row['epoch']) === rules.epoch);
  if (same !== undefined) {
    if (same['hash'] === hash) return [];
    throw new InterlockError(
      'EpochConflict',
      `${store} has other rules of epoch ${rules.epoch}: an epoch has one content`,
      { details },
    );
  }
  if (found.length > 0) {
    const highest = Number(found.at(-1)!['epoch']);
    throw new InterlockError(
      'StaleEpoch',
      `${store} has rules of epoch ${highest}; those of epoch ${rules.epoch} came late and were not kept`,
      { details: { ...details, highest } },
    );
  }
  return [
    format(
      'INSERT INTO interlock.rules (epoch, document, hash, reason, created_at) VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6))',
      [rules.epoch, document, hash, rules.reason.slice(0, 1024)],
    ),
  ];
}
