import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { DcStores } from '../../src/fence/connect.js';
import { openAllStores } from '../../src/fence/connect.js';
import { initialise } from '../../src/fence/init.js';
import { silentLogger } from '../../src/observability/logger.js';
import { fenceRules, reopenRules } from '../../src/routing/plan.js';
import type { Rules } from '../../src/routing/rules.js';
import { RuleCenterClient } from '../../src/rule-center/client.js';
import { FenceStates } from '../../src/rule-center/fence-states.js';
import { RuleCenter } from '../../src/rule-center/rule-center.js';
import { initialRules } from '../../src/topology/derive.js';
import type { Topology } from '../../src/topology/schema.js';
import { FakeGateway, eventually } from '../rule-center/fakes.js';
import { freePort, startTestMysql } from '../support/mysql.js';
import type { TestMysql } from '../support/mysql.js';
import { exampleTopology } from '../support/topology.js';

/* eslint-disable @typescript-eslint/no-explicit-any, @typescript-eslint/no-unsafe-member-access, @typescript-eslint/no-unsafe-assignment */

const RUN = { workflowId: 'switchover/example', runId: 'run-1' };

describe.each(['mysql', 'mariadb'] as const)('%s: rule centers over real stores', (flavour) => {
  const servers: Record<string, TestMysql> = {};
  const centers: Record<string, { center: RuleCenter; client: RuleCenterClient; gateway: FakeGateway }> = {};
  let topology: Topology;
  let stores: Map<string, DcStores>;
  /** The rules in force; each test moves on from them, as epochs do. */
  let rules: Rules;

  beforeAll(async () => {
    [servers['dc-a'], servers['dc-b']] = await Promise.all([
      startTestMysql(flavour, { offset: 1 }),
      startTestMysql(flavour, { offset: 2 }),
    ]);
    const ports = { 'dc-a': await freePort(), 'dc-b': await freePort() };
    topology = exampleTopology((document: any) => {
      for (const dc of ['dc-a', 'dc-b'] as const) {
        document.datacenters[dc].ruleCenter.url = `http://127.0.0.1:${ports[dc]}`;
        const { main } = document.datacenters[dc].stores.mysql;
        Object.assign(main, { port: servers[dc]!.port, user: 'root', flavour });
      }
    });
    stores = openAllStores(topology, () => 'test');
    rules = initialRules(topology);
    await initialise(stores, rules, () => {});
    for (const [dc, other] of [
      ['dc-a', 'dc-b'],
      ['dc-b', 'dc-a'],
    ] as const) {
      const own = stores.get(dc)!;
      const token = randomBytes(16).toString('hex');
      const gateway = new FakeGateway();
      const { url } = topology.datacenters[dc]!.ruleCenter;
      const center = new RuleCenter({
        dc,
        topology: topology.name,
        domains: new Map([
          ['dc-a', 'a.example'],
          ['dc-b', 'b.example'],
        ]),
        token,
        listen: { host: '127.0.0.1', port: ports[dc] },
        rules: own.rules,
        states: [...own.fences.values()].map((fence) => new FenceStates(fence)),
        gateways: new Map([['gw-1', gateway]]),
        peer: new RuleCenterClient({ dc: other, url: topology.datacenters[other]!.ruleCenter.url }),
        log: silentLogger(),
      });
      await center.start();
      centers[dc] = { center, client: new RuleCenterClient({ dc, url, token }), gateway };
    }
  });

  afterAll(async () => {
    for (const { center, client } of Object.values(centers)) {
      await client.close();
      await center.stop();
    }
    for (const dc of stores?.values() ?? []) await dc.close();
    await Promise.all(Object.values(servers).map((server) => server.stop()));
  });

  const inForce = async (dc: string): Promise<number> => (await centers[dc]!.client.rules()).rules.epoch;
  /** The next rules, in force in both DCs. */
  const publish = async (next: Rules): Promise<void> => {
    for (const { client } of Object.values(centers)) await client.publish(next);
    rules = next;
  };
  const problems = async (dc: string): Promise<string[]> =>
    (await centers[dc]!.client.health()).problems.map((problem) => problem.code);

  beforeEach(async () => {
    await publish(reopenRules(rules, [], rules.epoch + 1, 'a test begins'));
  });

  test('published rules are in this store and at this gateway, and are not forwarded to the other DC', async () => {
    const next = fenceRules(rules, ['cn-east/0'], rules.epoch + 1, RUN, 'fence');
    const confirmations = await centers['dc-a']!.client.publish(next);
    expect(confirmations).toEqual([
      { dc: 'dc-a', gateway: 'gw-1', epoch: next.epoch, ok: true, detail: `has epoch ${next.epoch}` },
    ]);
    expect((await stores.get('dc-a')!.rules.current())?.rules).toEqual(next);
    // Longer than the stores are polled at.
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    expect(await inForce('dc-b')).toBe(rules.epoch);
    expect(await stores.get('dc-b')!.rules.highestEpoch()).toBe(rules.epoch);
    await expect(centers['dc-a']!.client.publish(rules)).rejects.toMatchObject({ code: 'StaleEpoch' });
    await expect(centers['dc-a']!.client.publish({ ...next, reason: 'other' })).rejects.toMatchObject({
      code: 'EpochConflict',
    });
    expect((await stores.get('dc-a')!.rules.current())?.rules).toEqual(next);
    await publish(reopenRules(next, ['cn-east/0'], next.epoch + 1, 'open again'));
  });

  test('rules that are committed behind its back come into force within a second', async () => {
    const next = reopenRules(rules, [], rules.epoch + 1, 'written by an activity');
    await stores.get('dc-b')!.rules.publish(next);
    const started = performance.now();
    await eventually(() => centers['dc-b']!.gateway.rules?.epoch === next.epoch || undefined);
    expect(performance.now() - started).toBeLessThan(2_000);
    await publish(next);
  });

  test('a store that is killed stops no reader; a publication fails as a whole; all is well when it is back', async () => {
    const { client, gateway } = centers['dc-a']!;
    await servers['dc-a']!.kill('SIGKILL');
    await eventually(async () => (await problems('dc-a')).includes('Unavailable') || undefined, 10_000);
    expect(await inForce('dc-a')).toBe(rules.epoch);
    expect((await client.route({ userId: '1' })).epoch).toBe(rules.epoch);
    const next = reopenRules(rules, [], rules.epoch + 1, 'while the store is down');
    await expect(client.publish(next)).rejects.toMatchObject({ code: 'Unavailable' });
    expect(gateway.rules?.epoch).toBe(rules.epoch);
    await servers['dc-a']!.restart();
    await eventually(async () => (await problems('dc-a')).length === 0 || undefined, 20_000);
    await publish(next);
    expect(gateway.rules?.epoch).toBe(next.epoch);
  });

  describe('a server with another identity', () => {
    /** The server forgets who it was: MySQL by a new auto.cnf; MariaDB's identity is of its machine and port, so its rows are changed. */
    async function replaceServer(dc: string): Promise<void> {
      const own = stores.get(dc)!.control;
      const before = await own.identity();
      if (flavour === 'mysql') {
        const [rows] = await own.pool.query<RowDataPacket[]>('SELECT @@datadir AS d');
        await servers[dc]!.kill('SIGKILL');
        await rm(path.join(String(rows[0]!['d']), 'auto.cnf'));
        await servers[dc]!.restart();
        await eventually(
          async () => (await own.identity().catch(() => before)) !== before || undefined,
          20_000,
        );
      } else {
        await own.pool.query(`UPDATE interlock.unit_state SET server = 'another'`);
      }
    }
    const statesOf = async (dc: string): Promise<{ ok: number; foreign: number }> => {
      const own = stores.get(dc)!.control;
      const server = await own.identity();
      const states = await own.states();
      const ok = states.filter((state) => state.server === server).length;
      return { ok, foreign: states.length - ok };
    };

    test('has its states asserted again, from the rules that both DCs agree on', async () => {
      await replaceServer('dc-a');
      await eventually(async () => (await statesOf('dc-a')).foreign === 0 || undefined, 30_000);
      const states = await stores.get('dc-a')!.control.states(['cn-east/0', 'cn-west/0']);
      expect(states).toMatchObject([
        { unit: 'cn-east/0', state: 'open', owner: 'dc-a', epoch: rules.epoch },
        { unit: 'cn-west/0', state: 'remote', owner: 'dc-b', epoch: rules.epoch },
      ]);
      await eventually(async () => (await problems('dc-a')).length === 0 || undefined, 10_000);
    });

    test('is left to an operator while a switchover holds units, and mended when it lets go', async () => {
      const fenced = fenceRules(rules, ['cn-west/7'], rules.epoch + 1, RUN, 'fence');
      await publish(fenced);
      await replaceServer('dc-b');
      await eventually(
        async () => (await problems('dc-b')).includes('ServerIdentityChanged') || undefined,
        30_000,
      );
      const { problems: found } = await centers['dc-b']!.client.health();
      expect(found.find((p) => p.code === 'ServerIdentityChanged')?.message).toMatch(
        /write-disabled by switchover run run-1/,
      );
      expect((await statesOf('dc-b')).ok).toBe(0);
      await publish(reopenRules(fenced, ['cn-west/7'], fenced.epoch + 1, 'given up'));
      await eventually(async () => (await statesOf('dc-b')).foreign === 0 || undefined, 30_000);
      expect((await stores.get('dc-b')!.control.states(['cn-west/7']))[0]).toMatchObject({ state: 'open' });
    });

    test('is left to an operator while the other DC has other rules', async () => {
      const ahead = reopenRules(rules, [], rules.epoch + 1, 'only here');
      await centers['dc-b']!.client.publish(ahead);
      await replaceServer('dc-a');
      await eventually(
        async () => (await problems('dc-a')).includes('ServerIdentityChanged') || undefined,
        30_000,
      );
      expect((await statesOf('dc-a')).ok).toBe(0);
      await publish(ahead);
      await eventually(async () => (await statesOf('dc-a')).foreign === 0 || undefined, 30_000);
    });
  });
});
