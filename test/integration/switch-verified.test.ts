import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createVerificationActivities } from '../../activities/verification.js';
import { checkVerified } from '../../activities/verified.js';
import { NOTHING_COMPARED } from '../../replicators/redis/verify/verification.js';
import type { RedisVerifyProgress, VerifyMode } from '../../replicators/redis/verify/verification.js';
import type { Check, SwitchRequest } from '../../workflows/contract.js';
import { DEFAULT_POLICIES } from '../../workflows/contract.js';
import { UNTOUCHED } from '../../workflows/verification-contract.js';
import type { VerifyReport } from '../../workflows/verification-contract.js';
import { exampleTopology } from '../support/topology.js';
import { startActivities } from './activities-fixture.js';
import type { ActivitiesFixture } from './activities-fixture.js';

const HOUR = 3_600_000;

describe.each(['mysql', 'mariadb'] as const)(
  'a switchover that requires a verification, on %s',
  (flavour) => {
    let f: ActivitiesFixture;
    let runs = 0;
    beforeAll(async () => {
      f = await startActivities(flavour);
    });
    beforeEach(async () => {
      await f.reset();
      for (const dc of f.stores.values()) await dc.control.pool.query('DELETE FROM interlock.verification');
    });
    afterAll(async () => f?.stop());

    const check = async (
      requireVerifyMs: number | undefined,
      more: Partial<SwitchRequest> = {},
    ): Promise<Check | undefined> => {
      const policies = { ...DEFAULT_POLICIES, ...(requireVerifyMs !== undefined && { requireVerifyMs }) };
      const plan = await f.control.makePlan({
        ...{
          topology: 'test',
          scope: 'cn-east:10%',
          from: 'dc-a',
          to: 'dc-b',
          reason: '',
          startedBy: 'a test',
        },
        ...{ policies, taskQueues: {}, ...more },
      });
      return plan.checks.find(({ name }) => name === 'verification');
    };
    /** Keeps a report as a verification does, and makes it so old. */
    const verified = async (
      progress: Partial<typeof UNTOUCHED>,
      {
        scope = null as string | null,
        ageHours = 0,
        table = 'app.entry',
        redis = undefined as { mode: VerifyMode; progress: Partial<RedisVerifyProgress> } | undefined,
      } = {},
    ): Promise<void> => {
      const activities = createVerificationActivities({
        ...{ topology: f.topology, stores: f.stores, readLinkStatus: async () => undefined },
        secret: () => '',
      });
      const report: VerifyReport = {
        ...{
          workflowId: 'verify/test',
          runId: `run-${++runs}`,
          state: 'ended',
          outcome: 'equal',
          summary: '',
        },
        request: {
          ...{ topology: 'test', tables: [], scope, repair: false, keep: 1, startedBy: 'a test' },
          ...(redis && { redis: { stores: [], mode: redis.mode, expiryToleranceMs: 0 } }),
        },
        ...(redis && {
          stores: [
            { store: 'cache', links: [], progress: { ...NOTHING_COMPARED, done: true, ...redis.progress } },
          ],
        }),
        tables: [
          {
            ...{ store: 'main', table, links: [], estimatedRows: 1, obstacle: null },
            progress: { ...UNTOUCHED, done: true, rows: 1, ...progress },
          },
        ],
        ...{ rows: 1, differing: 0, repaired: 0, undecided: 0, rowsPerSecond: 0, etaMs: null, error: null },
        ...{ startedAt: '', endedAt: '' },
      };
      await activities.recordVerification(report);
      for (const dc of f.stores.values())
        await dc.control.pool.query(
          'UPDATE interlock.verification SET created_at = created_at - INTERVAL ? SECOND WHERE run_id = ?',
          [Math.round(ageHours * 3600), report.runId],
        );
    };

    it('asks for none by itself', async () => {
      expect(await check(undefined)).toBeUndefined();
    });

    it('refuses without one, and names table and command', async () => {
      const refused = await check(24 * HOUR);
      expect(refused).toMatchObject({ ok: false });
      expect(refused!.detail).toContain('app.entry was not verified');
      expect(refused!.detail).toContain('interlock verify mysql --tables app.entry');
      await verified({}, { table: 'app.other' });
      expect((await check(24 * HOUR))!.ok).toBe(false);
    });

    it('takes one of all rows, or of all units that move, that is not too old', async () => {
      await verified({}, { ageHours: 3 });
      expect(await check(24 * HOUR)).toMatchObject({ ok: true });
      expect(await check(2 * HOUR)).toMatchObject({ ok: false });
      await verified({}, { scope: 'cn-east/0-98' });
      expect((await check(2 * HOUR))!.detail).toContain('was compared for cn-east/0-98 only');
      await verified({}, { scope: 'cn-east/0-99' });
      expect(await check(2 * HOUR)).toMatchObject({ ok: true });
      expect(await check(2 * HOUR, { scope: 'region:cn-east' })).toMatchObject({ ok: false });
    });

    it('takes none that is red, and none that a newer red one contradicts', async () => {
      for (const [bad, words] of [
        [{ differing: 3, repaired: 2 }, '1 rows that differ'],
        [{ undecided: 2 }, '2 rows that could not be decided'],
        [{ cut: true }, 'rows that differ'],
        [{ notComparable: 'the link was down' }, 'not compared to its end'],
        [{ done: false }, 'not compared to its end'],
      ] as const) {
        for (const dc of f.stores.values()) await dc.control.pool.query('DELETE FROM interlock.verification');
        await verified(bad);
        const refused = await check(24 * HOUR);
        expect(refused).toMatchObject({ ok: false });
        expect(refused!.detail).toContain(words);
      }
      await verified({}, { ageHours: 2 });
      await verified({ differing: 1 }, { ageHours: 1 });
      expect((await check(24 * HOUR))!.detail).toContain('1 rows that differ');
      await verified({ differing: 1, repaired: 1 });
      expect(await check(24 * HOUR)).toMatchObject({ ok: true });
    });

    it('counts Redis stores whose keys may be of the units, compared in full', async () => {
      const topology = exampleTopology((document) => {
        document['name'] = 'test';
        document['keys'] = [{ pattern: 'user:{userId}' }];
        document['links'] = [{ store: 'redis/cache' }];
        const datacenters = document['datacenters'] as Record<string, { stores: object }>;
        for (const [i, { stores }] of Object.values(datacenters).entries())
          Object.assign(stores, { redis: { cache: { host: '127.0.0.1', port: 3 + i } } });
      });
      const { rules } = (await f.stores.get('dc-a')!.rules.current())!;
      const of = (units: string[]): Promise<Check> =>
        checkVerified({ topology, stores: f.stores, from: 'dc-a', rules, units }, 24 * HOUR);
      const refused = await of(['cn-east/0']);
      expect(refused).toMatchObject({ ok: false });
      expect(refused.detail).toMatch(
        /^redis\/cache was not verified \(.*: run `interlock verify redis --store cache`$/,
      );
      expect(await of(['central:other'])).toMatchObject({ ok: true });
      await verified({}, { redis: { mode: 'length', progress: {} } });
      expect((await of(['cn-east/0'])).detail).toContain('redis/cache was compared in mode length only');
      await verified({}, { redis: { mode: 'full', progress: {} } });
      expect(await of(['cn-east/0'])).toMatchObject({ ok: true });
      await verified({}, { redis: { mode: 'existence', progress: { differing: 2, repaired: 1 } } });
      expect((await of(['cn-east/0'])).detail).toContain('redis/cache had 1 keys that differ');
    });

    it('does not hold up the way back', async () => {
      expect(await check(24 * HOUR, { units: ['cn-east/0'] })).toBeUndefined();
    });
  },
);
