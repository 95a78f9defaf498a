import Fastify from 'fastify';
import type { FastifyInstance } from 'fastify';
import type { Pool, RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createInterlock, FixedRules } from '../../src/sdk/index.js';
import type { Interlock } from '../../src/sdk/index.js';
import { createShop } from '../../infra/demo/service/app.js';
import { SdkShopDatabase } from '../../infra/demo/service/sdk-database.js';
import {
  OPENING_BALANCE,
  OPENING_STOCK,
  SHOP_APPLICATION,
  SHOP_DDL,
  SHOP_TABLES,
} from '../../infra/demo/schema.sql.js';
import { startFencedServer, testRules, userIn } from '../sdk/support.js';
import type { FencedServer } from '../sdk/support.js';

const EAST = { 'x-region': 'cn-east' };
const [ANN, BEN] = [userIn(7, 0), userIn(7, 1)];
const FAR = userIn(8);

describe.each(['mysql', 'mariadb'] as const)('the shop on the SDK, %s', (flavour) => {
  let dc: FencedServer;
  let pool: Pool;
  let interlock: Interlock;
  let shop: FastifyInstance;
  /** Stands for the gateway: where credits of other owners' wallets go. */
  let gateway: FastifyInstance;
  const credits: { path: string; region: unknown; id: unknown }[] = [];
  let creditStatus = 200;
  let ids = 0;

  beforeAll(async () => {
    dc = await startFencedServer(flavour);
    for (const statement of SHOP_DDL) await dc.admin.query(statement);
    await dc.admin.query("GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO 'app'@'127.0.0.1'");
    const rules = testRules(1, { central: { 'coupon-inventory': { owner: 'dc-a', state: 'open' } } });
    await dc.fence.addMissing(rules);
    gateway = Fastify({ forceCloseConnections: true });
    gateway.post('/wallets/:userId/credits', async (request, reply) => {
      credits.push({
        path: request.url,
        region: request.headers['x-region'],
        id: request.headers['x-request-id'],
      });
      return reply.code(creditStatus).send({});
    });
    const gatewayUrl = await gateway.listen({ host: '127.0.0.1', port: 0 });
    pool = dc.pool({ connectionLimit: 20, flags: ['-FOUND_ROWS'] });
    interlock = createInterlock({
      dc: 'dc-a',
      application: 'shop',
      rules: new FixedRules(rules),
      routing: SHOP_APPLICATION,
    });
    shop = await createShop({
      db: new SdkShopDatabase(interlock, interlock.mysql(pool)),
      dc: 'dc-a',
      gatewayUrl,
      middleware: async (app) => {
        await app.register(interlock.fastify());
      },
    });
  });
  afterAll(async () => {
    await shop.close();
    await interlock.close();
    await gateway.close();
    await pool.end();
    await dc.stop();
  });
  beforeEach(async () => {
    for (const table of SHOP_TABLES) await dc.admin.query(`TRUNCATE shop.${table.name}`);
    for (const unit of ['cn-east/7', 'cn-east/8', 'central:coupon-inventory']) await dc.set(unit, 'open');
    credits.length = 0;
    creditStatus = 200;
  });

  const post = async (url: string, payload: object, headers: Record<string, string> = {}) =>
    shop.inject({
      method: 'POST',
      url,
      payload,
      headers: { 'x-request-id': `r${++ids}`, ...EAST, ...headers },
    });
  const rows = async (sql: string): Promise<RowDataPacket[]> =>
    (await dc.admin.query<RowDataPacket[]>(sql))[0];
  const balance = async (userId: string): Promise<number> =>
    (await shop.inject({ url: `/wallets/${userId}`, headers: EAST })).json<{ balance: number }>().balance;
  const transfer = (to: string, more: object = {}, headers: Record<string, string> = {}) =>
    post(`/wallets/${ANN}/transfers`, { toRegion: 'cn-east', toUserId: to, amount: 10, ...more }, headers);

  test('a transfer inside a unit is one transaction, and its rows store that transaction’s epoch', async () => {
    const epoch = await dc.set('cn-east/7', 'open');
    const response = await transfer(BEN);
    expect([response.statusCode, response.json()]).toEqual([
      200,
      { state: 'settled', repeated: false, epoch },
    ]);
    expect([await balance(ANN), await balance(BEN)]).toEqual([OPENING_BALANCE - 10, OPENING_BALANCE + 10]);
    for (const table of ['wallet', 'wallet_request', 'wallet_entry']) {
      for (const row of await rows(`SELECT dc, unit, epoch FROM shop.${table}`)) {
        expect(row).toEqual({ dc: 'dc-a', unit: 'cn-east/7', epoch });
      }
    }
    expect(await rows('SELECT * FROM shop.wallet_outbox')).toEqual([]);
  });

  test('a repeat with the same request id changes nothing and says so', async () => {
    await transfer(BEN, {}, { 'x-request-id': 'same' });
    const again = await transfer(BEN, {}, { 'x-request-id': 'same' });
    expect([again.statusCode, again.json()]).toMatchObject([200, { repeated: true }]);
    expect(await balance(ANN)).toBe(OPENING_BALANCE - 10);
    const coupon = { userId: ANN, quantity: 3 };
    for (const repeated of [false, true]) {
      const response = await post('/coupons/c1/deductions', coupon, { 'x-request-id': 'once' });
      expect([response.statusCode, response.json()]).toMatchObject([200, { repeated }]);
    }
    expect((await shop.inject({ url: '/coupons/c1' })).json()).toMatchObject({
      remaining: OPENING_STOCK - 3,
    });
  });

  test('across units here: debit and promise at once, then the credit, then the promise is kept', async () => {
    const response = await transfer(FAR);
    expect([response.statusCode, response.json()]).toMatchObject([202, { state: 'pending' }]);
    await expect.poll(() => rows('SELECT state FROM shop.wallet_outbox')).toEqual([{ state: 'done' }]);
    expect([await balance(ANN), await balance(FAR)]).toEqual([OPENING_BALANCE - 10, OPENING_BALANCE + 10]);
    expect(credits).toEqual([]);
    expect(await rows('SELECT unit FROM shop.wallet_entry ORDER BY id')).toEqual([
      { unit: 'cn-east/7' },
      { unit: 'cn-east/8' },
    ]);
  });

  test('across data centers the credit goes through the gateway, and is tried again until it is taken', async () => {
    creditStatus = 503;
    const response = await transfer(FAR, { toRegion: 'cn-west' }, { 'x-request-id': 'far' });
    expect(response.statusCode).toBe(202);
    await expect.poll(() => credits.length).toBeGreaterThan(0);
    expect(await rows('SELECT state FROM shop.wallet_outbox')).toEqual([{ state: 'pending' }]);
    creditStatus = 200;
    await expect
      .poll(() => rows('SELECT state FROM shop.wallet_outbox'), { timeout: 10_000 })
      .toEqual([{ state: 'done' }]);
    expect(credits.at(-1)).toEqual({ path: `/wallets/${FAR}/credits`, region: 'cn-west', id: 'far' });
    expect(credits.length).toBeGreaterThan(1);
  });

  test('a credit whose unit is fenced here goes through the gateway, which holds it', async () => {
    await dc.set('cn-east/8', 'write_disabled');
    expect((await transfer(FAR)).statusCode).toBe(202);
    await expect.poll(() => credits.length).toBe(1);
    expect(await rows(`SELECT * FROM shop.wallet_entry WHERE leg = 'credit'`)).toEqual([]);
  });

  test('a fenced unit answers 421 and has written nothing', async () => {
    await dc.set('cn-east/7', 'write_disabled');
    const response = await transfer(BEN);
    expect(response.statusCode).toBe(421);
    expect(response.headers['x-interlock-refusal']).toBe('WriteDisabled');
    for (const table of SHOP_TABLES) expect(await rows(`SELECT * FROM shop.${table.name}`)).toEqual([]);
  });

  test('coupons follow their own unit, not the user’s', async () => {
    await dc.set('cn-east/7', 'remote');
    expect((await post('/coupons/c1/deductions', { userId: ANN, quantity: 1 })).statusCode).toBe(200);
    await dc.set('central:coupon-inventory', 'remote');
    const response = await post('/coupons/c1/deductions', { userId: ANN, quantity: 1 });
    expect([response.statusCode, response.headers['x-interlock-owner']]).toEqual([421, 'dc-b']);
  });

  test('a transfer that the wallet does not cover is refused whole', async () => {
    await transfer(BEN, { amount: 1_000_000 });
    const response = await transfer(BEN, { amount: 1 });
    expect(response.statusCode).toBe(422);
    expect([await balance(ANN), await balance(BEN)]).toEqual([0, 2 * OPENING_BALANCE]);
    expect((await rows('SELECT * FROM shop.wallet_entry')).length).toBe(2);
  });

  test('concurrent transfers in opposite directions all succeed', async () => {
    const there = Array.from({ length: 20 }, () => transfer(BEN));
    const back = Array.from({ length: 20 }, () =>
      post(`/wallets/${BEN}/transfers`, { toRegion: 'cn-east', toUserId: ANN, amount: 10 }),
    );
    const statuses = (await Promise.all([...there, ...back])).map((response) => response.statusCode);
    expect(new Set(statuses)).toEqual(new Set([200]));
    expect([await balance(ANN), await balance(BEN)]).toEqual([OPENING_BALANCE, OPENING_BALANCE]);
  });

  test.each<[string, object, Record<string, string>]>([
    ['an amount that is no whole number', { amount: 0.5 }, {}],
    ['a negative amount', { amount: -5 }, {}],
    ['a user id with a quote', { toUserId: `x' OR '1'='1` }, {}],
    ['an unknown field', { discount: 1 }, {}],
    ['no request id', {}, { 'x-request-id': '' }],
  ])('bad input: %s', async (_name, more, headers) => {
    const response = await transfer(BEN, more, headers);
    expect(response.statusCode).toBe(400);
    expect(await rows('SELECT * FROM shop.wallet_request')).toEqual([]);
  });
});
