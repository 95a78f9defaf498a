import Fastify from 'fastify';
import type { FastifyInstance } from 'fastify';
import { Coupons } from './coupons.js';
import type { ShopDatabase } from './database.js';
import { ShopError } from './requests.js';
import { Settler } from './settler.js';
import type { SettlerOptions } from './settler.js';
import type { Visits } from './visits.js';
import { Wallets } from './wallet.js';

export interface ShopOptions {
  db: ShopDatabase;
  dc: string;
  /** This DC's gateway. */
  gatewayUrl: string;
  /** Without one, nothing is counted or cached. */
  visits?: Visits;
  /** Registered before the routes: the SDK's middleware, which takes the routing key and answers refusals. */
  middleware?: (app: FastifyInstance) => void | Promise<void>;
  creditHeaders?: SettlerOptions['creditHeaders'];
  onError?: (message: string) => void;
}

interface TransferBody {
  toRegion: string;
  toUserId: string;
  amount: number;
}

const id = { type: 'string', pattern: '^[A-Za-z0-9_.:-]{1,64}$' } as const;
const amount = { type: 'integer', minimum: 1, maximum: 1_000_000 } as const;

function body(properties: Record<string, unknown>): Record<string, unknown> {
  return { type: 'object', required: Object.keys(properties), properties, additionalProperties: false };
}

const writeHeaders = {
  type: 'object',
  required: ['x-request-id'],
  properties: { 'x-request-id': id },
} as const;
const visitHeaders = {
  type: 'object',
  required: ['x-request-id', 'x-user-id'],
  properties: { 'x-request-id': id, 'x-user-id': id },
} as const;
const walletParams = { type: 'object', properties: { userId: id } } as const;

/**
 * The shop's HTTP interface. Writes carry `x-request-id` and may be repeated with the same id.
 *
 *   POST /coupons/:coupon/deductions   {userId, quantity}             200 {repeated, epoch}
 *   GET  /coupons/:coupon                                              200 {coupon, remaining}
 *   POST /wallets/:userId/transfers    {toRegion, toUserId, amount}    200 settled | 202 promised
 *   POST /wallets/:userId/credits      {amount}                        200 (second half of a transfer)
 *   GET  /wallets/:userId                                              200 {userId, region, balance}; it may be a second old
 *   POST /visits                                                       200 {visits, repeated}; counted in Redis, of x-user-id
 *   GET  /health                                                       200
 */
export async function createShop(options: ShopOptions): Promise<FastifyInstance> {
  const { db, dc, visits } = options;
  const wallets = new Wallets(db, dc);
  const coupons = new Coupons(db, dc);
  const settler = new Settler({
    db,
    wallets,
    gatewayUrl: options.gatewayUrl,
    ...(options.creditHeaders ? { creditHeaders: options.creditHeaders } : {}),
    ...(options.onError ? { onError: options.onError } : {}),
  });
  settler.start();
  const app = Fastify({
    logger: false,
    forceCloseConnections: true,
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false } },
  });
  await options.middleware?.(app);

  app.post<{ Params: { coupon: string }; Body: { userId: string; quantity: number } }>(
    '/coupons/:coupon/deductions',
    {
      schema: {
        headers: writeHeaders,
        params: { type: 'object', properties: { coupon: id } },
        body: body({ userId: id, quantity: { ...amount, maximum: 1000 } }),
      },
    },
    async (request) =>
      coupons.deduct({
        requestId: requestIdOf(request.headers),
        coupon: request.params.coupon,
        userId: request.body.userId,
        quantity: request.body.quantity,
      }),
  );
  app.get<{ Params: { coupon: string } }>('/coupons/:coupon', async (request) => ({
    coupon: request.params.coupon,
    remaining: await coupons.remaining(request.params.coupon),
  }));

  app.post<{ Params: { userId: string }; Body: TransferBody }>(
    '/wallets/:userId/transfers',
    {
      schema: {
        headers: writeHeaders,
        params: walletParams,
        body: body({ toRegion: id, toUserId: id, amount }),
      },
    },
    async (request, reply) => {
      const transfer = {
        requestId: requestIdOf(request.headers),
        from: { region: regionOf(request.headers), userId: request.params.userId },
        to: { region: request.body.toRegion, userId: request.body.toUserId },
        amount: request.body.amount,
      };
      const result = await wallets.transfer(transfer);
      if (result.state === 'pending') {
        settler.enqueue(transfer);
        reply.code(202);
      }
      return result;
    },
  );
  app.post<{ Params: { userId: string }; Body: { amount: number } }>(
    '/wallets/:userId/credits',
    { schema: { headers: writeHeaders, params: walletParams, body: body({ amount }) } },
    async (request) =>
      wallets.credit(
        requestIdOf(request.headers),
        { region: regionOf(request.headers), userId: request.params.userId },
        request.body.amount,
      ),
  );
  app.get<{ Params: { userId: string } }>('/wallets/:userId', async (request) => {
    const wallet = { region: regionOf(request.headers), userId: request.params.userId };
    const read = (): Promise<number> => wallets.balance(wallet);
    return { ...wallet, balance: await (visits === undefined ? read() : visits.cached(wallet, read)) };
  });
  app.post('/visits', { schema: { headers: visitHeaders } }, async (request) => {
    if (visits === undefined) throw new ShopError(404, 'NoRedis', 'this shop has no Redis');
    const user = { region: regionOf(request.headers), userId: String(request.headers['x-user-id']) };
    return visits.visit(requestIdOf(request.headers), user);
  });
  app.get('/health', async () => ({ dc }));

  app.addHook('onClose', async () => settler.stop());
  return app;
}

function requestIdOf(headers: Record<string, unknown>): string {
  return String(headers['x-request-id']);
}

function regionOf(headers: Record<string, unknown>): string {
  const region = headers['x-region'];
  if (typeof region !== 'string' || region === '') {
    throw new ShopError(400, 'BadInput', 'header x-region is missing');
  }
  return region;
}
