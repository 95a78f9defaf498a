/* eslint-disable @typescript-eslint/unbound-method -- activities are plain functions, they do not use `this` */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Rules } from '../../src/routing/rules.js';
import { initialRules } from '../../src/topology/derive.js';
import { DEFAULT_POLICIES } from '../../workflows/contract.js';
import type { SwitchReport, SwitchRequest, WriteDisableInput } from '../../workflows/contract.js';
import { RUN, failure, run, startActivities, step } from './activities-fixture.js';
import type { ActivitiesFixture } from './activities-fixture.js';
import { buckets } from './fence-fixture.js';

const LINK = 'mysql/main:dc-a>dc-b';
const BACK = 'mysql/main:dc-b>dc-a';
const UNITS = buckets(100);

describe.each(['mysql', 'mariadb'] as const)('activities on %s', (flavour) => {
  let f: ActivitiesFixture;
  let base: Rules;
  beforeAll(async () => {
    f = await startActivities(flavour);
    base = initialRules(f.topology);
  });
  afterAll(async () => {
    await f.stop();
  });
  beforeEach(async () => {
    await f.reset();
  });

  const request = (more: Partial<SwitchRequest> = {}): SwitchRequest => ({
    topology: 'test',
    scope: 'cn-east:10%',
    from: 'dc-a',
    to: 'dc-b',
    reason: 'test',
    startedBy: 'test',
    policies: DEFAULT_POLICIES,
    taskQueues: { 'dc-a': 'dc-a', 'dc-b': 'dc-b' },
    ...more,
  });
  const fenceInput = (epoch = 2, holder = RUN): WriteDisableInput => ({
    ...step(base, UNITS, epoch, { owner: 'dc-a', state: 'write_disabled' }, holder),
    fenceBudgetMs: 1_000,
    blockers: 'kill',
    drainTimeoutMs: 10_000,
    links: [{ link: LINK, store: 'main', markerId: `m${epoch}` }],
  });
  const switchInput = (epoch = 3) => step(base, UNITS, epoch, { owner: 'dc-b', state: 'open' });
  const reopenInput = (epoch = 4) => step(base, UNITS, epoch, { owner: 'dc-a', state: 'open' });
  const seen = async (dc: string): Promise<string> => {
    const states = await f.stores.get(dc)!.control.states(UNITS);
    return [...new Set(states.map((row) => `${row.state} of ${row.owner} at ${row.epoch}`))].join(', ');
  };

  it('moves units: fence, switch, hand-over, confirm, post-checks', async () => {
    const plan = await run(f.control.makePlan, request());
    expect(plan).toMatchObject({
      baseEpoch: 1,
      units: [...UNITS].sort(),
      stores: ['main'],
      controlStore: 'main',
    });
    expect(plan.diff).toEqual(['cn-east buckets 0–99: dc-a → dc-b (10.0 %)']);
    expect(plan.checks.filter(({ ok }) => !ok)).toEqual([]);
    for (const dc of ['dc-a', 'dc-b']) {
      const checks = await run(f.dc[dc]!.preflight, { dc, plan });
      expect(checks.filter(({ ok }) => !ok)).toEqual([]);
    }
    const fenced = await run(f.dc['dc-a']!.writeDisable, fenceInput());
    expect(fenced.baselines).toMatchObject([{ link: LINK, markerId: 'm2' }]);
    expect(fenced.baselines[0]!.position).not.toBe('');
    expect(await seen('dc-a')).toBe('write_disabled of dc-a at 2');
    const switched = await run(f.dc['dc-b']!.switchTarget, switchInput());
    expect(switched.gateways.map(({ dc, epoch, ok }) => `${dc} ${epoch} ${ok}`)).toEqual([
      'dc-b 3 true',
      'dc-a 3 true',
    ]);
    expect(await seen('dc-b')).toBe('open of dc-b at 3');
    expect((await f.stores.get('dc-b')!.rules.current())?.rules).toEqual(switchInput().rules);
    await run(f.dc['dc-a']!.handOverSource, switchInput());
    expect(await seen('dc-a')).toBe('remote of dc-b at 3');
    for (const dc of ['dc-a', 'dc-b']) {
      expect(await run(f.dc[dc]!.confirm, { dc, epoch: 3, timeoutMs: 1_000 })).toMatchObject([{ ok: true }]);
      const checks = await run(f.dc[dc]!.postCheck, { dc, owner: 'dc-b', units: UNITS, epoch: 3 });
      expect(checks.filter(({ ok }) => !ok)).toEqual([]);
    }
    expect(await run(f.control.findHeld, { topology: 'test', holder: RUN })).toEqual([]);
  });

  it('repeats every step without harm', async () => {
    for (let i = 0; i < 2; i++) await run(f.dc['dc-a']!.writeDisable, fenceInput());
    for (let i = 0; i < 2; i++) await run(f.dc['dc-b']!.switchTarget, switchInput());
    for (let i = 0; i < 2; i++) await run(f.dc['dc-a']!.handOverSource, switchInput());
    await run(f.dc['dc-b']!.switchTarget, switchInput());
    expect(await seen('dc-a')).toBe('remote of dc-b at 3');
    expect(await seen('dc-b')).toBe('open of dc-b at 3');
  });

  it('compensates: the target is raised, the source opens, and late steps of the attempt fail', async () => {
    await run(f.dc['dc-a']!.writeDisable, fenceInput());
    await run(f.dc['dc-b']!.raiseTarget, reopenInput());
    await failure(run(f.dc['dc-b']!.switchTarget, switchInput()), 'StaleEpoch');
    await run(f.dc['dc-a']!.reopenSource, reopenInput());
    expect(await seen('dc-a')).toBe('open of dc-a at 4');
    expect(await seen('dc-b')).toBe('remote of dc-a at 4');
    const late = await failure(run(f.dc['dc-a']!.writeDisable, fenceInput()), 'StaleEpoch');
    expect(late.nonRetryable).toBe(true);
    const rules = await Promise.all([...f.stores.values()].map((dc) => dc.rules.current()));
    expect(rules.map((one) => one?.hash)).toEqual([rules[0]!.hash, rules[0]!.hash]);
    expect(rules[0]!.rules.epoch).toBe(4);
  });

  describe('a whole data center', () => {
    const ALL = [...buckets(1000)];
    const all = (epoch: number, owner: string, from = 'dc-a', to = 'dc-b') => ({
      ...step(base, ALL, epoch, { owner, state: 'open' }),
      from,
      to,
    });
    const fenceAllInput = (): WriteDisableInput => ({
      ...step(base, ALL, 2, { owner: 'dc-a', state: 'write_disabled' }),
      readOnly: true,
      links: [],
      drainTimeoutMs: 10_000,
    });
    const isOn = async (dc: string) => (await f.stores.get(dc)!.control.readOnly.view()).on;

    it('is read_only while it owns nothing, and the next switchover to it lifts that', async () => {
      await run(f.dc['dc-a']!.writeDisable, fenceAllInput());
      expect(await isOn('dc-a')).toBe(true);
      await run(f.dc['dc-b']!.switchTarget, all(3, 'dc-b'));
      await run(f.dc['dc-a']!.handOverSource, all(3, 'dc-b'));
      expect([await isOn('dc-a'), await isOn('dc-b')]).toEqual([true, false]);

      // The way back: the preflight knows whose read_only it is, and the switch turns it off.
      const plan = await run(
        f.control.makePlan,
        request({ scope: 'cn-east/0-99', from: 'dc-b', to: 'dc-a' }),
      );
      const look = async () =>
        (await run(f.dc['dc-a']!.preflight, { dc: 'dc-a', plan })).find(({ name }) => /read_only/.test(name));
      expect(await look()).toMatchObject({
        ok: true,
        detail: expect.stringMatching(/^ON by Interlock .* since epoch 2/) as string,
      });
      await f.stores.get('dc-a')!.control.pool.query('UPDATE interlock.dc_read_only SET wanted = 0');
      expect(await look()).toMatchObject({ ok: false });
      await f.stores.get('dc-a')!.control.pool.query('UPDATE interlock.dc_read_only SET wanted = 1');
      await run(f.dc['dc-b']!.writeDisable, {
        ...step(base, ALL, 4, { owner: 'dc-b', state: 'write_disabled' }),
        from: 'dc-b',
        to: 'dc-a',
        links: [],
        drainTimeoutMs: 10_000,
      });
      await run(f.dc['dc-a']!.switchTarget, all(5, 'dc-a', 'dc-b', 'dc-a'));
      expect([await isOn('dc-a'), await isOn('dc-b')]).toEqual([false, false]);
    });

    it('a server that has forgotten it is not switched away from', async () => {
      await run(f.dc['dc-a']!.writeDisable, fenceAllInput());
      await f.stores.get('dc-a')!.control.pool.query('SET GLOBAL read_only = OFF');
      const error = await failure(run(f.dc['dc-b']!.switchTarget, all(3, 'dc-b')), 'Refused');
      expect(error.message).toMatch(/was read_only and is not any more/);
      await run(f.dc['dc-a']!.writeDisable, fenceAllInput());
      await run(f.dc['dc-b']!.switchTarget, all(3, 'dc-b'));
      expect(await isOn('dc-a')).toBe(true);
    });

    it('compensation lifts it, also where the fence broke off before its commit', async () => {
      await run(f.dc['dc-a']!.writeDisable, fenceAllInput());
      expect(await isOn('dc-a')).toBe(true);
      await run(f.dc['dc-b']!.raiseTarget, all(4, 'dc-a'));
      await run(f.dc['dc-a']!.reopenSource, all(4, 'dc-a'));
      expect(await isOn('dc-a')).toBe(false);
      const { control } = f.stores.get('dc-a')!;
      const server = await control.identity();
      await control.readOnly.turnOn({ epoch: 5, holder: RUN }, server, 'kill', performance.now() + 1_000);
      await run(f.dc['dc-b']!.raiseTarget, all(6, 'dc-a'));
      await run(f.dc['dc-a']!.reopenSource, all(6, 'dc-a'));
      expect(await isOn('dc-a')).toBe(false);
    });
  });

  it('a paused client keeps no step from its rows under the policy kill', async () => {
    const soon = { fenceBudgetMs: 200 };
    await run(f.dc['dc-a']!.writeDisable, fenceInput());
    await f.pausedClient('dc-b', UNITS[0]!);
    await run(f.dc['dc-b']!.raiseTarget, { ...reopenInput(), ...soon });
    await f.pausedClient('dc-a', UNITS[0]!);
    await run(f.dc['dc-a']!.reopenSource, { ...reopenInput(), ...soon });
    expect(await seen('dc-a')).toBe('open of dc-a at 4');
    await run(f.dc['dc-a']!.writeDisable, fenceInput(5));
    await f.pausedClient('dc-b', UNITS[0]!);
    await run(f.dc['dc-b']!.switchTarget, { ...switchInput(6), ...soon });
    await f.pausedClient('dc-a', UNITS[0]!);
    await run(f.dc['dc-a']!.handOverSource, { ...switchInput(6), ...soon });
    expect(await seen('dc-b')).toBe('open of dc-b at 6');
    expect(await seen('dc-a')).toBe('remote of dc-b at 6');
  });

  it('a client that the policy spares fails the fence and the re-opening, and the gateways release', async () => {
    const spare = { fenceBudgetMs: 200, blockers: 'give-up' } as const;
    const client = await f.pausedClient('dc-a', UNITS[0]!);
    await failure(run(f.dc['dc-a']!.writeDisable, { ...fenceInput(), ...spare }), 'FenceBudgetExceeded');
    await run(f.dc['dc-b']!.raiseTarget, { ...reopenInput(), ...spare });
    await failure(run(f.dc['dc-a']!.reopenSource, { ...reopenInput(), ...spare }), 'FenceBudgetExceeded');
    expect(await seen('dc-a')).toBe('open of dc-a at 1');
    for (const ruleCenter of f.ruleCenters.values()) expect(ruleCenter.current?.epoch).toBe(4);
    await client.query('COMMIT');
    await run(f.dc['dc-a']!.reopenSource, { ...reopenInput(), ...spare });
    expect(await seen('dc-a')).toBe('open of dc-a at 4');
  });

  it('another failure of the re-opening releases nothing', async () => {
    await run(f.dc['dc-a']!.writeDisable, fenceInput());
    await run(f.dc['dc-b']!.switchTarget, switchInput());
    await run(f.dc['dc-a']!.handOverSource, switchInput());
    await failure(run(f.dc['dc-a']!.reopenSource, reopenInput()), 'AlreadySwitched');
    for (const ruleCenter of f.ruleCenters.values()) expect(ruleCenter.current?.epoch).toBe(3);
  });

  it('does not compensate what has switched', async () => {
    await run(f.dc['dc-a']!.writeDisable, fenceInput());
    await run(f.dc['dc-b']!.switchTarget, switchInput());
    await failure(run(f.dc['dc-b']!.raiseTarget, reopenInput()), 'AlreadySwitched');
    await run(f.dc['dc-a']!.handOverSource, switchInput());
    await failure(run(f.dc['dc-a']!.reopenSource, reopenInput()), 'AlreadySwitched');
    // Rolling forward after doubt: the same switch again at a higher epoch.
    await run(f.dc['dc-b']!.switchTarget, switchInput(5));
    expect(await seen('dc-b')).toBe('open of dc-b at 5');
  });

  describe('the switch that waits for the links', () => {
    const waiting = (waitMs: number) => ({ ...switchInput(), waitMs, links: fenceInput().links });
    /** The link commits the marker, as one that runs in another process, or in this. */
    const arrive = async (here: boolean): Promise<void> => {
      await f.stores
        .get('dc-b')!
        .control.pool.query(
          "INSERT INTO interlock.link_checkpoint VALUES (?, 1, 'pos', 'server', 'm2', 1, UTC_TIMESTAMP(6))",
          [LINK],
        );
      if (here) await f.markers.arrived('m2');
    };

    it.each([true, false])('switches when the marker is there (link of this process: %s)', async (here) => {
      const switching = run(f.dc['dc-b']!.switchWhenDrained, waiting(20_000));
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      expect(await seen('dc-b')).toBe('remote of dc-a at 1');
      await arrive(here);
      // A link of this process signals the workflow behind the switch.
      if (here) expect(await seen('dc-b')).toBe('open of dc-b at 3');
      expect(await switching).toMatchObject({ gateways: [{ ok: true }, { ok: true }] });
      expect(await seen('dc-b')).toBe('open of dc-b at 3');
      // The workflow asks for the same when the answer was lost.
      await run(f.dc['dc-b']!.switchTarget, switchInput());
      expect(await seen('dc-b')).toBe('open of dc-b at 3');
    });

    it('changes nothing when the marker does not come', async () => {
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      expect(await run(f.dc['dc-b']!.switchWhenDrained, waiting(50))).toBeNull();
      expect(await seen('dc-b')).toBe('remote of dc-a at 1');
    });

    it('is refused when the source was opened again, or the target raised', async () => {
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      await run(f.dc['dc-a']!.reopenSource, reopenInput());
      await arrive(true);
      expect(await run(f.dc['dc-b']!.switchWhenDrained, waiting(50))).toBeNull();
      expect(await seen('dc-b')).toBe('remote of dc-a at 1');
      await run(f.dc['dc-b']!.raiseTarget, reopenInput());
      expect(await run(f.dc['dc-b']!.switchWhenDrained, waiting(50))).toBeNull();
      expect(await seen('dc-b')).toBe('remote of dc-a at 4');
    });

    it('changes nothing when the target was raised, though the source is fenced still', async () => {
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      await run(f.dc['dc-b']!.raiseTarget, reopenInput());
      await arrive(true);
      expect(await run(f.dc['dc-b']!.switchWhenDrained, waiting(50))).toBeNull();
      expect(await seen('dc-b')).toBe('remote of dc-a at 4');
    });

    it('locks nothing while it waits', async () => {
      const switching = run(f.dc['dc-b']!.switchWhenDrained, waiting(1_500));
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      const spare = { fenceBudgetMs: 100, blockers: 'give-up' } as const;
      await run(f.dc['dc-b']!.raiseTarget, { ...reopenInput(), ...spare });
      expect(await switching).toBeNull();
    });

    it('is refused while a prepared XA transaction may still write behind the fence', async () => {
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      const { pool } = f.stores.get('dc-a')!.control;
      const session = await pool.getConnection();
      await session.query("XA START 'x'");
      await session.query("INSERT INTO app.entry (user_id) VALUES ('u')");
      await session.query("XA END 'x'");
      await session.query("XA PREPARE 'x'");
      try {
        await arrive(true);
        expect(await run(f.dc['dc-b']!.switchWhenDrained, waiting(50))).toBeNull();
        expect(await seen('dc-b')).toBe('remote of dc-a at 1');
      } finally {
        await session.query("XA ROLLBACK 'x'");
        session.release();
      }
      expect(await run(f.dc['dc-b']!.switchWhenDrained, waiting(50))).not.toBeNull();
    });
  });

  describe('the switch looks at the source again', () => {
    it('and is refused when the source is open', async () => {
      await failure(run(f.dc['dc-b']!.switchTarget, switchInput()), 'Refused');
      expect(await seen('dc-b')).toBe('remote of dc-a at 1');
      expect(await f.stores.get('dc-b')!.rules.highestEpoch()).toBe(1);
    });

    it('and is refused when another run has fenced it', async () => {
      await run(f.dc['dc-a']!.writeDisable, fenceInput(2, { workflowId: 'switchover/test', runId: 'other' }));
      await failure(run(f.dc['dc-b']!.switchTarget, switchInput()), 'Refused');
    });

    it('and is refused when another server answers', async () => {
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      await f.stores
        .get('dc-a')!
        .control.pool.query("UPDATE interlock.unit_state SET server = 'restored' WHERE unit = 'cn-east/5'");
      await failure(run(f.dc['dc-b']!.switchTarget, switchInput()), 'ServerIdentityChanged');
      expect(await seen('dc-b')).toBe('remote of dc-a at 1');
    });

    it.each([
      `INSERT INTO interlock.conflict (link,gtid,name,row_key,kind,policy,kept,state,images,created_at)
        VALUES ('${BACK}','g','app.entry','1','not-owned','owner-wins','target','open','{}',UTC_TIMESTAMP(6))`,
      `INSERT INTO interlock.quarantine (link,gtid,reason,tries,passed,state,units,changes,created_at,changed_at)
        VALUES ('${BACK}','g','r',1,0,'open','[]','[]',UTC_TIMESTAMP(6),UTC_TIMESTAMP(6))`,
    ])('and is refused when the way back has met something undecided since the preflight', async (record) => {
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      const { pool } = f.stores.get('dc-a')!.control;
      await pool.query(
        `INSERT INTO interlock.link_checkpoint VALUES ('${BACK}', 1, 'pos', 'server', NULL, 1, UTC_TIMESTAMP(6))`,
      );
      await pool.query(record);
      const { message } = await failure(run(f.dc['dc-b']!.switchTarget, switchInput()), 'Refused');
      expect(message).toContain(`interlock conflicts list '${BACK}'`);
      expect(await seen('dc-b')).toBe('remote of dc-a at 1');
      await pool.query('DELETE FROM interlock.conflict');
      await pool.query('DELETE FROM interlock.quarantine');
      await run(f.dc['dc-b']!.switchTarget, switchInput());
      expect(await seen('dc-b')).toBe('open of dc-b at 3');
    });

    it('but rolls forward without it once the target is open', async () => {
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      await run(f.dc['dc-b']!.switchTarget, switchInput());
      await f.stores
        .get('dc-a')!
        .control.pool.query("UPDATE interlock.unit_state SET server = 'restored' WHERE unit = 'cn-east/5'");
      await run(f.dc['dc-b']!.switchTarget, switchInput(5));
      expect(await seen('dc-b')).toBe('open of dc-b at 5');
    });
  });

  it('does not need the rule centers: stores change, gateways are reported as not confirmed', async () => {
    for (const ruleCenter of f.ruleCenters.values()) ruleCenter.down = true;
    await run(f.dc['dc-a']!.writeDisable, fenceInput());
    const switched = await run(f.dc['dc-b']!.switchTarget, switchInput());
    expect(switched.sourceRoutedAt).toBeNull();
    await run(f.dc['dc-a']!.handOverSource, switchInput());
    expect(await seen('dc-b')).toBe('open of dc-b at 3');
    const waiting = run(f.dc['dc-a']!.confirm, { dc: 'dc-a', epoch: 3, timeoutMs: 20_000 });
    setTimeout(() => (f.ruleCenters.get('dc-a')!.down = false), 200);
    // Back again, it is told: nobody waits for the next switchover.
    expect(await waiting).toMatchObject([{ epoch: 3, ok: true }]);
    f.ruleCenters.get('dc-b')!.down = true;
    expect(await run(f.dc['dc-b']!.confirm, { dc: 'dc-b', epoch: 3, timeoutMs: 100 })).toMatchObject([
      { ok: false },
    ]);
  });

  it('tells the gateways of a fence that stands, and does not wait for them', async () => {
    for (const ruleCenter of f.ruleCenters.values()) ruleCenter.silent = true;
    await run(f.dc['dc-a']!.writeDisable, fenceInput());
    expect(await seen('dc-a')).toBe('write_disabled of dc-a at 2');
    for (const ruleCenter of f.ruleCenters.values()) ruleCenter.silent = false;
    await run(f.dc['dc-a']!.writeDisable, fenceInput());
    for (const ruleCenter of f.ruleCenters.values()) {
      await expect.poll(() => ruleCenter.published.at(-1)).toBe(2);
    }
  });

  it('does not tell the gateways of a fence that was not made', async () => {
    await f.pausedClient('dc-a', UNITS[0]!);
    const spare = { fenceBudgetMs: 50, blockers: 'give-up' } as const;
    const attempt = async (): Promise<number> => {
      const began = performance.now();
      await failure(run(f.dc['dc-a']!.writeDisable, { ...fenceInput(), ...spare }), 'FenceBudgetExceeded');
      return performance.now() - began;
    };
    const tookMs = await attempt();
    await new Promise((resolve) => setTimeout(resolve, 300));
    // On a busy machine a fence may be under way for so long that the gateways hold, and are told so.
    if (tookMs < 90) expect(f.ruleCenters.get('dc-a')!.published).toEqual([]);
  });

  it('refuses a step that went to the wrong data center', async () => {
    await failure(run(f.dc['dc-b']!.writeDisable, fenceInput()), 'BadInput');
    await failure(run(f.dc['dc-a']!.switchTarget, switchInput()), 'BadInput');
    await failure(run(f.dc['dc-a']!.raiseTarget, reopenInput()), 'BadInput');
    await failure(run(f.dc['dc-b']!.reopenSource, reopenInput()), 'BadInput');
    await failure(run(f.dc['dc-b']!.handOverSource, switchInput()), 'BadInput');
    expect(await seen('dc-b')).toBe('remote of dc-a at 1');
  });

  it('finds what dead runs left, and says which may be taken over', async () => {
    await run(f.dc['dc-a']!.writeDisable, fenceInput());
    const next = { workflowId: 'switchover/test', runId: 'run-2' };
    const held = await run(f.control.findHeld, { topology: 'test', holder: next });
    expect(held).toMatchObject([{ from: 'dc-a', to: 'dc-b', holder: RUN, holderClosed: false }]);
    expect(held[0]!.units).toEqual([...UNITS].sort());
    expect(await run(f.control.nextEpoch, { units: UNITS, holder: next })).toMatchObject({ epoch: 3 });
    await failure(run(f.dc['dc-a']!.writeDisable, fenceInput(5, next)), 'HeldByOther');
    f.closedRuns.add('run-1');
    const { epoch, takeOverFrom, rules } = await run(f.control.nextEpoch, { units: UNITS, holder: next });
    expect({ epoch, takeOverFrom }).toEqual({ epoch: 3, takeOverFrom: RUN });
    expect(rules.epoch).toBe(2);
    await run(f.dc['dc-a']!.writeDisable, { ...fenceInput(5, next), takeOverFrom: RUN });
    await failure(run(f.dc['dc-a']!.reopenSource, { ...reopenInput(9), holder: RUN }), 'HeldByOther');
  });

  it('reads baselines from the checkpoints', async () => {
    const links = [{ link: LINK, markerId: 'm2' }];
    const pool = f.stores.get('dc-b')!.control.pool;
    expect(await run(f.dc['dc-b']!.readBaselines, { links })).toEqual([]);
    await pool.query(
      "INSERT INTO interlock.link_checkpoint VALUES (?, 1, 'pos', 'server', 'm1', 1, UTC_TIMESTAMP(6))",
      [LINK],
    );
    expect(await run(f.dc['dc-b']!.readBaselines, { links })).toEqual([]);
    await pool.query("UPDATE interlock.link_checkpoint SET marker = 'm2'");
    expect(await run(f.dc['dc-b']!.readBaselines, { links })).toMatchObject([{ link: LINK, markerId: 'm2' }]);
  });

  it('waits until the links have caught up, and not for one that has stopped', async () => {
    f.links.get(LINK)!.lagMs = 5_000;
    const waiting = run(f.dc['dc-b']!.catchUp, { links: [LINK], lagLimitMs: 1_000 });
    setTimeout(() => (f.links.get(LINK)!.lagMs = 10), 150);
    expect(await waiting).toMatchObject([{ link: LINK, state: 'streaming', lagMs: 10 }]);
    f.links.get(LINK)!.state = 'failed';
    await failure(run(f.dc['dc-b']!.catchUp, { links: [LINK], lagLimitMs: 1_000 }), 'LinkStopped');
  });

  describe('plans', () => {
    it('have a hash that changes with the world, and not with lag and positions', async () => {
      const { hash } = await run(f.control.makePlan, request());
      f.links.get(LINK)!.lagMs = 77;
      f.links.get(LINK)!.position = 'x:1-9';
      expect((await run(f.control.makePlan, request())).hash).toBe(hash);
      const hashes = new Set([hash]);
      const policies = { ...DEFAULT_POLICIES, soakMs: 1 };
      hashes.add((await run(f.control.makePlan, request({ policies }))).hash);
      hashes.add((await run(f.control.makePlan, request({ scope: 'cn-east/0-98' }))).hash);
      await f.stores
        .get('dc-b')!
        .control.pool.query(
          "INSERT INTO interlock.link_checkpoint VALUES (?, 4, 'pos', 's', NULL, 1, UTC_TIMESTAMP(6))",
          [LINK],
        );
      hashes.add((await run(f.control.makePlan, request())).hash);
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      hashes.add((await run(f.control.makePlan, request())).hash);
      expect(hashes.size).toBe(5);
    });

    it('are refused for scopes and data centers that are not there', async () => {
      await failure(run(f.control.makePlan, request({ scope: 'cn-north:10%' })), 'BadInput');
      await failure(run(f.control.makePlan, request({ scope: "'; DROP TABLE" })), 'BadInput');
      await failure(run(f.control.makePlan, request({ to: 'dc-c' })), 'BadInput');
      await failure(run(f.control.makePlan, request({ to: 'dc-a' })), 'BadInput');
    });

    it('name links that do not stream', async () => {
      f.links.delete(LINK);
      const plan = await run(f.control.makePlan, request());
      expect(plan.checks.filter(({ ok }) => !ok).map(({ name }) => name)).toEqual([`link ${LINK}`]);
    });
  });

  describe('preflight names', () => {
    const wrong = async (dc: string, change: () => Promise<unknown>): Promise<string[]> => {
      const plan = await run(f.control.makePlan, request());
      await change();
      const checks = await run(f.dc[dc]!.preflight, { dc, plan });
      return checks.filter(({ ok }) => !ok).map(({ name }) => name);
    };
    const sql = (dc: string, text: string) => f.stores.get(dc)!.control.pool.query(text);

    it('rules that have moved on', async () => {
      const next = step(base, UNITS, 2, { owner: 'dc-a', state: 'open' }).rules;
      expect(await wrong('dc-a', () => f.stores.get('dc-a')!.rules.publish(next))).toEqual(['dc-a: rules']);
    });

    it.each([
      [
        'a conflict that nobody has decided',
        `INSERT INTO interlock.conflict (link,gtid,name,row_key,kind,policy,kept,state,images,created_at)
          VALUES ('${LINK}','g','app.entry','1','not-owned','owner-wins','target','open','{}',UTC_TIMESTAMP(6))`,
      ],
      [
        'a transaction in quarantine',
        `INSERT INTO interlock.quarantine (link,gtid,reason,tries,passed,state,units,changes,created_at,changed_at)
          VALUES ('${LINK}','g','r',1,1,'open','[]','[]',UTC_TIMESTAMP(6),UTC_TIMESTAMP(6))`,
      ],
    ])('%s; and neither is drained', async (_what, record) => {
      await sql(
        'dc-b',
        `INSERT INTO interlock.link_checkpoint VALUES ('${LINK}', 3, 'pos', 'server', 'm2', 1, UTC_TIMESTAMP(6))`,
      );
      expect(await wrong('dc-b', () => sql('dc-b', record))).toEqual([`link ${LINK}`]);
      const links = fenceInput().links;
      const [reached] = await run(f.dc['dc-b']!.readBaselines, { links });
      expect(reached!.conflicts + reached!.quarantined).toBe(1);
      await run(f.dc['dc-a']!.writeDisable, fenceInput());
      expect(await run(f.dc['dc-b']!.switchWhenDrained, { ...switchInput(), waitMs: 50, links })).toBeNull();
      expect(await seen('dc-b')).toBe('remote of dc-a at 1');
    });

    it('a server that forgot', async () => {
      expect(await wrong('dc-b', () => sql('dc-b', "UPDATE interlock.unit_state SET server = 'x'"))).toEqual([
        'dc-b mysql/main: identity and unit states',
      ]);
    });

    it('unit states that the rules do not say', async () => {
      const open = "UPDATE interlock.unit_state SET state = 'open', owner = 'dc-b' WHERE unit = 'cn-east/9'";
      expect(await wrong('dc-b', () => sql('dc-b', open))).toEqual([
        'dc-b mysql/main: identity and unit states',
      ]);
    });

    it('a routed table that is not InnoDB', async () => {
      try {
        expect(await wrong('dc-a', () => sql('dc-a', 'ALTER TABLE app.entry ENGINE=MyISAM'))).toEqual([
          'dc-a mysql/main: routed tables',
        ]);
      } finally {
        await sql('dc-a', 'ALTER TABLE app.entry ENGINE=InnoDB');
      }
    });

    it('definitions that differ, and a change of them that is under way', async () => {
      try {
        expect(await wrong('dc-b', () => sql('dc-a', 'ALTER TABLE app.entry ADD COLUMN x INT'))).toEqual([
          'dc-b mysql/main: definitions',
        ]);
      } finally {
        await sql('dc-a', 'ALTER TABLE app.entry DROP COLUMN x');
      }
      const step = `INSERT INTO interlock.ddl_step VALUES ('c', 1, 'app.entry', 'ALTER', NULL, 'running', NULL, UTC_TIMESTAMP(6))`;
      expect(await wrong('dc-b', () => sql('dc-a', step))).toEqual(['dc-b mysql/main: definitions']);
      await sql('dc-a', `UPDATE interlock.ddl_step SET state = 'done'`);
      expect(await wrong('dc-b', () => Promise.resolve())).toEqual([]);
    });

    it('nothing of tables that links rename and of columns that they leave out, on one side or both', async () => {
      const { tables, links } = f.topology;
      const leftOut = { without: ['only_a'] };
      const first = links[0]!;
      if (first.kind !== 'mysql') throw new Error('expected the link of mysql/main');
      const there = {
        ...{ ...first, from: 'dc-a', to: 'dc-b', include: ['app.entry', 'app.here'] },
        ...{ rename: { 'app.here': 'app.there' }, columns: { 'app.here': leftOut } },
      };
      const back = {
        ...{ ...first, from: 'dc-b', to: 'dc-a', include: ['app.entry', 'app.there'] },
        ...{ rename: { 'app.there': 'app.here' }, columns: { 'app.there': leftOut } },
      };
      const none = (): Promise<void> => Promise.resolve();
      const definitions = ['dc-b mysql/main: definitions'];
      try {
        await sql(
          'dc-a',
          'CREATE TABLE app.here (id INT PRIMARY KEY, user_id INT, only_a INT) ENGINE=InnoDB',
        );
        await sql('dc-b', 'CREATE TABLE app.there (id INT PRIMARY KEY, user_id INT) ENGINE=InnoDB');
        const routed = { userId: 'user_id' };
        f.topology.tables = { ...tables, 'app.here': routed, 'app.there': routed };
        f.topology.links = [there, back];
        expect(await wrong('dc-a', none)).toEqual([]);
        expect(await wrong('dc-b', none)).toEqual([]);
        // Both sides store it: the new owner's values would be others.
        await sql('dc-b', 'ALTER TABLE app.there ADD COLUMN only_a INT');
        expect(await wrong('dc-b', none)).toEqual(definitions);
        await sql('dc-b', 'ALTER TABLE app.there DROP COLUMN only_a');
        expect(await wrong('dc-b', none)).toEqual([]);
        // Either way alone would bring a column that the other side has not.
        f.topology.links = [{ ...there, columns: {} }, back];
        expect(await wrong('dc-b', none)).toEqual(definitions);
        f.topology.links = [there, { ...back, columns: {} }];
        expect(await wrong('dc-b', none)).toEqual(definitions);
        // What is written there would not return.
        f.topology.links = [there, { ...back, include: ['app.entry'] }];
        expect(await wrong('dc-b', none)).toEqual(['dc-b mysql/main: routed tables']);
        f.topology.links = [{ ...there, rename: {} }, back];
        expect(await wrong('dc-b', none)).toEqual(['dc-b mysql/main: routed tables', ...definitions]);
      } finally {
        Object.assign(f.topology, { tables, links });
        await sql('dc-a', 'DROP TABLE app.here');
        await sql('dc-b', 'DROP TABLE app.there');
      }
    });

    it('a link that stopped, a gateway that is behind, keys that can collide', async () => {
      const change = async (): Promise<void> => {
        f.links.get(LINK)!.state = 'failed';
        f.ruleCenters.get('dc-b')!.current = undefined;
        await sql('dc-b', 'SET GLOBAL auto_increment_offset = 1');
      };
      try {
        expect(await wrong('dc-b', change)).toEqual([
          'dc-b mysql/main: auto-increment',
          `link ${LINK}`,
          'dc-b: gateways',
        ]);
      } finally {
        await sql('dc-b', 'SET GLOBAL auto_increment_offset = 2');
      }
    });

    it('a prepared XA transaction', async () => {
      const connection = await f.stores.get('dc-a')!.control.pool.getConnection();
      const prepare = async (): Promise<void> => {
        for (const text of [
          "XA START 'p'",
          'INSERT INTO app.entry (user_id) VALUES (1)',
          "XA END 'p'",
          "XA PREPARE 'p'",
        ]) {
          await connection.query(text);
        }
      };
      try {
        expect(await wrong('dc-a', prepare)).toEqual(['dc-a mysql/main: prepared XA transactions']);
      } finally {
        await connection.query("XA ROLLBACK 'p'");
        connection.destroy();
      }
    });
  });

  it('keeps the report in both control stores, and in one when the other is away', async () => {
    const report = { runId: 'r1', flows: [] } as unknown as SwitchReport;
    await run(f.control.recordReport, report);
    for (const dc of f.stores.values()) {
      const [rows] = await dc.control.pool.query('SELECT run_id FROM interlock.report');
      expect(rows).toEqual([{ run_id: 'r1' }]);
    }
    await f.servers['dc-b']!.kill('SIGKILL');
    try {
      await run(f.control.recordReport, { ...report, runId: 'r2' });
      const error = await failure(run(f.control.nextEpoch, { units: UNITS, holder: RUN }), 'Unavailable');
      expect(error.nonRetryable).toBe(false);
    } finally {
      await f.servers['dc-b']!.restart();
    }
  });

  it('sums what the gateways counted', async () => {
    expect(await run(f.dc['dc-a']!.gatewayTotals, { dc: 'dc-a' })).toEqual({
      heldRequests: 3,
      refusedRequests: 2,
      failedRequests: 1,
      unavailableMs: 7,
    });
  });
});
