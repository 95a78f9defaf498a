import type { RowDataPacket } from 'mysql2/promise';
import type { FenceStore } from '../fence/fence-store.js';
import type { RedisFence } from '../fence/redis-fence.js';
import { reassertFresh } from '../fence/redis-freshness.js';
import type { Witnesses } from '../fence/redis-freshness.js';
import type { Rules } from '../routing/rules.js';
import type { StatesPort } from './reassertion.js';

/** The unit states of a FenceStore, counted by the server on which they were asserted. */
export class FenceStates implements StatesPort {
  readonly name: string;
  readonly dc: string;

  constructor(private readonly fence: FenceStore) {
    this.name = fence.name;
    this.dc = fence.dc;
  }

  async look(): ReturnType<StatesPort['look']> {
    const server = await this.fence.identity();
    const [rows] = await this.fence.pool.query<RowDataPacket[]>(
      `SELECT server, COUNT(*) AS units, SUM(state = 'write_disabled') AS write_disabled FROM interlock.unit_state GROUP BY server`,
    );
    const asserted = rows.map((row) => ({
      server: String(row['server']),
      rows: Number(row['units']),
      writeDisabled: Number(row['write_disabled']),
    }));
    return { server, asserted };
  }

  async reassert(rules: Rules): Promise<{ written: readonly string[]; server: string }> {
    return this.fence.reassert(rules);
  }

  async mendReadOnly(): ReturnType<StatesPort['mendReadOnly']> {
    return this.fence.mendReadOnly();
  }
}

/** The unit states of a Redis store: all of them were asserted on one server. */
export class RedisStates implements StatesPort {
  readonly name: string;
  readonly dc: string;

  constructor(
    private readonly fence: RedisFence,
    private readonly witnesses: Witnesses,
  ) {
    this.name = fence.name;
    this.dc = fence.dc;
  }

  async look(): ReturnType<StatesPort['look']> {
    const { server, asserted, rows, writeDisabled } = await this.fence.summary();
    // A server that has lost them all (FLUSHALL, eviction, a restart without persistence) is as another one.
    return { server, asserted: [{ server: asserted || 'no server', rows, writeDisabled }] };
  }

  async reassert(rules: Rules): Promise<{ written: readonly string[]; server: string }> {
    return reassertFresh(this.fence, rules, this.witnesses);
  }

  async mendReadOnly(): Promise<undefined> {
    return undefined;
  }
}
