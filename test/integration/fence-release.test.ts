import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { isInterlockError } from '../../src/errors.js';
import { diagnose } from '../../src/fence/diagnosis.js';
import { release, releaseHolder } from '../../src/fence/release.js';
import type { ReleaseOptions } from '../../src/fence/release.js';
import type { Rules } from '../../src/routing/rules.js';
import { initialRules } from '../../src/topology/derive.js';
import { RUN, startActivities, step } from './activities-fixture.js';
import type { ActivitiesFixture } from './activities-fixture.js';
import { buckets } from './fence-fixture.js';

const UNITS = buckets(100);

describe.each(['mysql', 'mariadb'] as const)('fence release on %s', (flavour) => {
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

  const fenceStep = (epoch = 2) => step(base, UNITS, epoch, { owner: 'dc-a', state: 'write_disabled' });
  const switchStep = (epoch = 3) => step(base, UNITS, epoch, { owner: 'dc-b', state: 'open' });
  const control = (dc: string) => f.stores.get(dc)!.control;
  const writeDisable = () =>
    control('dc-a').change({ ...fenceStep(), to: 'write_disabled', owner: 'dc-a', rules: fenceStep().rules });
  const switchTarget = (epoch = 3) =>
    control('dc-b').change({
      ...switchStep(epoch),
      to: 'open',
      owner: 'dc-b',
      rules: switchStep(epoch).rules,
    });
  /** As a crash leaves it: the rows, without the rules. */
  const handOver = () => {
    const { rules: _, ...change } = switchStep();
    return control('dc-a').change({ ...change, to: 'remote', owner: 'dc-b' });
  };
  const seen = async (dc: string): Promise<string> => {
    const states = await control(dc).states(UNITS);
    return [...new Set(states.map((row) => `${row.state} of ${row.owner} at ${row.epoch}`))].join(', ');
  };
  const kinds = async () => (await diagnose(f.stores)).findings.map(({ kind, text }) => `${kind}: ${text}`);
  const go = (more: Partial<ReleaseOptions> = {}) =>
    release(f.stores, {
      holder: releaseHolder('tester', new Date()),
      reason: 'test',
      blockers: 'kill',
      say: () => undefined,
      ...more,
    });
  const codeOf = async (promise: Promise<unknown>): Promise<string> => {
    const error = await promise.then(
      () => undefined,
      (e: unknown) => e,
    );
    return isInterlockError(error) ? error.code : String(error);
  };
  const rulesAgree = async (): Promise<Rules> => {
    const stored = await Promise.all([...f.stores.values()].map((dc) => dc.rules.current()));
    expect(stored[1]!.hash).toBe(stored[0]!.hash);
    return stored[0]!.rules;
  };

  it('has nothing to do when every unit is open in one data center', async () => {
    expect(await kinds()).toEqual([]);
    expect((await go()).released).toEqual([]);
    expect(await seen('dc-a')).toBe('open of dc-a at 1');
  });

  it('raises the target, then opens the source: late operations of the dead run fail', async () => {
    await writeDisable();
    expect(await kinds()).toEqual(['held: cn-east buckets 0–99']);
    expect((await go()).released).toMatchObject([{ owner: 'dc-a', epoch: 3, how: 're-opened' }]);
    expect(await seen('dc-a')).toBe('open of dc-a at 3');
    expect(await seen('dc-b')).toBe('remote of dc-a at 3');
    const rules = await rulesAgree();
    expect(rules.epoch).toBe(3);
    expect(rules.regions['cn-east']).toEqual(base.regions['cn-east']);
    expect(rules.holder).toBeNull();
    expect(await codeOf(switchTarget())).toBe('EpochConflict');
    expect(await codeOf(switchTarget(2))).toBe('StaleEpoch');
    expect(await codeOf(writeDisable())).toBe('StaleEpoch');
    expect(await kinds()).toEqual([]);
  });

  it('is not kept from it by a paused client, unless it is told to spare it', async () => {
    await writeDisable();
    for (const dc of ['dc-a', 'dc-b']) {
      const client = await f.pausedClient(dc, UNITS[0]!);
      expect(await codeOf(go({ blockers: 'give-up' }))).toBe('FenceBudgetExceeded');
      if (dc === 'dc-a') client.destroy();
    }
    expect((await go()).released).toMatchObject([{ owner: 'dc-a', how: 're-opened' }]);
    expect(await kinds()).toEqual([]);
  });

  it('rolls forward when the target is open', async () => {
    await writeDisable();
    await switchTarget();
    expect(await kinds()).toEqual(['half-switched: cn-east buckets 0–99']);
    expect((await go()).released).toMatchObject([{ owner: 'dc-b', how: 'rolled forward' }]);
    expect(await seen('dc-b')).toBe('open of dc-b at 4');
    expect(await seen('dc-a')).toBe('remote of dc-b at 4');
    expect((await rulesAgree()).regions['cn-east']![0]).toMatchObject({
      owner: 'dc-b',
      state: 'open',
      to: 99,
    });
  });

  it('publishes the rules where only they are missing', async () => {
    await writeDisable();
    await switchTarget();
    await handOver();
    expect(await kinds()).toEqual([]);
    expect((await go()).released).toMatchObject([{ how: 'rules published' }]);
    expect((await rulesAgree()).epoch).toBe(3);
  });

  it('opens what is open nowhere, where the highest epoch says', async () => {
    await writeDisable();
    await handOver();
    expect(await kinds()).toEqual(['ownerless: cn-east buckets 0–99']);
    await go();
    expect(await seen('dc-b')).toBe('open of dc-b at 4');
    expect(await seen('dc-a')).toBe('remote of dc-b at 4');
    await rulesAgree();
  });

  it('mends a hold that was announced and never reached the rows', async () => {
    for (const dc of f.stores.values()) await dc.rules.publish(fenceStep().rules);
    expect(await kinds()).toEqual(['inconsistent: cn-east buckets 0–99']);
    await go();
    expect((await rulesAgree()).regions['cn-east']).toEqual(base.regions['cn-east']);
    expect(await kinds()).toEqual([]);
  });

  it('needs an operator when a unit is open in both, and changes nothing', async () => {
    await control('dc-b').change({ ...switchStep(), to: 'open', owner: 'dc-b' });
    expect(await kinds()).toEqual(['open-in-both: cn-east buckets 0–99']);
    expect(await codeOf(go())).toBe('NeedsOperator');
    expect(await seen('dc-a')).toBe('open of dc-a at 1');
  });

  it('with a target that does not answer needs the word of an operator, which is kept', async () => {
    await writeDisable();
    await f.servers['dc-b']!.kill('SIGKILL');
    try {
      expect(await kinds()).toEqual(['unknown: cn-east buckets 0–99']);
      expect(await codeOf(go())).toBe('NeedsOperator');
      expect(await seen('dc-a')).toBe('write_disabled of dc-a at 2');
      const { unreachable } = await go({ assertTargetFenced: 'rack is powered off' });
      expect(unreachable).toEqual(['dc-b']);
      expect(await seen('dc-a')).toBe('open of dc-a at 3');
      expect((await f.stores.get('dc-a')!.rules.current())?.rules.reason).toContain('rack is powered off');
    } finally {
      await f.servers['dc-b']!.restart();
    }
    // Back again, it has the old rows: a release levels the rules, and the source is open, so that no late switch passes.
    await go();
    await rulesAgree();
    expect(await kinds()).toEqual([]);
  });

  it('mends read_only: of a fence that died, and of a server that was restarted', async () => {
    const { readOnly } = control('dc-a');
    const server = await control('dc-a').identity();
    await readOnly.turnOn({ epoch: 2, holder: RUN }, server, 'kill', performance.now() + 1_000);
    expect((await readOnly.view()).on).toBe(true);
    const { released } = await go();
    expect(released.map(({ text, how }) => `${text}: ${how}`)).toEqual([
      'read_only of dc-a mysql/main: turned off',
    ]);
    expect((await readOnly.view()).on).toBe(false);
  });

  it('racing with the late switch of a dead run ends with one owner', async () => {
    for (let i = 0; i < 8; i++) {
      await f.reset();
      await writeDisable();
      const results = await Promise.allSettled([go(), switchTarget()]);
      expect(results[0].status).toBe('fulfilled');
      // The switch may have come first, between two looks, or too late.
      await go();
      expect(await kinds()).toEqual([]);
      const [a, b] = [await seen('dc-a'), await seen('dc-b')];
      expect([a.startsWith('open'), b.startsWith('open')].filter(Boolean)).toHaveLength(1);
      await rulesAgree();
    }
  });

  it('two releases at once end in one state', async () => {
    await writeDisable();
    const results = await Promise.allSettled([go(), go(), go()]);
    expect(results.filter(({ status }) => status === 'rejected')).toEqual([]);
    expect(await kinds()).toEqual([]);
    await rulesAgree();
  });

  it('leaves units of another server to be re-asserted, and says so', async () => {
    await control('dc-a').pool.query(
      "UPDATE interlock.unit_state SET server = 'restored' WHERE unit IN (?)",
      [UNITS],
    );
    const { findings, stores } = await diagnose(f.stores);
    expect(findings).toEqual([]);
    expect(stores.find(({ dc }) => dc === 'dc-a')!.foreign).toBe(100);
  });

  it('names the holder and epoch of what is held', async () => {
    await writeDisable();
    expect((await diagnose(f.stores)).findings).toMatchObject([
      { holder: RUN, epoch: 2, owner: 'dc-a', other: 'dc-b' },
    ]);
  });
});
