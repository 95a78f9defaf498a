import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { isInterlockError } from '../../src/errors.js';
import type { InterlockError } from '../../src/errors.js';
import {
  buckets,
  fenceChange,
  openChange,
  remoteChange,
  rulesAt,
  RUN_1,
  RUN_2,
  startFence,
  testRules,
} from './fence-fixture.js';
import type { FenceFixture } from './fence-fixture.js';

/** The InterlockError of a promise that must fail with `code`. */
async function failure(promise: Promise<unknown>, code: InterlockError['code']): Promise<InterlockError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(isInterlockError(error) ? error.code : error).toBe(code);
  return error as InterlockError;
}

describe.each(['mysql', 'mariadb'] as const)('fence on %s', (flavour) => {
  let f: FenceFixture;
  beforeAll(async () => {
    f = await startFence(flavour);
  });
  afterAll(async () => {
    await f.stop();
  });
  beforeEach(async () => {
    await f.reset();
  });

  const stateOf = async (unit: string): Promise<string> => {
    const [row] = await f.fence.states([unit]);
    return `${row!.state} of ${row!.owner} at ${row!.epoch}`;
  };

  describe('changes', () => {
    it('fences, hands over, opens; the marker and the rules are in the same commit', async () => {
      const units = buckets(100);
      const marker = { id: 'm1', workflowId: RUN_1.workflowId, runId: RUN_1.runId, epoch: 2 };
      const result = await f.fence.change(fenceChange(units, 2, RUN_1, { marker, rules: rulesAt(2) }));
      expect(result).toMatchObject({ changed: true, blockers: [] });
      expect(result.server).toBe(await f.fence.identity());
      expect(await stateOf('cn-east/7')).toBe('write_disabled of dc-a at 2');
      expect(await stateOf('cn-east/100')).toBe('open of dc-a at 1');
      expect(await f.rules.highestEpoch()).toBe(2);
      const [markers] = await f.pool.query<RowDataPacket[]>('SELECT id FROM interlock.marker');
      expect(markers.map((row) => String(row['id']))).toEqual(['m1']);
      await f.fence.change(remoteChange(units, 3));
      expect(await stateOf('cn-east/7')).toBe('remote of dc-b at 3');
      await f.fence.change(openChange(units, 4));
      expect(await stateOf('cn-east/7')).toBe('open of dc-a at 4');
    });

    it('moves 900 units at once', async () => {
      await f.fence.change(fenceChange(buckets(900), 2));
      const states = await f.fence.states();
      expect(states.filter((s) => s.state === 'write_disabled')).toHaveLength(900);
      expect(states.filter((s) => s.epoch === 2)).toHaveLength(900);
    });

    it('answers a repeat with changed: false and writes nothing', async () => {
      const marker = { id: 'm1', workflowId: RUN_1.workflowId, runId: RUN_1.runId, epoch: 2 };
      const change = fenceChange(buckets(3), 2, RUN_1, { marker, rules: rulesAt(2) });
      const first = await f.fence.change(change);
      const again = await f.fence.change(change);
      expect(again.changed).toBe(false);
      expect(again.position).toBe(first.position);
    });

    it('refuses a lower epoch, and the same epoch with other content', async () => {
      await f.fence.change(fenceChange(buckets(3), 5));
      await failure(f.fence.change(openChange(buckets(3), 4)), 'StaleEpoch');
      await failure(f.fence.change(openChange(buckets(3), 5)), 'EpochConflict');
      await failure(f.fence.change(fenceChange(buckets(3), 5, RUN_2)), 'EpochConflict');
      expect(await stateOf('cn-east/0')).toBe('write_disabled of dc-a at 5');
    });
  });

  describe('rules', () => {
    it('keep an epoch once, and only grow', async () => {
      expect(await f.rules.publish(rulesAt(3))).toMatchObject({ changed: true });
      expect(await f.rules.publish(rulesAt(3))).toMatchObject({ changed: false });
      await failure(f.rules.publish(rulesAt(3, 'other')), 'EpochConflict');
      await failure(f.rules.publish(rulesAt(2)), 'StaleEpoch');
      expect((await f.rules.current())?.rules.epoch).toBe(3);
      expect((await f.rules.at(1))?.rules).toEqual(testRules());
    });
  });
});
