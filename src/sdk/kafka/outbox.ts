import type { ResultSetHeader, RowDataPacket } from 'mysql2';
import { InterlockError, isInterlockError } from '../../errors.js';
import { EVENT_BYTES, KEY_BYTES, OUTBOX_COLUMNS, TOPIC_CHARACTERS } from '../../kafka/outbox-table.js';
import type { StoredHeader } from '../../kafka/outbox-table.js';
import { contexts, REFUSALS } from '../context.js';
import type { FencedMysql } from '../mysql/store.js';
import type { FencedTransaction } from '../mysql/transaction.js';
import type { RulesSource } from '../rules-source.js';
import { unitsOfTargets } from '../target.js';
import type { Target, WantedUnit } from '../target.js';

export interface OutboxOptions {
  /** `schema.table`, created by `outboxTable(name)`; the topology's `tables` say how it is routed. */
  table: string;
  /** The table is declared `{ central: NAME }` there; without it: `{ userId: user_id, region: region }`. */
  central?: string;
}

export interface NewEvent {
  topic: string;
  /** Events of one key stay in the order of their commits. Default: the user id; a central table's events need one. */
  key?: string | Buffer;
  /** null: a tombstone. */
  value: string | Buffer | null;
  headers?: Readonly<Record<string, string | Buffer>>;
  /** Whose event it is, by the routing key of the user; its unit is one of the transaction's. Default: the ambient routing key. */
  userId?: string;
  region?: string;
}

export interface CleanOptions {
  /** Younger rows stay, to look at. */
  olderThanMs: number;
  /** Rows deleted by one call at most; default 1 000. */
  limit?: number;
}

interface StoredRow {
  id: string;
  user_id: string;
  region: string | null;
}

const CLEANED = 1_000;
const PAGE_ROWS = 1_000;

/** Events as rows of the business transaction: committed with it, or not at all. The store's relay sends them to Kafka, each once. */
export class Outbox {
  private readonly table: string;

  constructor(
    private readonly options: OutboxOptions,
    private readonly rules: RulesSource,
  ) {
    const parts = /^([^.`]+)\.([^.`]+)$/.exec(options.table);
    if (parts === null) throw bad('table', `expected schema.table, got ${JSON.stringify(options.table)}`);
    this.table = `\`${parts[1]}\`.\`${parts[2]}\``;
  }

  /** Writes the event in `tx`, whose unit it has to be of. Throws BadInput (nothing was sent), and what `tx.query` throws. */
  async add(tx: FencedTransaction, event: NewEvent): Promise<void> {
    const owner = this.ownerOf(event);
    const [{ unit }] = this.unitsOf(owner) as [WantedUnit];
    // Hazard: an event of a unit that the transaction does not hold would be written past that unit's fence.
    if (!tx.epochs.has(unit)) {
      throw bad(
        'userId',
        `the event is of ${unit}, and the transaction holds ${tx.units.join(', ')}: add its unit first (tx.addUnit)`,
      );
    }
    const user = 'userId' in owner ? owner : undefined;
    const key = event.key ?? user?.userId;
    if (key === undefined) throw bad('key', 'an event of a central table needs one');
    const row = [
      user?.userId ?? '',
      user?.region ?? null,
      topicOf(event.topic),
      bytesOf(key),
      event.value === null ? null : bytesOf(event.value, 'value'),
      headersOf(event.headers),
    ] as const;
    const [, , , keyBytes, value, headers] = row;
    if (keyBytes.length > KEY_BYTES) throw bad('key', `expected at most ${KEY_BYTES} bytes`);
    const bytes = keyBytes.length + (value?.length ?? 0) + (headers?.length ?? 0);
    // Hazard: a record that Kafka refuses would stop the relay, and with it the next switchover, after the transaction has committed.
    if (bytes > EVENT_BYTES)
      throw bad(
        'value',
        `the event has ${bytes} bytes, the most is ${EVENT_BYTES}: keep what is large elsewhere`,
      );
    const places = OUTBOX_COLUMNS.map(() => '?').join(', ');
    await tx.query(
      `INSERT INTO ${this.table} (${OUTBOX_COLUMNS.join(', ')}, created_at) VALUES (${places}, UTC_TIMESTAMP(6))`,
      [...row],
    );
  }

  /**
   * Deletes old rows of the units that this DC may write, unit by unit, each in a fenced transaction; the deletions are replicated, so each DC cleans
   * its own. Answers how many. The relay reads the binlog, not the table: whatever is deleted, no event is lost by it.
   */
  async clean(store: FencedMysql, { olderThanMs, limit = CLEANED }: CleanOptions): Promise<number> {
    if (!(olderThanMs >= 0)) throw bad('olderThanMs', 'expected milliseconds, 0 or more');
    if (!(Number.isSafeInteger(limit) && limit > 0)) throw bad('limit', 'expected a whole number above 0');
    let deleted = 0;
    for (let behind = '0'; deleted < limit;) {
      const [rows] = await store.query<(StoredRow & RowDataPacket)[]>(
        `SELECT CAST(id AS CHAR) AS id, user_id, region FROM ${this.table}
         WHERE id > ? AND created_at < UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND ORDER BY id LIMIT ${PAGE_ROWS}`,
        [behind, Math.round(olderThanMs * 1000)],
      );
      for (const [key, ids] of this.byUnit(rows)) {
        if (deleted >= limit) break;
        deleted += await this.remove(store, key, ids.slice(0, limit - deleted));
      }
      if (rows.length < PAGE_ROWS) break;
      behind = rows.at(-1)!.id;
    }
    return deleted;
  }

  private async remove(store: FencedMysql, key: Target, ids: readonly string[]): Promise<number> {
    try {
      return await store.transaction(key, async (tx) => {
        const places = ids.map(() => '?').join(', ');
        const [{ affectedRows }] = await tx.query<ResultSetHeader>(
          `DELETE FROM ${this.table} WHERE id IN (${places})`,
          [...ids],
        );
        return affectedRows;
      });
    } catch (error) {
      // Another DC's, or on its way there: who owns the unit cleans it.
      if (isInterlockError(error) && REFUSALS.includes(error.code)) return 0;
      throw error;
    }
  }

  private byUnit(rows: readonly StoredRow[]): Map<Target, string[]> {
    const keys = new Map<string, Target>();
    const found = new Map<Target, string[]>();
    for (const { id, user_id, region } of rows) {
      const target = this.targetOf({ userId: user_id, ...(region !== null && { region }) });
      const [{ unit }] = this.unitsOf(target) as [WantedUnit];
      const key = keys.get(unit) ?? target;
      keys.set(unit, key);
      found.set(key, [...(found.get(key) ?? []), id]);
    }
    return found;
  }

  private ownerOf({ userId, region }: NewEvent): Target {
    if (userId !== undefined) return this.targetOf({ userId, ...(region !== undefined && { region }) });
    if (this.options.central !== undefined) return this.targetOf({ userId: '' });
    const ambient = contexts.getStore()?.target;
    if (ambient !== undefined && 'userId' in ambient) return ambient;
    throw bad('userId', 'none is given, and the ambient routing key is not that of one user');
  }

  private targetOf(key: { userId: string; region?: string }): Target {
    return this.options.central === undefined ? key : { central: this.options.central };
  }

  private unitsOf(target: Target): WantedUnit[] {
    return unitsOfTargets([target], () => {
      const router = this.rules.current();
      if (router !== undefined) return router;
      throw new InterlockError('NoRules', 'no rules are known yet: the user cannot be mapped to a unit', {
        retryable: true,
      });
    });
  }
}

function topicOf(topic: string): string {
  if (typeof topic !== 'string' || !/^[a-zA-Z0-9._-]+$/.test(topic) || topic.length > TOPIC_CHARACTERS)
    throw bad('topic', `expected the name of a Kafka topic, got ${JSON.stringify(topic)}`);
  return topic;
}

function bytesOf(value: string | Buffer, field = 'key'): Buffer {
  if (typeof value === 'string') return Buffer.from(value);
  if (Buffer.isBuffer(value)) return value;
  throw bad(field, 'expected a string or a Buffer');
}

function headersOf(headers: NewEvent['headers']): Buffer | null {
  const stored = Object.entries(headers ?? {}).map<StoredHeader>(([name, value]) => [
    name,
    bytesOf(value, 'headers').toString('base64'),
  ]);
  return stored.length === 0 ? null : Buffer.from(JSON.stringify(stored));
}

function bad(field: string, what: string): InterlockError {
  return new InterlockError('BadInput', `outbox: ${field}: ${what}`, { details: { field } });
}
