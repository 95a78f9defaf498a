import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { isInterlockError } from '../../src/errors.js';
import { rulesHash } from '../../src/routing/hash.js';
import type { Assignment, Rules } from '../../src/routing/rules.js';
import {
  Application,
  ADMIN_TOKEN,
  freePorts,
  pairRules,
  pairTopology,
  refuse,
  RunningGateway,
} from '../gateway/harness.js';
import type { PairOptions } from '../gateway/harness.js';

const HOLD_MS = 1500;
const A: Assignment = { owner: 'dc-a', state: 'open' };
const B: Assignment = { owner: 'dc-b', state: 'open' };
const FENCED_A: Assignment = { owner: 'dc-a', state: 'write_disabled' };

let appA: Application;
let appB: Application;
let gatewayA: RunningGateway;
let gatewayB: RunningGateway;
/** Epochs only grow: each test takes its own. */
let epoch = 0;
const agent = new Agent({ connections: 20_000, pipelining: 1, headersTimeout: 60_000 });

const nameOf = (app: Application): string => (app === appA ? 'a' : 'b');

beforeAll(async () => {
  appA = await Application.start('a');
  appB = await Application.start('b');
  const topology = await pairTopology({
    instances: { 'dc-a': [appA.port], 'dc-b': [appB.port] },
    limits: { holdMs: HOLD_MS },
  });
  gatewayA = await RunningGateway.start(topology, 'dc-a');
  gatewayB = await RunningGateway.start(topology, 'dc-b');
});

beforeEach(async () => {
  for (const app of [appA, appB]) {
    app.seen.length = 0;
    app.handler = (_seen, response) => void response.end(nameOf(app));
  }
  await switchTo(A);
});

afterEach(async () => {
  // Nothing stays behind: no request held, none of its bytes, no error in Lua.
  for (const gateway of [gatewayA, gatewayB]) {
    await gateway.until('nothing held', (status) => status.held === 0 && status.heldBytes === 0);
    expect(await gateway.errors()).not.toMatch(/\[(alert|emerg|crit)\]|lua|stack traceback/);
  }
});

afterAll(async () => {
  await Promise.all([gatewayA?.stop(), gatewayB?.stop(), appA?.stop(), appB?.stop(), agent.destroy()]);
});

/** Puts a new epoch into both gateways (the one that has the unit last goes first, as in a switchover). */
async function switchTo(east: Assignment, change: Partial<Rules> = {}): Promise<number> {
  epoch += 1;
  for (const gateway of [gatewayA, gatewayB]) await gateway.put(pairRules(epoch, east, change));
  return epoch;
}

interface Answer {
  status: number;
  body: string;
  headers: Record<string, string | string[] | undefined>;
  json: () => { error: Record<string, unknown> };
}

async function send(
  gateway: RunningGateway,
  path: string,
  options: {
    method?: string;
    headers?: Record<string, string>;
    body?: string | Buffer | AsyncIterable<Buffer>;
    user?: string;
    signal?: AbortSignal;
  } = {},
): Promise<Answer> {
  const answer = await request(`${gateway.url}${path}`, {
    method: (options.method ?? 'GET') as 'GET',
    headers: { 'x-user-id': options.user ?? 'u1', ...options.headers },
    dispatcher: agent,
    ...(options.body === undefined ? {} : { body: options.body as string }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const body = await answer.body.text();
  return {
    status: answer.statusCode,
    body,
    headers: answer.headers,
    json: () => JSON.parse(body) as { error: Record<string, unknown> },
  };
}

const post = (gateway: RunningGateway, path = '/shop/x', body = 'body', user = 'u1'): Promise<Answer> =>
  send(gateway, path, { method: 'POST', body, user });

/** What comes back for bytes as they are; at most `ms`. */
async function raw(gateway: RunningGateway, bytes: string | Buffer, ms = 1000): Promise<string> {
  const { hostname, port } = new URL(gateway.url);
  const socket = net.connect(Number(port), hostname);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  socket.on('error', () => undefined);
  socket.write(bytes);
  await Promise.race([once(socket, 'close'), sleep(ms)]);
  socket.destroy();
  return Buffer.concat(chunks).toString('latin1');
}

async function withGateways(
  options: PairOptions,
  use: (a: RunningGateway, b: RunningGateway) => Promise<void>,
): Promise<void> {
  const topology = await pairTopology(options);
  const a = await RunningGateway.start(topology, 'dc-a', options.input);
  const b = await RunningGateway.start(topology, 'dc-b', options.input);
  try {
    await use(a, b);
  } finally {
    await Promise.all([a.stop(), b.stop()]);
  }
}

describe('routing', () => {
  test('to the local instance, and with one hop to the other data center', async () => {
    const local = await send(gatewayA, '/shop/x%2Fy//z?q=%20', { method: 'POST', body: 'hello' });
    expect([local.status, local.body]).toEqual([200, 'a']);
    expect(local.headers['x-interlock-dc']).toBe('dc-a');
    expect(local.headers['x-interlock-epoch']).toBe(String(epoch));
    expect(appA.seen[0]).toMatchObject({ method: 'POST', url: '/shop/x%2Fy//z?q=%20' });
    expect(appA.seen[0]!.body.toString()).toBe('hello');
    expect(appA.seen[0]!.headers['x-interlock-hop']).toBeUndefined();

    const remote = await send(gatewayA, '/shop/x', { headers: { 'x-region': 'cn-west' } });
    expect([remote.status, remote.body, remote.headers['x-interlock-dc']]).toEqual([200, 'b', 'dc-b']);
    expect(await gatewayA.admin.status()).toMatchObject({
      epoch,
      held: 0,
      topology: 'gateway-test',
      dc: 'dc-a',
    });
  });

  test('segments, central paths, query and cookie keys', async () => {
    expect((await send(gatewayA, '/shop/x', { user: 'vip-1' })).body).toBe('b');
    await switchTo(B);
    // The user's region has moved, the central unit has not.
    expect((await send(gatewayA, '/central/stock')).body).toBe('a');
    expect((await send(gatewayB, '/central/stock')).body).toBe('a');
    const answer = await request(`${gatewayA.url}/shop?userId=vip-1`, { dispatcher: agent });
    expect(await answer.body.text()).toBe('b');
    const cookie = await request(`${gatewayA.url}/shop`, {
      dispatcher: agent,
      headers: { cookie: 'x=1; uid=vip-1' },
    });
    expect(await cookie.body.text()).toBe('b');
  });

  test('what cannot be routed is refused, and says why', async () => {
    const missing = await request(`${gatewayA.url}/shop/x`, { dispatcher: agent });
    expect(missing.statusCode).toBe(400);
    const error = ((await missing.body.json()) as { error: Record<string, unknown> }).error;
    expect(error).toMatchObject({ code: 'BadInput', field: 'userId' });
    expect(error['message']).toContain('header x-user-id, query userId, cookie uid');
    expect((await send(gatewayA, '/elsewhere')).status).toBe(404);
    expect((await send(gatewayA, '/shopping')).status).toBe(404);
    const region = await send(gatewayA, '/shop', { headers: { 'x-region': 'mars' } });
    expect([region.status, region.json().error['field']]).toEqual([400, 'region']);
    expect(appA.seen.length + appB.seen.length).toBe(0);
  });

  test('a hop mark cannot be forged', async () => {
    // With a hop mark, gateway A would answer 421 instead of forwarding.
    for (const token of ['', 'wrong', ADMIN_TOKEN]) {
      const headers = { 'x-region': 'cn-west', 'x-interlock-hop': 'dc-b', 'x-interlock-hop-token': token };
      expect((await send(gatewayA, '/shop', { headers })).body).toBe('b');
    }
    await send(gatewayA, '/shop', { headers: { 'x-interlock-hop': 'dc-b', 'x-interlock-hop-token': 'x' } });
    for (const app of [appA, appB]) {
      for (const { headers } of app.seen) {
        expect(headers['x-interlock-hop-token']).toBeUndefined();
        expect(headers['x-interlock-hop']).toBeUndefined();
      }
    }
  });

  test('at most one hop: gateways that disagree do not pass a request round', async () => {
    // A says B owns the region, B (older rules) says A does: B refuses, A waits for B to agree.
    const { forwardedTotal } = await gatewayB.admin.status();
    epoch += 1;
    await gatewayA.put(pairRules(epoch, B));
    const pending = post(gatewayA);
    await sleep(100);
    expect(appA.seen.length + appB.seen.length).toBe(0);
    await gatewayB.put(pairRules(epoch, B));
    expect((await pending).body).toBe('b');
    expect([appA.seen.length, appB.seen.length]).toEqual([0, 1]);
    expect((await gatewayB.admin.status()).forwardedTotal).toBe(forwardedTotal);
  });

  test('a refusal from a gateway with newer rules: wait for the own rules, then route by them', async () => {
    await switchTo(B);
    epoch += 1;
    await gatewayB.put(pairRules(epoch, A));
    const pending = post(gatewayA);
    await sleep(100);
    expect(appA.seen.length + appB.seen.length).toBe(0);
    await gatewayA.put(pairRules(epoch, A));
    expect((await pending).body).toBe('a');
  });

  test('several instances: one that refuses connections is passed over, for writes too', async () => {
    const [dead] = await freePorts(1);
    await withGateways({ instances: { 'dc-a': [dead!, appA.port] } }, async (a) => {
      await a.put(pairRules(1));
      for (let i = 0; i < 8; i++) expect((await post(a)).body).toBe('a');
      expect(appA.seen.length).toBe(8);
    });
  });

  test.each(['POST', 'PUT', 'DELETE', 'PATCH', 'PURGE'])(
    '%s is never sent twice: an instance that takes it and hangs up gives 502',
    async (method) => {
      let taken = 0;
      const servers = await Promise.all(
        [0, 1].map(async () => {
          const server = net.createServer((socket) => {
            socket.on('error', () => undefined);
            socket.once('data', () => {
              taken += 1;
              socket.destroy();
            });
          });
          server.listen(0, '127.0.0.1');
          await once(server, 'listening');
          return server;
        }),
      );
      const ports = servers.map((server) => (server.address() as net.AddressInfo).port);
      try {
        await withGateways({ instances: { 'dc-a': ports } }, async (a) => {
          await a.put(pairRules(1));
          // undici refuses methods that it does not know.
          const text = await raw(
            a,
            `${method} /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: u1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi`,
          );
          expect(text).toMatch(/^HTTP\/1\.1 502 /);
          expect(taken).toBe(1);
          await a.until('counted', (status) => status.failedTotal === 1);
        });
      } finally {
        for (const server of servers) server.close();
      }
    },
  );

  test('methods reach the application as they were sent', async () => {
    for (const method of ['PUT', 'DELETE', 'PATCH', 'POST', 'OPTIONS', 'HEAD']) {
      await send(gatewayA, '/shop', { method });
    }
    await raw(gatewayA, 'PURGE /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: u\r\nConnection: close\r\n\r\n');
    expect(appA.seen.map(({ method }) => method).slice(0, 6)).toEqual([
      'PUT',
      'DELETE',
      'PATCH',
      'POST',
      'OPTIONS',
      'HEAD',
    ]);
    expect(appA.seen.length === 7 ? appA.seen[6]!.method : 'PURGE').toBe('PURGE');
  });

  test('a chunked body of 5 MB arrives whole', async () => {
    const part = Buffer.alloc(64 * 1024, 'x');
    async function* body(): AsyncGenerator<Buffer> {
      for (let i = 0; i < 80; i++) yield part;
    }
    const answer = await send(gatewayA, '/shop', { method: 'POST', body: body() });
    expect(answer.status).toBe(200);
    expect(appA.seen[0]!.body.length).toBe(80 * part.length);
    const sized = await send(gatewayA, '/shop', { method: 'PUT', body: Buffer.alloc(5_000_000, 'y') });
    expect(sized.status).toBe(200);
    expect(appA.seen[1]!).toMatchObject({ method: 'PUT' });
    expect(appA.seen[1]!.body.length).toBe(5_000_000);
  });

  test("an application's own error answers pass", async () => {
    for (const status of [409, 500, 502, 503, 504]) {
      appA.handler = (_seen, response) => void response.writeHead(status, { 'x-own': 'yes' }).end('own');
      const answer = await post(gatewayA);
      expect([answer.status, answer.body, answer.headers['x-own']]).toEqual([status, 'own', 'yes']);
    }
    const before = (await gatewayA.admin.status()).failedTotal;
    expect(appA.seen.length).toBe(5);
    expect((await gatewayA.admin.status()).failedTotal).toBe(before);
  });
});

describe('hold', () => {
  test('a write of a fenced unit waits and goes to the new owner; reads go to the source', async () => {
    await switchTo(FENCED_A);
    const before = await gatewayA.admin.status();
    const pending = post(gatewayA);
    await gatewayA.until('held', (status) => status.held === 1 && status.heldBytes === 4);
    for (const method of ['GET', 'HEAD', 'OPTIONS']) {
      expect((await send(gatewayA, '/shop', { method })).headers['x-interlock-dc']).toBe('dc-a');
    }
    // Other units go on.
    expect((await send(gatewayA, '/shop', { method: 'POST', headers: { 'x-region': 'cn-west' } })).body).toBe(
      'b',
    );
    expect(appA.seen.every(({ method }) => method !== 'POST')).toBe(true);
    await sleep(200);
    await switchTo(B);
    const answer = await pending;
    expect([answer.status, answer.body, answer.headers['x-interlock-dc']]).toEqual([200, 'b', 'dc-b']);
    expect(answer.headers['x-interlock-epoch']).toBe(String(epoch));
    const after = await gatewayA.admin.status();
    expect(after.heldTotal - before.heldTotal).toBe(1);
    expect(after.unavailableMs - before.unavailableMs).toBeGreaterThan(190);
    expect(after.unavailableMs - before.unavailableMs).toBeLessThan(1200);
    await sleep(1200);
    const line = (await gatewayA.log()).findLast((entry) => Number(entry['heldMs']) > 0)!;
    expect(line).toMatchObject({ dc: 'dc-b', status: 200, method: 'POST' });
    expect(Number(line['heldMs'])).toBeGreaterThan(150);
  });

  test('released within a few milliseconds, by whatever worker', async () => {
    const delays: number[] = [];
    for (let i = 0; i < 10; i++) {
      await switchTo(FENCED_A);
      const pending = Array.from({ length: 8 }, async (_, n) => {
        await post(gatewayA, '/shop', 'x', `u${n}`);
        return performance.now();
      });
      await gatewayA.until('held', (status) => status.held === 8);
      const start = performance.now();
      await switchTo(A);
      delays.push(Math.max(...(await Promise.all(pending))) - start);
    }
    delays.sort((a, b) => a - b);
    // Not the median: the machine that runs this may be busy.
    expect(delays[3]).toBeLessThan(60);
  });

  test('thousands are released by one rule, each executed once', async () => {
    const count = 4000;
    await withGateways(
      { instances: { 'dc-a': [appA.port], 'dc-b': [appB.port] }, limits: { holdMs: 60_000 } },
      async (a, b) => {
        for (const gateway of [a, b]) await gateway.put(pairRules(1, FENCED_A));
        const pending = Array.from({ length: count }, (_, i) => post(a, '/shop/pay', `n${i}`, `user-${i}`));
        await a.until('all held', (status) => status.held === count);
        expect(appA.seen.length).toBe(0);
        for (const gateway of [b, a]) await gateway.put(pairRules(2, B));
        const answers = await Promise.all(pending);
        expect(answers.filter(({ status, body }) => status !== 200 || body !== 'b')).toEqual([]);
        expect(appA.seen.length).toBe(0);
        const bodies = appB.seen.map(({ body }) => body.toString());
        expect(bodies.length).toBe(count);
        expect(new Set(bodies).size).toBe(count);
        expect(await a.admin.status()).toMatchObject({
          held: 0,
          heldBytes: 0,
          heldTotal: count,
          failedTotal: 0,
        });
      },
    );
  });

  test('bounded in time: then 503 with Retry-After', async () => {
    const before = await gatewayA.admin.status();
    await switchTo(FENCED_A);
    const start = performance.now();
    const answer = await post(gatewayA);
    const took = performance.now() - start;
    expect(answer.status).toBe(503);
    expect(answer.headers['retry-after']).toBe('1');
    expect(answer.json().error).toMatchObject({ code: 'WriteDisabled', reason: 'HoldMs' });
    expect(took).toBeGreaterThan(HOLD_MS - 50);
    expect(took).toBeLessThan(HOLD_MS + 500);
    expect(appA.seen.length).toBe(0);
    // It stands refused until there are newer rules: that time counts too.
    await sleep(300);
    const after = await gatewayA.admin.status();
    expect(after.refusedTotal - before.refusedTotal).toBe(1);
    expect(after.unavailableMs - before.unavailableMs).toBeGreaterThan(HOLD_MS + 250);
    await switchTo(A);
    const open = (await gatewayA.admin.status()).unavailableMs;
    await sleep(100);
    expect((await gatewayA.admin.status()).unavailableMs).toBe(open);
  });

  test('bounded in number and bytes', async () => {
    const options = { 'dc-a': [appA.port], 'dc-b': [appB.port] };
    await withGateways(
      { instances: options, limits: { holdRequests: 3, holdBytes: 1000, holdMs: 5000 } },
      async (a, b) => {
        for (const gateway of [a, b]) await gateway.put(pairRules(1, FENCED_A));
        const held = [1, 2, 3].map(() => post(a, '/shop', 'x'.repeat(100)));
        await a.until('three held', (status) => status.held === 3 && status.heldBytes === 300);
        const fourth = await post(a);
        expect([fourth.status, fourth.headers['retry-after']]).toEqual([503, '1']);
        expect(fourth.json().error).toMatchObject({ reason: 'HoldRequests' });
        for (const gateway of [b, a]) await gateway.put(pairRules(2, B));
        for (const answer of await Promise.all(held)) expect(answer.body).toBe('b');

        for (const gateway of [a, b]) await gateway.put(pairRules(3, { ...B, state: 'write_disabled' }));
        const large = post(a, '/shop', 'x'.repeat(900));
        await a.until('one held', (status) => status.held === 1 && status.heldBytes === 900);
        const more = await post(a, '/shop', 'x'.repeat(101));
        expect([more.status, more.json().error['reason']]).toEqual([503, 'HoldBytes']);
        for (const gateway of [b, a]) await gateway.put(pairRules(4, B));
        expect((await large).body).toBe('b');
        expect((await a.admin.status()).heldBytes).toBe(0);
      },
    );
  });

  test('a body too large to be replayed, and an upgrade, are refused at once', async () => {
    await switchTo(FENCED_A);
    const sized = await post(gatewayA, '/shop', 'x'.repeat(1024 * 1024 + 1));
    expect([sized.status, sized.json().error['reason']]).toEqual([503, 'BodyTooLarge']);
    async function* body(): AsyncGenerator<Buffer> {
      for (let i = 0; i < 20; i++) yield Buffer.alloc(64 * 1024);
    }
    const chunked = await send(gatewayA, '/shop', { method: 'POST', body: body() });
    expect([chunked.status, chunked.json().error['reason']]).toEqual([503, 'BodyTooLarge']);
    const upgrade = await raw(
      gatewayA,
      'GET /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: u1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
    );
    expect(upgrade).toMatch(/^HTTP\/1\.1 503 [^]*"reason":"Upgrade"/);
    expect(appA.seen.length).toBe(0);
  });

  test('a held request whose client has left is never executed', async () => {
    await switchTo(FENCED_A);
    const controller = new AbortController();
    const left = Array.from({ length: 20 }, () =>
      send(gatewayA, '/shop', { method: 'POST', body: 'gone', signal: controller.signal }).catch(
        () => 'gone',
      ),
    );
    const stays = post(gatewayA, '/shop', 'stays');
    await gatewayA.until('held', (status) => status.held === 21);
    controller.abort();
    await Promise.all(left);
    await gatewayA.until('dropped', (status) => status.held === 1 && status.heldBytes === 5);
    await switchTo(B);
    expect((await stays).body).toBe('b');
    await sleep(100);
    expect(appB.seen.map(({ body }) => body.toString())).toEqual(['stays']);
    expect(appA.seen.length).toBe(0);
  });

  test('a body that comes after the rules have changed does not wait for the next change', async () => {
    const fencedVip = { segments: { vip: { ...FENCED_A, members: ['vip-1'] } } };
    await switchTo(FENCED_A, fencedVip);
    // These stay: every worker goes on holding something, and has seen the change when the body comes.
    const others = Array.from({ length: 16 }, () => post(gatewayA, '/shop', 'other', 'vip-1'));
    const { hostname, port } = new URL(gatewayA.url);
    const socket = net.connect(Number(port), hostname);
    socket.write('POST /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: u1\r\nContent-Length: 4\r\n\r\n');
    await gatewayA.until('held', (status) => status.held === 17);
    await switchTo(B, fencedVip);
    await sleep(100);
    const start = performance.now();
    socket.write('late');
    const [answer] = (await once(socket, 'data')) as [Buffer];
    const took = performance.now() - start;
    socket.destroy();
    await switchTo(B);
    await Promise.all(others);
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 /);
    expect(took).toBeLessThan(HOLD_MS / 2);
  });

  test('a chunked body is counted by its size', async () => {
    await switchTo(FENCED_A);
    async function* body(): AsyncGenerator<Buffer> {
      yield Buffer.from('12345');
      yield Buffer.from('678');
    }
    const pending = send(gatewayA, '/shop', { method: 'POST', body: body() });
    await gatewayA.until('held', (status) => status.held === 1 && status.heldBytes === 8);
    await switchTo(B);
    expect((await pending).body).toBe('b');
  });

  test('a worker that is killed gives its places back; a reload keeps what is held', async () => {
    await withGateways(
      { instances: { 'dc-a': [appA.port], 'dc-b': [appB.port] }, limits: { holdMs: 20_000 } },
      async (a, b) => {
        for (const gateway of [a, b]) await gateway.put(pairRules(1, FENCED_A));
        const lost = Array.from({ length: 20 }, () => post(a).catch(() => undefined));
        await a.until('held', (status) => status.held === 20);
        for (const worker of await a.workers()) process.kill(worker, 'SIGKILL');
        await Promise.all(lost);
        await a.until('given back', (status) => status.held === 0 && status.heldBytes === 0);
        const frozen = (await a.admin.status()).unavailableMs;
        await sleep(100);
        expect((await a.admin.status()).unavailableMs).toBe(frozen);

        const kept = Array.from({ length: 20 }, () => post(a));
        await a.until('held', (status) => status.held === 20);
        const before = await a.workers();
        process.kill(a.pid, 'SIGHUP');
        for (let i = 0; i < 100 && (await a.workers()).length < 2 * before.length; i++) await sleep(20);
        await sleep(200);
        expect((await a.admin.status()).held).toBe(20);
        for (const gateway of [b, a]) await gateway.put(pairRules(2, B));
        for (const answer of await Promise.all(kept)) expect(answer.body).toBe('b');
        await a.until('none held', (status) => status.held === 0 && status.heldBytes === 0);
        expect(appB.seen.length).toBe(20);
      },
    );
  });

  test('the unit is open again after an aborted switchover: held requests go back to the source', async () => {
    await switchTo(FENCED_A);
    const pending = post(gatewayB);
    await gatewayB.until('held', (status) => status.held === 1);
    await switchTo(A);
    expect((await pending).body).toBe('a');
  });
});

describe('421 from the application', () => {
  test('is replayed, with its body, where the rules say once they are newer', async () => {
    appA.handler = (_seen, response) => refuse(response, 'WriteDisabled', epoch + 1, 'dc-a');
    const pending = send(gatewayA, '/shop/pay?x=1', { method: 'PUT', body: 'x'.repeat(200_000) });
    await gatewayA.until('held', (status) => status.held === 1);
    await switchTo(FENCED_A);
    await sleep(100);
    expect((await gatewayA.admin.status()).held).toBe(1);
    await switchTo(B);
    expect((await pending).body).toBe('b');
    expect(appA.seen.length).toBe(1);
    expect(appB.seen.length).toBe(1);
    expect(appB.seen[0]).toMatchObject({ method: 'PUT', url: '/shop/pay?x=1' });
    expect(appB.seen[0]!.body.toString()).toBe('x'.repeat(200_000));
  });

  test('is tried again, at growing distances, when the gateway knows better than the store', async () => {
    const attempts: number[] = [];
    appA.handler = (_seen, response) => {
      if (attempts.push(performance.now()) < 7) refuse(response, 'WriteDisabled', 0, 'dc-a');
      else response.end('a');
    };
    const answer = await post(gatewayA);
    expect(answer.body).toBe('a');
    // 2, 5, 12, 30, 80 and 200 ms, and what a busy machine adds.
    expect(attempts[5]! - attempts[4]!).toBeGreaterThan(78);
    expect(attempts[6]! - attempts[5]!).toBeGreaterThan(195);
    expect(appA.seen.map(({ body }) => body.toString())).toEqual(Array(7).fill('body'));
  });

  test('is bounded: neither a loop nor an internal error', async () => {
    appA.handler = (_seen, response) => refuse(response, 'NotOwner', 0, 'dc-b');
    await withGateways({ instances: { 'dc-a': [appA.port] }, limits: { holdMs: 20_000 } }, async (a) => {
      await a.put(pairRules(1, A));
      const answer = await post(a);
      expect([answer.status, answer.headers['retry-after']]).toEqual([503, '1']);
      expect(answer.json().error).toMatchObject({ code: 'WriteDisabled', reason: 'Rounds' });
      expect(appA.seen.length).toBe(9);
    });
  });

  test('is held no longer than any hold when no newer rules come', async () => {
    appA.handler = (_seen, response) => refuse(response, 'NotOwner', epoch + 5, 'dc-b');
    const start = performance.now();
    const answer = await post(gatewayA);
    expect([answer.status, answer.json().error['reason']]).toEqual([503, 'HoldMs']);
    expect(performance.now() - start).toBeLessThan(HOLD_MS + 500);
    expect(appA.seen.length).toBe(1);
  });

  test('of a forwarded request is handled by the gateway of that data center', async () => {
    let refusals = 0;
    await switchTo(B);
    appB.handler = (_seen, response) => {
      if (refusals++ === 0) refuse(response, 'StaleMapping', 0, 'dc-b');
      else response.end('b');
    };
    expect((await post(gatewayA)).body).toBe('b');
    expect(appB.seen.length).toBe(2);
  });

  test('of a body that is too large to be replayed gives 503', async () => {
    appA.handler = (_seen, response) => refuse(response, 'WriteDisabled', 0, 'dc-a');
    const sized = await post(gatewayA, '/shop', 'x'.repeat(1024 * 1024 + 1));
    expect([sized.status, sized.json().error['reason']]).toEqual([503, 'Stream']);
    async function* body(): AsyncGenerator<Buffer> {
      for (let i = 0; i < 20; i++) yield Buffer.alloc(64 * 1024);
    }
    const chunked = await send(gatewayA, '/shop', { method: 'POST', body: body() });
    expect([chunked.status, chunked.json().error['reason']]).toEqual([503, 'BodyTooLarge']);
    expect(appA.seen.length).toBe(2);
  });

  test('without a refusal header is the application’s own', async () => {
    appA.handler = (_seen, response) => void response.writeHead(421).end('own');
    const answer = await post(gatewayA);
    expect(answer.status).toBe(421);
    expect(appA.seen.length).toBe(1);
  });

  test('409 passes: what may have been executed is not replayed', async () => {
    appA.handler = (_seen, response) =>
      void response
        .writeHead(409)
        .end(JSON.stringify({ error: { code: 'PartiallyExecuted', message: 'half' } }));
    const answer = await post(gatewayA);
    expect([answer.status, answer.json().error['code']]).toEqual([409, 'PartiallyExecuted']);
    expect(appA.seen.length).toBe(1);
  });
});

describe('admin endpoint', () => {
  const admin = async (
    gateway: RunningGateway,
    path: string,
    options: { method?: string; token?: string; body?: string | Buffer } = {},
  ): Promise<{ status: number; text: string }> => {
    const answer = await request(`${gateway.adminUrl}${path}`, {
      method: (options.method ?? 'GET') as 'GET',
      headers: { authorization: `Bearer ${options.token ?? ADMIN_TOKEN}` },
      ...(options.body === undefined ? {} : { body: options.body }),
    });
    return { status: answer.statusCode, text: await answer.body.text() };
  };

  test('takes only the right token', async () => {
    for (const token of ['x', '', ADMIN_TOKEN.slice(0, -1), `${ADMIN_TOKEN}x`]) {
      expect((await admin(gatewayA, '/interlock/status', { token })).status).toBe(401);
      const put = await admin(gatewayA, '/interlock/rules', { method: 'PUT', token, body: '{}' });
      expect(put.status).toBe(401);
    }
    const none = await request(`${gatewayA.adminUrl}/interlock/status`);
    expect(none.statusCode).toBe(401);
    expect((await admin(gatewayA, '/interlock/status', { method: 'POST' })).status).toBe(405);
    expect((await admin(gatewayA, '/interlock/else')).status).toBe(404);
    // It is not there for clients.
    expect((await send(gatewayA, '/interlock/status')).status).toBe(404);
  });

  test('listens on the loopback only', async () => {
    const { port } = new URL(gatewayA.adminUrl);
    const { readFile } = await import('node:fs/promises');
    const hex = Number(port).toString(16).toUpperCase().padStart(4, '0');
    const sockets = `${await readFile('/proc/net/tcp', 'utf8')}\n${await readFile('/proc/net/tcp6', 'utf8')}`
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter((parts) => parts[1]?.endsWith(`:${hex}`) && parts[3] === '0A');
    expect(sockets.map((parts) => parts[1])).toEqual([`0100007F:${hex}`]);
  });

  test('refuses a lower epoch, and the same epoch with other content; a repeat is fine', async () => {
    const code = async (rules: Rules, hash = rulesHash(rules)): Promise<string> =>
      gatewayA.admin.putRules(rules, hash).then(
        () => 'taken',
        (error: unknown) => (isInterlockError(error) ? error.code : String(error)),
      );
    expect(await code(pairRules(epoch, A))).toBe('taken');
    expect(await code(pairRules(epoch - 1, A))).toBe('StaleEpoch');
    expect(await code(pairRules(epoch, B))).toBe('EpochConflict');
    expect((await gatewayA.admin.status()).epoch).toBe(epoch);
    expect((await post(gatewayA)).body).toBe('a');
  });

  test('of updates at once, in several workers, the highest epoch stays', async () => {
    const { GatewayAdmin } = await import('../../src/gateway/admin-client.js');
    const { readFile } = await import('node:fs/promises');
    const admins = Array.from(
      { length: 6 },
      () => new GatewayAdmin({ admin: gatewayA.adminUrl, token: ADMIN_TOKEN, timeoutMs: 20_000 }),
    );
    // Large, so that to check and to store take a while.
    const reason = 'x'.repeat(500_000);
    for (let round = 0; round < 25; round++) {
      const puts = admins.map((client, i) => {
        // The highest is not the last to come.
        const rules = pairRules(epoch + 1 + ((i + round) % admins.length), A, { reason });
        return client.putRules(rules, rulesHash(rules)).catch((error: unknown) => {
          if (!isInterlockError(error, 'StaleEpoch')) throw error;
        });
      });
      await Promise.all(puts);
      epoch += admins.length;
      expect((await gatewayA.admin.status()).epoch).toBe(epoch);
      const kept = JSON.parse(await readFile(`${gatewayA.stateDir}/rules.json`, 'utf8')) as { rules: Rules };
      expect(kept.rules.epoch).toBe(epoch);
    }
    for (const client of admins) await client.close();
  });

  const good = (): Rules => pairRules(epoch + 1, A);
  const broken: [string, (rules: Record<string, never>) => void, string][] = [
    ['format', (r) => (r['format'] = 2 as never), 'rules.format'],
    ['topology', (r) => (r['topology'] = 'other' as never), 'rules.topology'],
    ['epoch of 0', (r) => (r['epoch'] = 0 as never), 'rules.epoch'],
    ['epoch that is no integer', (r) => (r['epoch'] = (1e9 + 0.5) as never), 'rules.epoch'],
    ['epoch beyond 2^53', (r) => (r['epoch'] = 1e300 as never), 'rules.epoch'],
    ['epoch as text', (r) => (r['epoch'] = '9' as never), 'rules.epoch'],
    ['no regions', (r) => delete r['regions'], 'rules.regions'],
    [
      'region name',
      (r) => (r['regions'] = { ...good().regions, 'a b': good().regions['cn-east'] } as never),
      'rules.regions',
    ],
    ['unknown default region', (r) => (r['defaultRegion'] = 'mars' as never), 'rules.defaultRegion'],
    [
      'gap',
      (r) =>
        (r['regions'] = {
          'cn-east': [
            { from: 0, to: 5, ...A },
            { from: 7, to: 999, ...A },
          ],
        } as never),
      'rules.regions.cn-east[1].from',
    ],
    [
      'overlap',
      (r) =>
        (r['regions'] = {
          'cn-east': [
            { from: 0, to: 5, ...A },
            { from: 5, to: 999, ...A },
          ],
        } as never),
      'rules.regions.cn-east[1].from',
    ],
    [
      'not to 999',
      (r) => (r['regions'] = { 'cn-east': [{ from: 0, to: 998, ...A }] } as never),
      'rules.regions.cn-east',
    ],
    [
      'bucket 1000',
      (r) => (r['regions'] = { 'cn-east': [{ from: 0, to: 1000, ...A }] } as never),
      'rules.regions.cn-east[0].to',
    ],
    [
      'unknown owner',
      (r) => (r['regions'] = { 'cn-east': [{ from: 0, to: 999, owner: 'dc-c', state: 'open' }] } as never),
      'rules.regions.cn-east[0].owner',
    ],
    [
      'unknown state',
      (r) => (r['regions'] = { 'cn-east': [{ from: 0, to: 999, owner: 'dc-a', state: 'closed' }] } as never),
      'rules.regions.cn-east[0].state',
    ],
    [
      'members',
      (r) => (r['segments'] = { vip: { ...A, members: [1] } } as never),
      'rules.segments.vip.members[0]',
    ],
    ['central', (r) => (r['central'] = { coupons: null } as never), 'rules.central.coupons'],
    ['holder', (r) => (r['holder'] = 'me' as never), 'rules.holder'],
    ['reason', (r) => delete r['reason'], 'rules.reason'],
    [
      'mapping version',
      (r) => (r['unitMappingVersions'] = { 'cn-east/1': -1 } as never),
      'rules.unitMappingVersions.cn-east/1',
    ],
  ];
  test.each(broken)('refuses rules with a bad %s', async (_name, change, field) => {
    const rules = structuredClone(good()) as unknown as Record<string, never>;
    change(rules);
    const hash = rulesHash(rules as unknown as Rules);
    const answer = await admin(gatewayA, '/interlock/rules', {
      method: 'PUT',
      body: JSON.stringify({ rules, hash }),
    });
    expect(answer.status).toBe(400);
    expect((JSON.parse(answer.text) as { error: unknown }).error).toMatchObject({ code: 'BadInput', field });
    expect((await gatewayA.admin.status()).epoch).toBe(epoch);
  });

  test('verifies the hash: rules that changed on the way are refused', async () => {
    const odd = pairRules(epoch + 1, A, {
      reason: 'ünïcode "quotes" \\ / \u0001\u007f\u2028 😀\n',
      segments: { vip: { ...B, members: ['a"b', 'vip-1', '用户'] }, none: { ...A, members: [] } },
      holder: { workflowId: 'switchover/x', runId: 'r' },
      unitMappingVersions: { 'segment:vip': 3 },
    });
    const refused = await admin(gatewayA, '/interlock/rules', {
      method: 'PUT',
      body: JSON.stringify({ rules: { ...odd, reason: 'other' }, hash: rulesHash(odd) }),
    });
    expect([refused.status, refused.text]).toEqual([400, expect.stringContaining('"hash"')]);
    for (const hash of ['', 'x'.repeat(64), 'ab']) {
      const body = JSON.stringify({ rules: odd, hash });
      expect((await admin(gatewayA, '/interlock/rules', { method: 'PUT', body })).status).toBe(400);
    }
    epoch += 1;
    await gatewayA.put(odd);
    expect((await gatewayA.admin.status()).hash).toBe(rulesHash(odd));
    expect((await send(gatewayA, '/shop', { user: 'vip-1' })).body).toBe('b');
  });

  test('bad bodies change nothing', async () => {
    const bodies = [
      '',
      '{',
      '[]',
      'null',
      '"x"',
      '{"rules":null}',
      '[1,2]',
      '\0',
      '{"rules":{},"hash":"x"}',
      '['.repeat(5000),
    ];
    for (const body of bodies) {
      expect(
        (await admin(gatewayA, '/interlock/rules', { method: 'PUT', body })).status,
        body.slice(0, 20),
      ).toBe(400);
    }
    const huge = await admin(gatewayA, '/interlock/rules', {
      method: 'PUT',
      body: Buffer.alloc(9 * 1024 * 1024, ' '),
    }).catch(() => ({ status: 413 }));
    expect(huge.status).toBe(413);
    expect((await gatewayA.admin.status()).epoch).toBe(epoch);
  });

  test('metrics in the text format', async () => {
    await post(gatewayA);
    const { status, text } = await admin(gatewayA, '/interlock/metrics');
    expect(status).toBe(200);
    expect(text).toContain(`interlock_gateway_rules_epoch{dc="dc-a",gateway="gw-1"} ${epoch}\n`);
    expect(text).toMatch(
      /^interlock_gateway_requests_total\{dc="dc-a",gateway="gw-1",to="dc-a"\} [1-9]\d*$/m,
    );
    for (const line of text.trim().split('\n')) {
      expect(line).toMatch(/^(# (HELP|TYPE) \S+ .+|[a-z_]+\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\} [0-9.e+]+)$/);
    }
  });

  test('the client names a gateway that does not answer', async () => {
    const [port] = await freePorts(1);
    const { GatewayAdmin } = await import('../../src/gateway/admin-client.js');
    const gone = new GatewayAdmin({ admin: `http://127.0.0.1:${port}`, token: 'x', timeoutMs: 500 });
    await expect(gone.status()).rejects.toMatchObject({ code: 'Unavailable', retryable: true });
    const server = net.createServer(() => undefined).listen(port, '127.0.0.1');
    await once(server, 'listening');
    const start = performance.now();
    await expect(gone.status()).rejects.toMatchObject({ code: 'Unavailable' });
    expect(performance.now() - start).toBeLessThan(1500);
    await gone.close();
    server.close();
  });
});

describe('restart', () => {
  test('without rules it refuses to route; kill -9 keeps the rules; a damaged file is no rules', async () => {
    const { writeFile, readFile } = await import('node:fs/promises');
    await withGateways({ instances: { 'dc-a': [appA.port], 'dc-b': [appB.port] } }, async (a) => {
      for (const method of ['GET', 'POST']) {
        const refused = await send(a, '/shop', { method });
        expect([refused.status, refused.headers['retry-after'], refused.json().error['code']]).toEqual([
          503,
          '1',
          'NoRules',
        ]);
      }
      expect(await a.admin.status()).toMatchObject({ epoch: null, hash: null });
      const rules = pairRules(41, A);
      await a.put(rules);
      expect((await post(a)).body).toBe('a');
      await a.kill();
      await a.restart();
      expect(await a.admin.status()).toMatchObject({ epoch: 41, hash: rulesHash(rules) });
      expect((await post(a)).body).toBe('a');
      await expect(a.put(pairRules(40, A))).rejects.toMatchObject({ code: 'StaleEpoch' });

      const file = `${a.stateDir}/rules.json`;
      const text = await readFile(file, 'utf8');
      for (const damaged of [text.slice(0, -40), '', text.replace('"dc-b"', '"dc-a"')]) {
        await a.kill();
        await writeFile(file, damaged);
        await a.restart();
        expect((await post(a)).json().error['code']).toBe('NoRules');
      }
      await a.put(rules);
      expect((await post(a)).body).toBe('a');
    });
  });
});

describe('hostile requests', () => {
  test.each([
    [
      'percent garbage in the key',
      'GET /shop?userId=%zz HTTP/1.1\r\nHost: x\r\n\r\n',
      /^HTTP\/1\.1 400 [^]*query userId/,
    ],
    [
      'NUL in the key',
      'GET /shop?userId=%00 HTTP/1.1\r\nHost: x\r\n\r\n',
      /^HTTP\/1\.1 400 [^]*query userId/,
    ],
    [
      'CRLF in the key',
      'GET /shop?userId=a%0d%0aX-Interlock-Hop:%20b HTTP/1.1\r\nHost: x\r\n\r\n',
      /^HTTP\/1\.1 400 /,
    ],
    [
      'bytes that are no UTF-8',
      Buffer.from('GET /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: a\xff\r\n\r\n', 'latin1'),
      /^HTTP\/1\.1 400 [^]*header x-user-id/,
    ],
    ['NUL in a header', 'GET /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: a\0b\r\n\r\n', /^HTTP\/1\.1 400 /],
    [
      'a key that is too long',
      `GET /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: ${'a'.repeat(300)}\r\n\r\n`,
      /^HTTP\/1\.1 400 /,
    ],
    [
      'a header that is too long',
      `GET /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: ${'a'.repeat(70_000)}\r\n\r\n`,
      /^HTTP\/1\.1 400 /,
    ],
    [
      'a target that is too long',
      `GET /shop?${'a'.repeat(70_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
      /^HTTP\/1\.1 414 /,
    ],
    [
      'length and chunks',
      'POST /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: u\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      /^HTTP\/1\.1 400 /,
    ],
    [
      'two lengths',
      'POST /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: u\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd',
      /^HTTP\/1\.1 400 /,
    ],
    [
      'a hidden chunked',
      'POST /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: u\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n',
      /^HTTP\/1\.1 (400|501) /,
    ],
    [
      'a broken chunk',
      'POST /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: u\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n',
      /^HTTP\/1\.1 400 /,
    ],
    ['no host', 'GET /shop HTTP/1.1\r\nX-User-Id: u\r\n\r\n', /^HTTP\/1\.1 400 /],
    ['CONNECT', 'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n', /^HTTP\/1\.1 40[05] /],
  ])('%s', async (_name, bytes, expected) => {
    expect(await raw(gatewayA, bytes, 500)).toMatch(expected);
    expect(appA.seen.length + appB.seen.length).toBe(0);
    expect((await post(gatewayA)).body).toBe('a');
  });

  test('repeated key headers are one key, as the application sees it', async () => {
    await switchTo(A, { segments: { vip: { ...B, members: ['vip-1'] } } });
    const twice = (first: string, second: string): Promise<string> =>
      raw(
        gatewayA,
        `GET /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: ${first}\r\nX-User-Id: ${second}\r\nConnection: close\r\n\r\n`,
      );
    // Neither order is the user vip-1.
    expect(await twice('vip-1', 'u1')).toMatch(/X-Interlock-Dc: dc-a/);
    expect(await twice('u1', 'vip-1')).toMatch(/X-Interlock-Dc: dc-a/);
  });

  test('a pipelined second request does not ride on the first', async () => {
    const text = await raw(
      gatewayA,
      'POST /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: u1\r\nContent-Length: 2\r\n\r\nhi' +
        'GET /shop HTTP/1.1\r\nHost: x\r\nX-User-Id: vip-1\r\nConnection: close\r\n\r\n',
    );
    expect(text.match(/X-Interlock-Dc: dc-[ab]/g)).toEqual(['X-Interlock-Dc: dc-a', 'X-Interlock-Dc: dc-b']);
  });
});
