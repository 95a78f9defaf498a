import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { rulesHash } from '../../src/routing/hash.js';
import type { Rules } from '../../src/routing/rules.js';
import type { HealthAnswer, RulesDocument } from '../../src/rule-center/api.js';
import { RuleCenterClient } from '../../src/rule-center/client.js';
import { FakeRulesTable, eventually, rules1, rules2, rules3, startCenter } from './fakes.js';
import type { Center } from './fakes.js';

let running: Center | undefined;
let client: RuleCenterClient;

async function start(...args: Parameters<typeof startCenter>): Promise<Center> {
  running = await startCenter(...args);
  client = new RuleCenterClient({ dc: 'dc-a', url: running.url, token: running.token });
  return running;
}

afterEach(async () => {
  await client.close();
  await running?.center.stop();
  running = undefined;
});

const problemCodes = async (): Promise<string[]> => (await client.health()).problems.map((p) => p.code);

describe('before there are rules', () => {
  test('everything says so, and rules of the store come into force by themselves', async () => {
    const { table, gateways, url } = await start(new FakeRulesTable());
    await expect(client.rules()).rejects.toMatchObject({ code: 'NoRules', retryable: true });
    await expect(client.route({ userId: '1' })).rejects.toMatchObject({ code: 'NoRules' });
    await expect(client.units()).rejects.toMatchObject({ code: 'NoRules' });
    const response = await fetch(`${url}/v1/health`);
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ status: 'no-rules', epoch: null });
    table.epochs.set(1, rules1);
    await eventually(() => gateways['gw-1'].rules?.epoch === 1 || undefined);
    expect((await client.rules()).rules).toEqual(rules1);
  });
});

describe('publishing', () => {
  test('rules are kept in the store, in force, and at every gateway when the answer comes', async () => {
    const { table, gateways } = await start();
    expect(await client.publish(rules2)).toEqual([
      { dc: 'dc-a', gateway: 'gw-1', epoch: 2, ok: true, detail: 'has epoch 2' },
      { dc: 'dc-a', gateway: 'gw-2', epoch: 2, ok: true, detail: 'has epoch 2' },
    ]);
    expect(table.epochs.get(2)).toEqual(rules2);
    expect(gateways['gw-2'].rules).toEqual({ epoch: 2, hash: rulesHash(rules2) });
    expect(await client.rules()).toEqual({ rules: rules2, hash: rulesHash(rules2) });
    expect(await client.publish(rules2)).toHaveLength(2);
  });

  test('a gateway that is down does not hold the others up, and gets the rules when it is back', async () => {
    const { gateways } = await start();
    gateways['gw-2'].down = true;
    const started = performance.now();
    const confirmations = await client.publish(rules2);
    expect(performance.now() - started).toBeLessThan(500);
    expect(confirmations.map((c) => [c.gateway, c.epoch, c.ok])).toEqual([
      ['gw-1', 2, true],
      ['gw-2', null, false],
    ]);
    expect(await problemCodes()).toContain('GatewayDiffers');
    gateways['gw-2'].down = false;
    await eventually(() => gateways['gw-2'].rules?.epoch === 2 || undefined);
  });

  test('a gateway that has lost its rules gets them again', async () => {
    const { gateways } = await start();
    await client.publish(rules2);
    gateways['gw-1'].rules = undefined;
    await eventually(() => gateways['gw-1'].rules?.epoch === 2 || undefined);
  });

  test('a gateway that has other rules of the epoch is named, and not pushed to for ever', async () => {
    const { gateways } = await start();
    await client.publish(rules2);
    gateways['gw-1'].rules = { epoch: 2, hash: 'other' };
    const [view] = await client.gateways();
    expect(view).toMatchObject({
      gateway: 'gw-1',
      ok: false,
      epoch: 2,
      detail: expect.stringMatching(/other rules of epoch 2/) as string,
    });
    const before = gateways['gw-1'].puts.length;
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(gateways['gw-1'].puts).toHaveLength(before);
  });

  test('what is refused changes nothing: not the store, not the rules in force, no gateway', async () => {
    const { table, gateways } = await start(new FakeRulesTable(rules1, rules2));
    const refused = async (rules: unknown, code: string): Promise<void> => {
      await expect(client.publish(rules as Rules)).rejects.toMatchObject({ code });
      expect([...table.epochs]).toEqual([
        [1, rules1],
        [2, rules2],
      ]);
      expect((await client.rules()).rules).toEqual(rules2);
      expect(gateways['gw-1'].puts.every((epoch) => epoch === 2)).toBe(true);
    };
    await refused(rules1, 'StaleEpoch');
    await refused({ ...rules2, reason: 'other' }, 'EpochConflict');
    await refused({ ...rules3, topology: 'other' }, 'BadInput');
    await refused({ ...rules3, epoch: '3' }, 'BadInput');
    await refused({ ...rules3, central: { coupons: { owner: 'dc-x', state: 'open' } } }, 'BadInput');
    await refused({ ...rules3, regions: { 'cn-east': [] } }, 'BadInput');
    await refused(null, 'BadInput');
    table.down = true;
    await expect(client.publish(rules3)).rejects.toMatchObject({ code: 'Unavailable', retryable: true });
    table.down = false;
    await refused(rules1, 'StaleEpoch');
  });

  test('rules that are overtaken on their way never reach a gateway', async () => {
    const { table, gateways } = await start();
    const [pushed] = [gateways['gw-1']];
    table.afterPublish = () => {
      table.afterPublish = () => {};
      table.epochs.set(3, rules3);
    };
    // The store's next look brings epoch 3 while epoch 2 is on its way out of publish().
    const publish = table.publish.bind(table);
    table.publish = async (rules) => {
      await publish(rules);
      await eventually(() => pushed.rules?.epoch === 3 || undefined);
    };
    await expect(client.publish(rules2)).rejects.toMatchObject({
      code: 'StaleEpoch',
      details: { highest: 3 },
    });
    expect(pushed.puts).not.toContain(2);
  });

  test('nothing changes without the token, or with another', async () => {
    const { table, url, token } = await start();
    const post = (headers: Record<string, string>): Promise<Response> =>
      fetch(`${url}/v1/rules`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify({ rules: rules2 }),
      });
    for (const authorization of [
      '',
      'Bearer',
      'Bearer ',
      `Bearer ${token}x`,
      `Bearer ${token.slice(0, -1)}`,
      token,
      `Basic ${token}`,
    ]) {
      const response = await post(authorization === '' ? {} : { authorization });
      expect(response.status, authorization).toBe(401);
      expect(response.headers.get('www-authenticate')).toBe('Bearer');
    }
    expect(table.epochs.size).toBe(1);
    expect((await post({ authorization: `Bearer ${token}` })).status).toBe(200);
    expect(table.epochs.size).toBe(2);
  });
});

describe('the watch', () => {
  async function follow(
    query: string,
    count: number,
    headers: Record<string, string> = {},
  ): Promise<{ id: string; epoch: number }[]> {
    const end = new AbortController();
    const response = await fetch(`${running!.url}/v1/rules/watch${query}`, { headers, signal: end.signal });
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    const seen: { id: string; epoch: number }[] = [];
    let text = '';
    for await (const chunk of response.body!) {
      text += Buffer.from(chunk as Uint8Array).toString();
      for (let at = text.indexOf('\n\n'); at !== -1; at = text.indexOf('\n\n')) {
        const event = text.slice(0, at);
        text = text.slice(at + 2);
        const data = /^data: (.*)$/m.exec(event)?.[1];
        if (data === undefined) continue;
        seen.push({
          id: /^id: (.*)$/m.exec(event)![1]!,
          epoch: (JSON.parse(data) as RulesDocument).rules.epoch,
        });
      }
      if (seen.length >= count) break;
    }
    end.abort();
    return seen;
  }

  test('sends what is newer, then each epoch as it comes', async () => {
    await start();
    const both = follow('?since=0', 2);
    await eventually(async () => (await client.health()).watchers === 1 || undefined);
    await client.publish(rules2);
    expect(await both).toEqual([
      { id: '1', epoch: 1 },
      { id: '2', epoch: 2 },
    ]);
  });

  test('is resumed by epoch, by query or by Last-Event-ID', async () => {
    await start(new FakeRulesTable(rules1, rules2));
    const resumed = [follow('?since=2', 1), follow('?since=0', 1, { 'last-event-id': '2' })];
    await eventually(async () => (await client.health()).watchers === 2 || undefined);
    await client.publish(rules3);
    expect(await Promise.all(resumed)).toEqual([[{ id: '3', epoch: 3 }], [{ id: '3', epoch: 3 }]]);
    expect(await follow('?since=2', 1)).toEqual([{ id: '3', epoch: 3 }]);
  });

  test('the client yields the documents', async () => {
    await start();
    const end = new AbortController();
    const epochs: number[] = [];
    for await (const { rules } of client.watch(0, end.signal)) {
      epochs.push(rules.epoch);
      if (rules.epoch === 1) await client.publish(rules2);
      else break;
    }
    expect(epochs).toEqual([1, 2]);
  });

  test.each(['-1', 'x', '1.5', '', '9999999999999999', '1&since=2'])(
    'since=%s is bad input',
    async (since) => {
      const { url } = await start();
      const response = await fetch(`${url}/v1/rules/watch?since=${since}`);
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({
        error: { code: 'BadInput', details: { field: 'since' } },
      });
    },
  );
});

describe('questions', () => {
  test('route: the domain that a terminal should use', async () => {
    await start(new FakeRulesTable(rules1, rules2, rules3));
    expect(await client.route({ userId: 'vip-1' })).toEqual({
      unit: 'segment:vip',
      owner: 'dc-a',
      state: 'open',
      epoch: 3,
      mappingVersion: 1,
      domain: 'dc-a.example',
    });
    expect(await client.route({ userId: '1', region: 'cn-west' })).toMatchObject({
      owner: 'dc-b',
      domain: 'dc-b.example',
    });
  });

  test('owns: only what may be written here now', async () => {
    const { url } = await start(new FakeRulesTable(rules1, rules2));
    expect(await client.owns('cn-east/100')).toEqual({
      owns: true,
      unit: 'cn-east/100',
      owner: 'dc-a',
      state: 'open',
      epoch: 2,
    });
    expect(await client.owns('cn-east/0')).toMatchObject({
      owns: false,
      owner: 'dc-a',
      state: 'write_disabled',
    });
    expect(await client.owns('cn-west/0')).toMatchObject({ owns: false, owner: 'dc-b', state: 'open' });
    expect(await client.owns('central:coupons')).toMatchObject({ owns: true });
    expect(await client.owns({ userId: 'vip-2' })).toMatchObject({ owns: true, unit: 'segment:vip' });
    const spelled = await (await fetch(`${url}/v1/owns?userId=a%2Bb+c&region=cn-west`)).json();
    expect(spelled).toEqual(await client.owns({ userId: 'a+b c', region: 'cn-west' }));
  });

  test('units and balance', async () => {
    await start(new FakeRulesTable(rules1, rules2, rules3));
    const { epoch, units, balance } = await client.units();
    expect([epoch, units.length]).toEqual([3, 2002]);
    expect(units[0]).toEqual({ unit: 'cn-east/0', owner: 'dc-b', state: 'open' });
    expect(balance.regions['cn-east']).toMatchObject([
      { owner: 'dc-a', share: 0.9 },
      { owner: 'dc-b', share: 0.1 },
    ]);
  });

  test('gateways, each asked now', async () => {
    const { gateways } = await start();
    await eventually(() => gateways['gw-1'].rules);
    expect((await client.gateways())[0]).toMatchObject({
      gateway: 'gw-1',
      epoch: 1,
      ok: true,
      heldTotal: 5,
      refusedTotal: 1,
      failedTotal: 2,
      forwardedTotal: 7,
      unavailableMs: 11,
      requests: { 'dc-a': 90, 'dc-b': 10 },
    });
    gateways['gw-1'].down = true;
    expect((await client.gateways())[0]).toMatchObject({
      epoch: null,
      ok: false,
      detail: expect.stringMatching(/does not answer/) as string,
    });
  });

  test('instances: those with a lease, and the epoch by which each works', async () => {
    await start(new FakeRulesTable(rules1, rules2));
    expect(await client.lease({ instance: 'i-2', application: 'shop', epoch: 1 })).toEqual({
      epoch: 2,
      ttlMs: 10_000,
    });
    await client.lease({ instance: 'i-1', application: 'shop', epoch: 0 });
    await client.lease({ instance: 'i-1', application: 'shop', epoch: 2 });
    expect(await client.instances()).toMatchObject([
      { instance: 'i-1', application: 'shop', epoch: 2 },
      { instance: 'i-2', application: 'shop', epoch: 1 },
    ]);
  });

  test('a lease that is given back is not waited for', async () => {
    const { url } = await start(new FakeRulesTable(rules1, rules2));
    for (const instance of ['i-1', 'i-2']) await client.lease({ instance, application: 'shop', epoch: 1 });
    for (const lease of ['application=shop&instance=i-1', 'application=other&instance=i-2']) {
      expect((await fetch(`${url}/v1/leases?${lease}`, { method: 'DELETE' })).status).toBe(200);
    }
    expect((await client.instances()).map(({ instance }) => instance)).toEqual(['i-2']);
  });

  test('metrics carry the data center', async () => {
    const { url } = await start(new FakeRulesTable(rules1, rules2));
    const text = await (await fetch(`${url}/metrics`)).text();
    expect(text).toContain('interlock_rules_epoch{dc="dc-a"} 2');
    expect(text).toMatch(/interlock_rule_center_gateway_epoch\{gateway="gw-1",dc="dc-a"\} (2|-1)/);
    expect(text).toContain('interlock_reasserted_total{dc="dc-a"} 0');
  });
});

describe('hostile requests', () => {
  const cases: [string, string, string, unknown, number, string][] = [
    ['no key', 'GET', '/v1/route', undefined, 400, 'userId'],
    ['an empty user', 'GET', '/v1/route?userId=', undefined, 400, 'userId'],
    ['a user twice', 'GET', '/v1/route?userId=1&userId=2', undefined, 400, 'userId'],
    ['an unknown argument', 'GET', '/v1/route?userId=1&admin=1', undefined, 400, 'admin'],
    ['a user with a line end', 'GET', '/v1/route?userId=1%0d%0aX:y', undefined, 400, 'userId'],
    ['a user with NUL', 'GET', '/v1/route?userId=%00', undefined, 400, 'userId'],
    ['a user of 257 bytes', 'GET', `/v1/route?userId=${'x'.repeat(257)}`, undefined, 400, 'userId'],
    ['a region that is not routed', 'GET', '/v1/route?userId=1&region=us', undefined, 400, 'region'],
    [
      'a region of Object.prototype',
      'GET',
      '/v1/route?userId=1&region=constructor',
      undefined,
      400,
      'region',
    ],
    ['a unit that is none', 'GET', '/v1/owns?unit=cn-east/1000', undefined, 400, 'unit'],
    ['a unit of nobody', 'GET', '/v1/owns?unit=central:toString', undefined, 400, 'unit'],
    ['a unit that is not in the rules', 'GET', '/v1/owns?unit=central:stock', undefined, 400, 'unit'],
    ['a unit and a user', 'GET', '/v1/owns?unit=cn-east/1&userId=1', undefined, 400, 'userId'],
    ['SQL', 'GET', "/v1/owns?unit=x'%20OR%20'1'='1", undefined, 400, 'unit'],
    ['a path that is none', 'GET', '/v1/../etc/passwd', undefined, 404, 'path'],
    ['a method that is none', 'DELETE', '/v1/rules', undefined, 404, 'path'],
    ['a lease without epoch', 'POST', '/v1/leases', { instance: 'i', application: 'a' }, 400, 'epoch'],
    [
      'a lease of the past',
      'POST',
      '/v1/leases',
      { instance: 'i', application: 'a', epoch: -1 },
      400,
      'epoch',
    ],
    [
      'a lease with a long name',
      'POST',
      '/v1/leases',
      { instance: 'i'.repeat(300), application: 'a', epoch: 1 },
      400,
      'instance',
    ],
    [
      'a lease with more',
      'POST',
      '/v1/leases',
      { instance: 'i', application: 'a', epoch: 1, ttl: 1e9 },
      400,
      'ttl',
    ],
    ['a lease to end without an instance', 'DELETE', '/v1/leases?application=a', undefined, 400, 'instance'],
    ['a lease that is a list', 'POST', '/v1/leases', [], 400, 'body'],
    ['a lease too large', 'POST', '/v1/leases', { instance: 'x'.repeat(70_000) }, 413, 'body'],
    ['a body that is no JSON', 'POST', '/v1/leases', '{"instance":', 400, 'body'],
    [
      'a body that poisons prototypes',
      'POST',
      '/v1/leases',
      '{"__proto__":{"x":1},"instance":"i"}',
      400,
      'body',
    ],
    ['rules that are a text', 'POST', '/v1/rules', { rules: 'all mine' }, 400, 'rules'],
    ['rules with more', 'POST', '/v1/rules', { rules: rules2, force: true }, 400, 'force'],
    ['no rules', 'POST', '/v1/rules', {}, 400, 'rules'],
  ];
  let center: Center;
  beforeEach(async () => {
    center = await start();
  });

  test.each(cases)('%s', async (_name, method, target, body, status, field) => {
    const response = await fetch(`${center.url}${target.replace('/../', '/%2e%2e%2f')}`, {
      method,
      headers: {
        authorization: `Bearer ${center.token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ error: { code: 'BadInput', details: { field } } });
    expect(center.table.epochs.size).toBe(1);
    expect(await client.instances()).toEqual([]);
  });

  test('another media type', async () => {
    const response = await fetch(`${center.url}/v1/leases`, {
      method: 'POST',
      headers: { 'content-type': 'text/xml' },
      body: '<x/>',
    });
    expect(response.status).toBe(415);
    expect(await client.instances()).toEqual([]);
  });
});

describe('the copy on disk', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-rule-center-'));
  });
  afterEach(async () => {
    await running?.center.stop();
    await rm(directory, { recursive: true });
  });
  const file = (): string => path.join(directory, 'rules-example-dc-a.json');

  test('serves while the control store is down, and says so', async () => {
    const first = await start(undefined, { stateDirectory: directory });
    await client.publish(rules2);
    await eventually(
      async () => (await readFile(file(), 'utf8').catch(() => '')).includes('"epoch":2') || undefined,
    );
    await first.center.stop();
    await client.close();
    const table = new FakeRulesTable(rules1, rules2);
    table.down = true;
    const second = await start(table, { stateDirectory: directory });
    expect((await client.rules()).rules).toEqual(rules2);
    await eventually(() => second.gateways['gw-1'].rules?.epoch === 2 || undefined);
    const health: HealthAnswer = await client.health();
    expect(health).toMatchObject({ status: 'degraded', epoch: 2, storeEpoch: null });
    expect(health.problems).toContainEqual({
      code: 'Unavailable',
      message: expect.stringMatching(/dc-a mysql\/main does not answer/) as string,
    });
    table.down = false;
    await eventually(async () => !(await problemCodes()).includes('Unavailable') || undefined);
  });

  test('a store that has lost epochs is named, and the higher epoch stays in force', async () => {
    const first = await start(undefined, { stateDirectory: directory });
    await client.publish(rules2);
    await eventually(
      async () => (await readFile(file(), 'utf8').catch(() => '')).includes('"epoch":2') || undefined,
    );
    await first.center.stop();
    await client.close();
    await start(new FakeRulesTable(rules1), { stateDirectory: directory });
    expect((await client.rules()).rules.epoch).toBe(2);
    expect(await problemCodes()).toContain('StoreBehind');
  });

  test.each([
    ['damaged', '{"rules":'],
    ['changed by hand', JSON.stringify({ rules: { ...rules2, reason: 'mine' }, hash: rulesHash(rules2) })],
    [
      'of another topology',
      JSON.stringify({ rules: { ...rules2, topology: 'x' }, hash: rulesHash({ ...rules2, topology: 'x' }) }),
    ],
    ['not rules', JSON.stringify({ rules: {}, hash: '' })],
  ])('a copy that is %s is not served', async (_name, text) => {
    await writeFile(file(), text);
    const table = new FakeRulesTable();
    await start(table, { stateDirectory: directory });
    await expect(client.rules()).rejects.toMatchObject({ code: 'NoRules' });
    const { problems } = await client.health();
    expect(problems.find((p) => p.code === 'RulesFile')?.message).toContain(file());
  });
});

test('a store whose table was changed to other content of the epoch in force is an alarm, not an overwrite', async () => {
  const { table } = await start();
  table.epochs.set(2, rules2);
  await eventually(async () => (await client.rules()).rules.epoch === 2 || undefined);
  await expect(client.publish({ ...rules2, reason: 'other' })).rejects.toMatchObject({
    code: 'EpochConflict',
  });
  expect((await client.rules()).hash).toBe(rulesHash(rules2));
});

test('a port in use is named', async () => {
  const { url } = await start();
  const port = Number(new URL(url).port);
  await expect(startCenter(undefined, { listen: { host: '127.0.0.1', port } })).rejects.toMatchObject({
    code: 'Unavailable',
    message: expect.stringContaining(`127.0.0.1:${port}`) as string,
  });
});

test('a stop ends watches and requests at once', async () => {
  const { center, url } = await start();
  const response = await fetch(`${url}/v1/rules/watch?since=5`);
  const started = performance.now();
  await center.stop();
  await response.text().catch(() => undefined);
  expect(performance.now() - started).toBeLessThan(1_000);
  await expect(fetch(`${url}/v1/health`)).rejects.toThrow();
  running = undefined;
});
