import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { rulesHash } from '../../src/routing/hash.js';
import type { Rules } from '../../src/routing/rules.js';
import { createInterlock, RuleCenterRules } from '../../src/sdk/index.js';
import { testRules } from './support.js';

/** A rule center over real HTTP that the test drives. */
async function startRuleCenter(port = 0) {
  const watchers: { response: ServerResponse; since: string | null }[] = [];
  const leases: {
    instance: string;
    application: string;
    epoch: number;
    authorization: string | undefined;
  }[] = [];
  const ended: string[] = [];
  const state: { rules: Rules | undefined; hash?: string; unrouted?: string[] } = { rules: testRules(1) };
  const document = () => JSON.stringify({ rules: state.rules, hash: state.hash ?? rulesHash(state.rules!) });
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    const url = new URL(request.url!, 'http://x');
    if (url.pathname === '/v1/rules') {
      if (state.rules === undefined) {
        response.writeHead(404).end(JSON.stringify({ error: { code: 'NoRules', message: 'none' } }));
      } else response.end(document());
    } else if (url.pathname === '/v1/tables') {
      const known = state.unrouted !== undefined;
      response.writeHead(known ? 200 : 404).end(JSON.stringify({ unrouted: state.unrouted }));
    } else if (url.pathname === '/v1/rules/watch') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(': hello\n\n');
      watchers.push({ response, since: url.searchParams.get('since') });
    } else if (url.pathname === '/v1/leases' && request.method === 'DELETE') {
      const { application, instance } = Object.fromEntries(url.searchParams);
      ended.push(`${application} ${instance} ${request.headers.authorization}`);
      response.end('{}');
    } else if (url.pathname === '/v1/leases') {
      let body = '';
      request.on('data', (chunk: Buffer) => (body += chunk.toString()));
      request.on('end', () => {
        leases.push({
          ...(JSON.parse(body) as (typeof leases)[0]),
          authorization: request.headers.authorization,
        });
        response.end('{}');
      });
    }
  };
  const server = createServer(handle);
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    port: (server.address() as AddressInfo).port,
    watchers,
    leases,
    ended,
    state,
    publish: (rules: Rules, hash = rulesHash(rules)) => {
      state.rules = rules;
      const event = `id: ${rules.epoch}\ndata: ${JSON.stringify({ rules, hash })}\n\n`;
      // In two writes: an event may come in pieces.
      for (const { response } of watchers) {
        response.write(event.slice(0, 20));
        response.write(event.slice(20));
      }
    },
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe('rules from the rule center', () => {
  const ends: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  function source(url: string, warnings: string[] = []): RuleCenterRules {
    const rules = new RuleCenterRules({
      url,
      application: 'shop',
      instance: 'i1',
      token: 'secret',
      leaseMs: 50,
      onWarning: (message) => warnings.push(message),
    });
    ends.push(() => rules.close());
    return rules;
  }

  it('learns which tables are unrouted, again when the rule center begins anew, and from an older one: none', async () => {
    const center = await startRuleCenter();
    ends.push(() => center.stop());
    const older = source(center.url);
    expect([...(await older.unrouted())]).toEqual([]);
    center.state.unrouted = ['shop.product'];
    const rules = source(center.url);
    expect([...(await rules.unrouted())]).toEqual(['shop.product']);
    await expect.poll(() => center.watchers.length).toBe(2);
    center.state.unrouted = ['shop.product', 'shop.country'];
    for (const { response } of center.watchers) response.destroy();
    await expect.poll(async () => [...(await rules.unrouted())]).toEqual(['shop.product', 'shop.country']);
    await center.stop();
    // What it has said last stays.
    expect((await rules.unrouted()).size).toBe(2);
    await expect(source(center.url).unrouted()).rejects.toMatchObject({ code: 'Unavailable' });
  });

  it('fetches, watches, acknowledges, and resumes the watch by epoch', async () => {
    const center = await startRuleCenter();
    ends.push(center.stop);
    const rules = source(`${center.url}/`);
    await expect.poll(() => center.watchers.length).toBe(1);
    expect(rules.current()?.epoch).toBe(1);
    expect(center.watchers[0]!.since).toBe('1');
    center.publish(testRules(2));
    await expect.poll(() => rules.current()?.epoch).toBe(2);
    await expect.poll(() => center.leases.at(-1)?.epoch).toBe(2);
    expect(center.leases.at(-1)).toMatchObject({
      instance: 'i1',
      application: 'shop',
      authorization: 'Bearer secret',
    });
    center.watchers[0]!.response.destroy();
    await expect.poll(() => center.watchers.length).toBe(2);
    expect(center.watchers[1]!.since).toBe('2');
    const renewed = center.leases.length;
    await expect.poll(() => center.leases.length).toBeGreaterThan(renewed + 1);
    await rules.close();
    expect(center.ended).toEqual(['shop i1 Bearer secret']);
  });

  it('acknowledges an epoch when what no server checks is finished', async () => {
    const center = await startRuleCenter();
    ends.push(center.stop);
    const warnings: string[] = [];
    const rules = source(center.url, warnings);
    await expect.poll(() => center.watchers.length).toBe(1);
    let finish: () => void = () => undefined;
    const forget = rules.onRules(async ({ epoch }) => {
      if (epoch === 2) await new Promise<void>((resolve) => (finish = resolve));
      if (epoch === 3) throw new Error('cannot be finished');
    });
    center.publish(testRules(2));
    await expect.poll(() => rules.current()?.epoch).toBe(2);
    // Renewed all the same: the instance lives.
    const renewed = center.leases.length;
    await expect.poll(() => center.leases.length).toBeGreaterThan(renewed + 2);
    expect(center.leases.at(-1)!.epoch).toBe(1);
    finish();
    await expect.poll(() => center.leases.at(-1)!.epoch).toBe(2);
    center.publish(testRules(3));
    await expect.poll(() => warnings.join()).toContain('epoch 3 is not acknowledged');
    expect((await rules.confirm()).epoch).toBe(3);
    const since = center.leases.length;
    await expect.poll(() => center.leases.length).toBeGreaterThan(since + 2);
    expect(center.leases.at(-1)!.epoch).toBe(2);
    forget();
    center.publish(testRules(4));
    await expect.poll(() => center.leases.at(-1)!.epoch).toBe(4);
    await center.stop();
    // Not what is known: what the rule center says.
    await expect(rules.confirm()).rejects.toMatchObject({ code: 'Unavailable' });
    expect((await rules.refresh()).epoch).toBe(4);
  });

  it('refuses a wrong hash, other content of an epoch, and going back', async () => {
    const center = await startRuleCenter();
    ends.push(center.stop);
    const warnings: string[] = [];
    const rules = source(center.url, warnings);
    await expect.poll(() => center.watchers.length).toBe(1);
    center.publish(testRules(5), 'f'.repeat(64));
    await expect.poll(() => warnings.join()).toContain('hash does not match');
    center.publish(testRules(1, { reason: 'another' }));
    await expect.poll(() => warnings.join()).toContain('other rules for epoch 1');
    center.publish(testRules(0));
    for (const { response } of center.watchers) response.write('data: no json\n\n');
    center.publish(testRules(3));
    await expect.poll(() => rules.current()?.epoch).toBe(3);
  });

  it('keeps the last rules while the rule center is down, and goes on when it is back', async () => {
    let center = await startRuleCenter();
    const warnings: string[] = [];
    const rules = source(center.url, warnings);
    await expect.poll(() => rules.current()?.epoch).toBe(1);
    await center.stop();
    await expect.poll(() => warnings.length).toBeGreaterThan(0);
    expect((await rules.refresh()).epoch).toBe(1);
    center = await startRuleCenter(center.port);
    ends.push(center.stop);
    await expect.poll(() => center.watchers.length, { timeout: 5_000 }).toBe(1);
    center.publish(testRules(4));
    await expect.poll(() => rules.current()?.epoch).toBe(4);
  });

  it('says Unavailable or NoRules when none are known', async () => {
    const center = await startRuleCenter();
    center.state.rules = undefined;
    await expect(source(center.url).refresh()).rejects.toMatchObject({ code: 'NoRules' });
    await center.stop();
    await expect(source(center.url).refresh()).rejects.toMatchObject({
      code: 'Unavailable',
      retryable: true,
    });
  });

  it('names bad options', () => {
    expect(() => createInterlock({ dc: 'dc-a', application: 'shop' })).toThrow(/ruleCenter/);
    expect(() => createInterlock({ dc: 'dc-a', application: 'shop', ruleCenter: 'file:///x' })).toThrow(
      /ruleCenter/,
    );
    expect(() => createInterlock({ dc: '', application: 'shop', ruleCenter: 'http://x' })).toThrow(/dc/);
    expect(() => createInterlock({ dc: 'dc-a', application: '', ruleCenter: 'http://x' })).toThrow(
      /application/,
    );
  });
});
