import type { Connection, RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { UnitId } from '../../src/routing/units.js';
import { buckets, fenceChange, openChange, RUN_1, startFence } from './fence-fixture.js';
import type { FenceFixture } from './fence-fixture.js';

const WRITERS = 12;
const FENCES = 40;
const UNITS = buckets(4);

/**
 * Writers that follow the lock protocol against a fence that closes and opens again and again. Each write notes its unit; each fence
 * leaves its marker in the binlog, with the rows of unit_state. Read back in the binlog's order: between the fence of a unit and its
 * next opening there is no write of it.
 */
describe.each(['mysql', 'mariadb'] as const)(
  'no write lands behind the fence in the binlog of %s',
  (flavour) => {
    let f: FenceFixture;
    beforeAll(async () => {
      f = await startFence(flavour);
    });
    afterAll(async () => {
      await f.stop();
    });

    it(`with the share lock: ${WRITERS} writers, ${FENCES} fences`, async () => {
      const { writes, refused, behind } = await contend('shared');
      expect(behind).toEqual([]);
      expect(writes).toBeGreaterThan(100);
      expect(refused).toBeGreaterThan(10);
    });

    it('and the test sees it when the share lock is left out', async () => {
      const { behind } = await contend('unlocked');
      expect(behind.length).toBeGreaterThan(0);
    });

    async function contend(lock: 'shared' | 'unlocked') {
      await f.reset();
      await f.pool.query('FLUSH BINARY LOGS');
      let stopped = false;
      const counts = { writes: 0, refused: 0 };
      const writers = await Promise.all(Array.from({ length: WRITERS }, () => f.connect()));
      const running = writers.map(async (writer, i) => {
        for (let n = 0; !stopped; n++) {
          const unit = UNITS[(i + n) % UNITS.length]!;
          if (await write(writer, unit, lock)) counts.writes++;
          else {
            counts.refused++;
            await pause(1);
          }
        }
      });
      let epoch = 1;
      for (let n = 0; n < FENCES; n++) {
        epoch++;
        const marker = { id: `${lock}-${epoch}`, workflowId: RUN_1.workflowId, runId: RUN_1.runId, epoch };
        await f.fence.change(fenceChange(UNITS, epoch, RUN_1, { marker }), {
          budgetMs: 5_000,
          blockers: 'give-up',
        });
        await pause(5);
        await f.fence.change(openChange(UNITS, ++epoch));
        await pause(10);
      }
      stopped = true;
      await Promise.all(running);
      return { ...counts, behind: await writesBehindFences() };
    }

    async function write(writer: Connection, unit: UnitId, lock: 'shared' | 'unlocked'): Promise<boolean> {
      await writer.query('START TRANSACTION');
      let state: string | number;
      if (lock === 'shared') state = await f.lockShared(writer, unit);
      else {
        const [rows] = await writer.query<RowDataPacket[]>(
          'SELECT state FROM interlock.unit_state WHERE unit = ?',
          [unit],
        );
        state = String(rows[0]!['state']);
      }
      if (state !== 'open') {
        await writer.query('ROLLBACK');
        return false;
      }
      await pause(2);
      await writer.query('INSERT INTO app.entry (unit, note) VALUES (?, ?)', [unit, lock]);
      await writer.query('COMMIT');
      return true;
    }

    /** The writes that stand between a fence's marker and the next opening, in the order of the binlog. */
    async function writesBehindFences(): Promise<string[]> {
      const [logs] = await f.pool.query<RowDataPacket[]>('SHOW BINARY LOGS');
      const [events] = await f.pool.query<RowDataPacket[]>('SHOW BINLOG EVENTS IN ?', [
        logs.at(-1)!['Log_name'],
      ]);
      const behind: string[] = [];
      let fenced = false;
      let tables = new Set<string>();
      for (const event of events) {
        const type = String(event['Event_type']);
        const info = String(event['Info']);
        if (type === 'Table_map') {
          const table = /\((\w+\.\w+)/.exec(info)?.[1];
          if (table !== undefined) tables.add(table);
        } else if (type === 'Xid') {
          // A transaction with a marker is a fence; one with unit states and no marker opens again.
          if (tables.has('interlock.marker')) fenced = true;
          else if (tables.has('interlock.unit_state')) fenced = false;
          else if (tables.has('app.entry') && fenced) behind.push(String(event['Pos']));
          tables = new Set();
        }
      }
      return behind;
    }
  },
);

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
