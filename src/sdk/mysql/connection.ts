import type { FieldPacket, QueryOptions, QueryResult } from 'mysql2';
import { InterlockError } from '../../errors.js';

/** The statements and helpers of a store. */
export interface Statements {
  query<T extends QueryResult>(sql: string | QueryOptions, values?: unknown): Promise<[T, FieldPacket[]]>;
  execute<T extends QueryResult>(sql: string | QueryOptions, values?: unknown): Promise<[T, FieldPacket[]]>;
  format(sql: string, values?: unknown): string;
  escape(value: unknown): string;
  escapeId(value: string): string;
}

/**
 * For code that asks its pool for a connection: each statement goes as the store's own, on any connection of the pool, so that no write gets around
 * the fence. There is no session between two statements, and no transaction over them: asking for one throws StatementRefused.
 */
export class FencedConnection implements Statements {
  constructor(private readonly store: Statements) {}

  query<T extends QueryResult>(sql: string | QueryOptions, values?: unknown): Promise<[T, FieldPacket[]]> {
    return this.store.query<T>(sql, values);
  }

  execute<T extends QueryResult>(sql: string | QueryOptions, values?: unknown): Promise<[T, FieldPacket[]]> {
    return this.store.execute<T>(sql, values);
  }

  format(sql: string, values?: unknown): string {
    return this.store.format(sql, values);
  }

  escape(value: unknown): string {
    return this.store.escape(value);
  }

  escapeId(value: string): string {
    return this.store.escapeId(value);
  }

  /** @throws InterlockError StatementRefused, always */
  beginTransaction(): Promise<never> {
    return refused('beginTransaction');
  }

  /** @throws InterlockError StatementRefused, always */
  commit(): Promise<never> {
    return refused('commit');
  }

  /** @throws InterlockError StatementRefused, always */
  rollback(): Promise<never> {
    return refused('rollback');
  }

  /** It holds nothing of the pool. */
  release(): void {}

  destroy(): void {}
}

function refused(method: string): Promise<never> {
  return Promise.reject(
    new InterlockError(
      'StatementRefused',
      `${method} of a connection is refused, as the fence has to be asked first: use interlock.mysql(pool).transaction({ userId, region }, (tx) => tx.query(…))`,
      { details: { method } },
    ),
  );
}
