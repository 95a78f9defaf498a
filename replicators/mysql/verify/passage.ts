import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../../src/errors.js';
import { NOBODY } from '../../core/contract.js';
import { readCheckpoint } from '../checkpoint.js';
import { parsePosition } from '../position.js';
import type { Side } from './side.js';

const POLL_MS = { first: 2, most: 20 };
const PREFIX = 'verify-';
/** Markers of a process that died are left over; so old, nobody waits for them. */
const LEFT_OVER = 'created_at < UTC_TIMESTAMP(6) - INTERVAL 1 HOUR';

/** Waits for one link: what the source has now is in the target when a marker that is written now has been passed. */
export class Passage {
  private readonly written: string[] = [];

  constructor(
    readonly link: string,
    readonly source: Side,
    readonly target: Side,
    private readonly signal: AbortSignal,
  ) {}

  /**
   * Writes a marker into the source and waits until the link's checkpoint has it.
   * @returns the generation of the checkpoint; undefined when the link has not passed the marker in `limitMs`
   */
  async pass(limitMs: number): Promise<number | undefined> {
    const deadline = Date.now() + limitMs;
    const marker = await this.mark();
    const target = await this.target.reader();
    for (let wait = POLL_MS.first; ; wait = Math.min(wait * 2, POLL_MS.most)) {
      this.signal.throwIfAborted();
      const checkpoint = await readCheckpoint(target, this.link);
      if (checkpoint === undefined) return undefined;
      if (parsePosition(this.source.server.flavour, checkpoint.position).has(marker))
        return checkpoint.generation;
      if (Date.now() > deadline) return undefined;
      await sleep(wait, undefined, { signal: this.signal });
    }
  }

  /**
   * Hazard: the source's whole position may have what the link drops (the other link's transactions), which no checkpoint has before the next
   * marker. Guard: the marker's own transaction is what is waited for; all before it in the binlog is in the checkpoint then.
   */
  private async mark(): Promise<string> {
    const session = await this.source.marker();
    const id = `${PREFIX}${randomUUID()}`;
    this.written.push(id);
    const [result] = await session.query<ResultSetHeader>(
      'INSERT INTO interlock.marker (id, workflow_id, run_id, epoch, created_at) VALUES (?, ?, ?, 0, UTC_TIMESTAMP(6))',
      [id, NOBODY, ''],
    );
    const { flavour } = this.source.server;
    if (flavour === 'mysql') {
      const { gtids } = (result as { stateChanges?: { gtids?: string[] } }).stateChanges ?? {};
      if (gtids?.[0] !== undefined) return gtids[0];
    } else {
      const [[row]] = await session.query<RowDataPacket[]>('SELECT @@last_gtid AS gtid');
      const { gtid } = row as { gtid: string | null };
      if (gtid) return gtid;
    }
    throw new InterlockError('Internal', `${this.source.dc} does not tell the GTID of a transaction`);
  }

  /** Removes the markers: nobody waits for them any more. */
  async clear(): Promise<void> {
    if (this.written.length === 0) return;
    const session = await this.source.marker();
    const ids = this.written.splice(0);
    await session.query(
      `DELETE FROM interlock.marker WHERE id IN (?) OR (id LIKE '${PREFIX}%' AND ${LEFT_OVER})`,
      [ids],
    );
  }
}
