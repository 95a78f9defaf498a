import type { AddressInfo } from 'node:net';
import type { Server } from 'node:http';
import express from 'express';
import fastify from 'fastify';
import type mysql from 'mysql2/promise';
import type { RowDataPacket } from 'mysql2';
import { request } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { ApplicationRouting } from '../../src/routing/key.js';
import { createInterlock, FixedRules } from '../../src/sdk/index.js';
import type { FencedMysql, FencedTransaction, Interlock } from '../../src/sdk/index.js';
import { inUse, startFencedServer, testRules, userIn } from '../sdk/support.js';
import type { FencedServer } from '../sdk/support.js';

const ROUTING: ApplicationRouting = {
  paths: ['/'],
  routingKey: { userId: [{ header: 'x-user' }], region: [{ header: 'x-region' }] },
  central: { '/coupons': 'central:coupons' },
};
const USER = userIn(7);
const UNIT = 'cn-east/7';
const OTHER = { userId: userIn(3), region: 'cn-east' };

/** What each path does; the same for both frameworks. */
type Handlers = Record<string, () => Promise<unknown>>;

describe.each(['fastify', 'express'] as const)('HTTP refusals with %s', (framework) => {
  let dc: FencedServer;
  let pool: mysql.Pool;
  let interlock: Interlock;
  let store: FencedMysql;
  let base: string;
  let stop: () => Promise<void>;
  let late: Promise<unknown>;
  let release: () => void;

  const bump = (id: number) => (tx: FencedTransaction) =>
    tx.query('UPDATE t SET v = v + 1 WHERE id = ?', [id]);
  const value = async (id: number): Promise<number> => {
    const [rows] = await dc.admin.query<RowDataPacket[]>('SELECT v FROM app.t WHERE id = ?', [id]);
    return Number(rows[0]!['v']);
  };

  const handlers: Handlers = {
    '/write': async () => {
      await store.transaction(bump(1));
      return { ok: true };
    },
    '/coupons/take': async () => store.transaction(async (tx) => ({ units: tx.units })),
    /** Another user's unit first, then the request's own. */
    '/two': async () => {
      await store.transaction(OTHER, bump(2));
      await store.transaction(bump(1));
    },
    '/sent': async () => {
      interlock.markSent();
      await store.transaction(bump(1));
    },
    '/cross': async () => store.transaction([OTHER, { userId: USER }], bump(1)),
    '/bug': async () => {
      throw new Error('a bug');
    },
    /** Answers the refusal of one transaction while another is still open. */
    '/unawaited': async () => {
      const held = new Promise<void>((resolve) => (release = resolve));
      late = store.transaction(OTHER, async (tx) => {
        await bump(2)(tx);
        await held;
      });
      late.catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 50));
      await store.transaction(bump(1));
    },
  };

  beforeAll(async () => {
    dc = await startFencedServer('mysql');
    pool = dc.pool({ database: 'app' });
    interlock = createInterlock({
      dc: 'dc-a',
      application: 'shop',
      rules: new FixedRules(testRules()),
      routing: ROUTING,
    });
    store = interlock.mysql(pool);
    if (framework === 'fastify') {
      const app = fastify();
      await app.register(interlock.fastify());
      for (const [path, handler] of Object.entries(handlers)) app.post(path, handler);
      base = await app.listen({ port: 0, host: '127.0.0.1' });
      stop = () => app.close();
    } else {
      const app = express();
      app.use(interlock.express());
      app.use(express.json());
      for (const [path, handler] of Object.entries(handlers)) {
        app.post(path, async (_request, response) => {
          response.json((await handler()) ?? null);
        });
      }
      app.use(interlock.expressErrors());
      const server = await new Promise<Server>((resolve) => {
        const listening: Server = app.listen(0, '127.0.0.1', () => resolve(listening));
      });
      base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      stop = () => new Promise((resolve) => server.close(() => resolve()));
    }
  });
  afterAll(async () => {
    await stop?.();
    await interlock?.close();
    await dc?.stop();
  });
  beforeEach(async () => {
    await dc.admin.query('REPLACE INTO app.t (id, v) VALUES (1, 10), (2, 20)');
    await dc.admin.query("UPDATE interlock.unit_state SET state = 'open', owner = 'dc-a'");
  });
  afterEach(() => {
    expect(inUse(pool)).toBe(0);
  });

  async function post(
    path: string,
    headers: Record<string, string> = { 'x-user': USER, 'x-region': 'cn-east' },
  ) {
    // Not fetch: it sends a request that was answered with 421 again, on a new connection (Fetch standard, HTTP-network-or-cache fetch).
    const response = await request(base + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ a: 'body that is read in a stream' }),
    });
    const text = await response.body.text();
    const body = (text.startsWith('{') ? JSON.parse(text) : undefined) as
      { error: Record<string, unknown> } | undefined;
    return { status: response.statusCode, headers: response.headers, body };
  }

  it('takes the routing key from the request, also behind a body', async () => {
    expect((await post('/write')).status).toBe(200);
    expect(await value(1)).toBe(11);
    expect((await post('/coupons/take', {})).body).toEqual({ units: ['central:coupons'] });
  });

  it('answers 421 with owner, epoch and unit when nothing was done', async () => {
    const epoch = await dc.set(UNIT, 'remote');
    const answer = await post('/write');
    expect(answer.status).toBe(421);
    expect(answer.headers['x-interlock-refusal']).toBe('NotOwner');
    expect(answer.headers['x-interlock-owner']).toBe('dc-b');
    expect(answer.headers['x-interlock-epoch']).toBe(String(epoch));
    expect(answer.headers['x-interlock-unit']).toBe(UNIT);
    expect(answer.body?.error).toMatchObject({ code: 'NotOwner', owner: 'dc-b', epoch, unit: UNIT });
    await dc.admin.query("UPDATE interlock.unit_state SET state = 'write_disabled', owner = 'dc-a'");
    const held = await post('/write');
    expect([held.status, held.headers['x-interlock-refusal']]).toEqual([421, 'WriteDisabled']);
    expect(await value(1)).toBe(10);
  });

  it('answers 421 WriteDisabled on a server of another identity', async () => {
    await dc.admin.query("UPDATE interlock.unit_state SET server = 'another' WHERE unit = ?", [UNIT]);
    const answer = await post('/write');
    expect([answer.status, answer.headers['x-interlock-refusal']]).toEqual([421, 'WriteDisabled']);
    expect(answer.body?.error['code']).toBe('ServerIdentityChanged');
    await dc.admin.query('UPDATE interlock.unit_state SET server = ?', [await dc.fence.identity()]);
  });

  it('answers 409 PartiallyExecuted when a part of the request was committed', async () => {
    await dc.set(UNIT, 'write_disabled');
    const answer = await post('/two');
    expect(answer.status).toBe(409);
    expect(answer.headers['x-interlock-refusal']).toBeUndefined();
    expect(answer.body?.error).toMatchObject({
      code: 'PartiallyExecuted',
      refusal: 'WriteDisabled',
      unit: UNIT,
    });
    expect(await value(2)).toBe(21);
  });

  it('answers 409 PartiallyExecuted when something was sent', async () => {
    await dc.set(UNIT, 'write_disabled');
    expect((await post('/sent')).status).toBe(409);
  });

  it('answers 409 to units of two owners', async () => {
    await dc.set(UNIT, 'remote');
    const answer = await post('/cross');
    expect([answer.status, answer.body?.error['code']]).toEqual([409, 'CrossOwner']);
  });

  it('lets nothing of a request commit that was answered with 421', async () => {
    await dc.set(UNIT, 'write_disabled');
    expect((await post('/unawaited')).status).toBe(421);
    release();
    await expect(late).rejects.toMatchObject({ code: 'Refused' });
    expect(await value(2)).toBe(20);
  });

  it('answers 400 to a request without a usable key, and leaves other errors to the framework', async () => {
    expect((await post('/write', {})).status).toBe(400);
    expect((await post('/write', { 'x-user': 'a\u00ff' })).status).toBe(400);
    expect((await post('/write', { 'x-user': USER, 'x-region': 'nowhere' })).status).toBe(400);
    expect((await post('/bug')).status).toBe(500);
    expect(await value(1)).toBe(10);
  });

  it('keeps requests apart', async () => {
    await dc.set(UNIT, 'write_disabled');
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        i % 2 === 0 ? post('/write', { 'x-user': OTHER.userId }) : post('/write'),
      ),
    );
    expect(answers.map(({ status }) => status)).toEqual(
      Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? 200 : 421)),
    );
  });
});
