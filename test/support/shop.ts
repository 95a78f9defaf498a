import Fastify from 'fastify';
import type { FastifyInstance } from 'fastify';
import type { Pool, RowDataPacket } from 'mysql2/promise';
import { request } from 'undici';
import { InterlockError, isInterlockError, messageOf } from '../../src/errors.js';
import { CONTROL_TABLES } from '../../src/fence/control-schema.js';
import { BUCKETS, bucketOf, bucketUnit } from '../../src/routing/units.js';
import { COUPON_UNIT, SHOP_DDL, SHOP_TABLES } from '../../infra/demo/schema.sql.js';
import type { ShopDatabase, ShopKey, ShopTransaction } from '../../infra/demo/service/database.js';
import type { Flavour } from '../../infra/mysql-server.js';

const DEADLOCK = 1213;

/** Both control and shop schema on a plain server, every unit with the state that `stateOf` says at epoch 1. */
export async function prepareShopServer(
  pool: Pool,
  units: { unit: string; state: 'open' | 'remote'; owner: string }[],
): Promise<void> {
  await pool.query('CREATE DATABASE IF NOT EXISTS interlock');
  for (const statement of [...Object.values(CONTROL_TABLES), ...SHOP_DDL]) await pool.query(statement);
  await pool.query(
    'INSERT INTO interlock.unit_state (unit, state, owner, epoch, mapping_version, server) VALUES ?',
    [units.map(({ unit, state, owner }) => [unit, state, owner, 1, 1, 'test'])],
  );
}

export function unitsOfRegions(
  homes: Record<string, string>,
  couponHome: string,
  dc: string,
): {
  unit: string;
  state: 'open' | 'remote';
  owner: string;
}[] {
  const state = (owner: string): 'open' | 'remote' => (owner === dc ? 'open' : 'remote');
  const units = [{ unit: COUPON_UNIT, state: state(couponHome), owner: couponHome }];
  for (const [region, owner] of Object.entries(homes)) {
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      units.push({ unit: bucketUnit(region, bucket), state: state(owner), owner });
    }
  }
  return units;
}

/** The fence's lock by hand, without the SDK: enough to test the shop, the load and the checker on plain servers. */
export class PlainShopDatabase implements ShopDatabase {
  constructor(
    private readonly pool: Pool,
    private readonly flavour: Flavour,
    private readonly owns: (unit: string) => boolean,
  ) {}

  unitOf(key: ShopKey): string {
    return 'central' in key ? COUPON_UNIT : bucketUnit(key.region, bucketOf(key.userId));
  }

  ownsUnit(unit: string): boolean {
    return this.owns(unit);
  }

  async transaction<T>(key: ShopKey, work: (tx: ShopTransaction) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.once(key, work);
      } catch (error) {
        if ((error as { errno?: number }).errno !== DEADLOCK || attempt === 4) throw error;
      }
    }
  }

  private async once<T>(key: ShopKey, work: (tx: ShopTransaction) => Promise<T>): Promise<T> {
    const unit = this.unitOf(key);
    const connection = await this.pool.getConnection();
    try {
      await connection.beginTransaction();
      const [rows] = await connection.query<RowDataPacket[]>(
        `SELECT state, epoch FROM interlock.unit_state WHERE unit = ?
         ${this.flavour === 'mysql' ? 'FOR SHARE' : 'LOCK IN SHARE MODE'} NOWAIT`,
        [unit],
      );
      if (rows[0]?.['state'] !== 'open') throw new InterlockError('NotOwner', `${unit} is not open here`);
      const result = await work({
        epoch: Number(rows[0]['epoch']),
        query: async <R>(sql: string, values?: unknown[]) => (await connection.query(sql, values))[0] as R,
      });
      await connection.commit();
      return result;
    } catch (error) {
      await connection.rollback();
      throw error;
    } finally {
      connection.release();
    }
  }

  async read<T>(sql: string, values?: unknown[]): Promise<T> {
    return (await this.pool.query(sql, values))[0] as T;
  }
}

/** 421 for refusals, as the SDK's middleware answers them. */
export function refusals(app: FastifyInstance): void {
  app.setErrorHandler((error, _request, reply) => {
    if (isInterlockError(error, 'NotOwner')) return reply.code(421).send({ error: { code: error.code } });
    const status = (error as { statusCode?: number }).statusCode ?? 500;
    return reply.code(status).send({ error: { message: messageOf(error) } });
  });
}

/** A gateway of a few lines: routes by `ownerOf` to the shop of the owner. */
export async function startRouter(
  ownerOf: (unit: string) => string,
  shops: () => Record<string, string>,
): Promise<{ url: string; close: () => Promise<void> }> {
  const app = Fastify({ forceCloseConnections: true });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  app.all('/*', async (incoming, reply) => {
    const userId = /^\/wallets\/([^/]+)/.exec(incoming.url)?.[1];
    const unit =
      userId === undefined ? COUPON_UNIT : bucketUnit(String(incoming.headers['x-region']), bucketOf(userId));
    const owner = ownerOf(unit);
    const headers: Record<string, string> = {};
    for (const name of ['content-type', 'x-request-id', 'x-region', 'x-user-id']) {
      const value = incoming.headers[name];
      if (typeof value === 'string') headers[name] = value;
    }
    const response = await request(`${shops()[owner]!}${incoming.url}`, {
      method: incoming.method as 'GET' | 'POST',
      headers,
      ...(incoming.body === undefined ? {} : { body: incoming.body as Buffer }),
    });
    return reply
      .code(response.statusCode)
      .header('x-interlock-dc', owner)
      .send(await response.body.text());
  });
  const url = await app.listen({ host: '127.0.0.1', port: 0 });
  return { url, close: () => app.close() };
}

/** One pass of a link by hand: rows that `from`'s applications wrote last go to the other side, in a transaction marked as a link's. */
export async function copyShop(
  from: { dc: string; pool: Pool },
  to: { dc: string; pool: Pool },
): Promise<void> {
  const connection = await to.pool.getConnection();
  try {
    await connection.beginTransaction();
    await connection.query(
      `REPLACE INTO interlock.link_checkpoint (link, generation, position, source_server, seq, updated_at)
       VALUES (?, 1, '', '', FLOOR(RAND() * 1000000000), NOW(6))`,
      [`mysql/main:${from.dc}>${to.dc}`],
    );
    for (const table of SHOP_TABLES) {
      const [rows] = await from.pool.query<RowDataPacket[]>({
        sql: `SELECT * FROM shop.${table.name} WHERE dc = ?`,
        values: [from.dc],
        dateStrings: true,
      });
      if (rows.length === 0) continue;
      const columns = Object.keys(rows[0]!);
      const updates = columns.map((column) => `${column} = VALUES(${column})`).join(', ');
      await connection.query(
        `INSERT INTO shop.${table.name} (${columns.join(', ')}) VALUES ? ON DUPLICATE KEY UPDATE ${updates}`,
        [rows.map((row) => columns.map((column) => row[column] as unknown))],
      );
    }
    await connection.commit();
  } finally {
    connection.release();
  }
}
