/**
 * The shop without Interlock, as the peer of the switchover benchmark runs it: plain transactions, no fence. Its routes file says who
 * owns what; the switch script rewrites it with the gateways' configuration.
 *   node plain-shop.js DC PORT MYSQL_PORT GATEWAY_URL ROUTES_FILE
 */
import { readFileSync } from 'node:fs';
import mysql from 'mysql2/promise';
import type { Pool } from 'mysql2/promise';
import { messageOf } from '../../../src/errors.js';
import { createShop } from '../../../infra/demo/service/app.js';
import type { ShopDatabase, ShopKey, ShopTransaction } from '../../../infra/demo/service/database.js';
import { bucketHeader } from '../../../infra/demo/load/generator.js';
import { ownerBy, unitOf } from './routes.js';
import type { Routes } from './routes.js';

const DEADLOCK = 1213;

class PlainDatabase implements ShopDatabase {
  private routes: Routes;

  constructor(
    private readonly pool: Pool,
    private readonly dc: string,
    routesFile: string,
  ) {
    const read = (): Routes => JSON.parse(readFileSync(routesFile, 'utf8')) as Routes;
    this.routes = read();
    setInterval(() => (this.routes = read()), 200).unref();
  }

  unitOf(key: ShopKey): string {
    return unitOf(key);
  }

  ownsUnit(unit: string): boolean {
    return ownerBy(this.routes, unit) === this.dc;
  }

  async transaction<T>(_key: ShopKey, work: (tx: ShopTransaction) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const connection = await this.pool.getConnection();
      try {
        await connection.beginTransaction();
        const result = await work({
          epoch: 0,
          query: async <R>(sql: string, values?: unknown[]) => (await connection.query(sql, values))[0] as R,
        });
        await connection.commit();
        return result;
      } catch (error) {
        await connection.rollback();
        if ((error as { errno?: number }).errno !== DEADLOCK || attempt === 4) throw error;
      } finally {
        connection.release();
      }
    }
  }

  async read<T>(sql: string, values?: unknown[]): Promise<T> {
    return (await this.pool.query(sql, values))[0] as T;
  }
}

async function main(): Promise<void> {
  const [dc, port, mysqlPort, gatewayUrl, routesFile] = process.argv.slice(2) as [
    string,
    string,
    string,
    string,
    string,
  ];
  const pool = mysql.createPool({
    host: '127.0.0.1',
    port: Number(mysqlPort),
    user: 'app',
    password: 'app',
    connectionLimit: 32,
    flags: ['-FOUND_ROWS'],
  });
  const app = await createShop({
    db: new PlainDatabase(pool, dc, routesFile),
    dc,
    gatewayUrl,
    creditHeaders: ({ userId }) => bucketHeader(userId),
  });
  await app.listen({ host: '127.0.0.1', port: Number(port) });
  process.send?.('ready');
  process.on('disconnect', () => process.exit(0));
}

main().catch((error: unknown) => {
  process.stderr.write(`plain shop: ${messageOf(error)}\n`);
  process.exit(1);
});
