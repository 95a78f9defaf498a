/**
 * One instance of the shop: `node main.js --application shop --dc dc-a --instance 1 --port 8080 --topology FILE`. The password of
 * the MySQL account `app` comes from INTERLOCK_LAB_MYSQL_APP_PASSWORD, that of Redis from INTERLOCK_LAB_REDIS_APP_PASSWORD.
 */
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { Kafka, logLevel } from 'kafkajs';
import mysql from 'mysql2/promise';
import { InterlockError, messageOf } from '../../../src/errors.js';
import { createInterlock } from '../../../src/sdk/index.js';
import { otherDc } from '../../../src/topology/derive.js';
import { loadTopology } from '../../../src/topology/load.js';
import { COUPON_CENTRAL, EVENTS, SHOP_SCHEMA } from '../schema.sql.js';
import { createShop } from './app.js';
import { Projection } from './projection.js';
import { SdkShopDatabase } from './sdk-database.js';
import { Visits } from './visits.js';

const CONNECTIONS = 32;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      application: { type: 'string', default: 'shop' },
      dc: { type: 'string' },
      instance: { type: 'string', default: '1' },
      port: { type: 'string' },
      topology: { type: 'string' },
    },
  });
  const given = (name: 'dc' | 'port' | 'topology'): string => {
    const value = values[name];
    if (value === undefined) throw new InterlockError('BadInput', `--${name} is missing`);
    return value;
  };
  const dc = given('dc');
  const { topology } = await loadTopology(given('topology'));
  const site = topology.datacenters[dc];
  if (site === undefined) throw new InterlockError('BadInput', `--dc ${dc}: not in the topology`);
  const store = Object.values(site.stores.mysql).find(({ control }) => control)!;
  const pool = mysql.createPool({
    host: store.host,
    port: store.port,
    user: 'app',
    password: process.env['INTERLOCK_LAB_MYSQL_APP_PASSWORD'] ?? '',
    connectionLimit: CONNECTIONS,
    flags: ['-FOUND_ROWS'],
  });
  const warn = (message: string): void => {
    process.stderr.write(`${new Date().toISOString()} ${message}\n`);
  };
  const routing = topology.applications[values.application];
  const interlock = createInterlock({
    dc,
    application: values.application,
    instance: `${values.application}.${dc}.${values.instance}`,
    ruleCenter: site.ruleCenter.url,
    ...(routing === undefined ? {} : { routing }),
    onWarning: warn,
  });
  const cache = site.stores.redis['cache'];
  const redis =
    cache &&
    new Redis({
      ...{ host: cache.host, port: cache.port, username: 'app' },
      password: process.env['INTERLOCK_LAB_REDIS_APP_PASSWORD'] ?? '',
      // A write whose answer was lost is the client's to repeat, with its request id.
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 1,
    });
  redis?.on('error', (error) => warn(`Redis: ${messageOf(error)}`));
  const broker = Object.values(site.stores.kafka)[0];
  const outboxes = {
    wallet: interlock.outbox({ table: `${SHOP_SCHEMA}.${EVENTS.wallet.outbox}` }),
    coupon: interlock.outbox({ table: `${SHOP_SCHEMA}.${EVENTS.coupon.outbox}`, central: COUPON_CENTRAL }),
  };
  const db = new SdkShopDatabase(interlock, interlock.mysql(pool), broker && outboxes);
  const projection =
    broker &&
    new Projection({
      ...{ interlock, db, peer: otherDc(topology, dc), onError: warn },
      kafka: new Kafka({ clientId: interlock.instance, brokers: broker.brokers, logLevel: logLevel.NOTHING }),
    });
  const app = await createShop({
    db,
    ...(redis && { visits: new Visits(interlock.redis(redis, { keys: topology.keys })) }),
    dc,
    gatewayUrl: Object.values(site.gateways)[0]!.url,
    middleware: async (instance) => {
      await instance.register(interlock.fastify());
    },
    onError: warn,
  });
  await interlock.ready();
  projection?.start();
  await app.listen({ host: '127.0.0.1', port: Number(given('port')) });

  let closing = false;
  const close = (): void => {
    if (closing) return;
    closing = true;
    void app
      .close()
      .then(() => projection?.stop())
      .then(() => interlock.close())
      .then(() => pool.end())
      .then(() => redis?.disconnect())
      .finally(() => process.exit(0));
  };
  process.on('SIGTERM', close);
  process.on('SIGINT', close);
}

main().catch((error: unknown) => {
  process.stderr.write(`shop: ${messageOf(error)}\n`);
  process.exit(1);
});
