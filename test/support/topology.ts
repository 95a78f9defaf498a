import { validateTopology } from '../../src/topology/load.js';
import type { Topology } from '../../src/topology/schema.js';

/** A document that is valid as it stands; a test changes what it is about. Two DCs, one store each, one application. */
export function exampleDocument(): Record<string, unknown> & { datacenters: Record<string, never> } {
  const dc = (name: string, base: number): unknown => ({
    domain: `${name}.example`,
    taskQueue: `interlock-${name}`,
    ruleCenter: { url: `http://127.0.0.1:${base}`, token: { env: 'RULE_CENTER_TOKEN' } },
    gateways: {
      'gw-1': {
        url: `http://127.0.0.1:${base + 1}`,
        admin: `http://127.0.0.1:${base + 2}`,
        token: { env: 'GATEWAY_TOKEN' },
      },
    },
    stores: {
      mysql: {
        main: {
          host: '127.0.0.1',
          port: base + 3,
          user: 'interlock',
          password: { env: 'MYSQL_PASSWORD' },
          control: true,
        },
      },
    },
    applications: { shop: { id: `${name}-shop`, instances: [`http://127.0.0.1:${base + 4}`] } },
  });
  return {
    version: 1,
    name: 'example',
    temporal: { address: '127.0.0.1:7233' },
    defaultRegion: 'cn-east',
    datacenters: { 'dc-a': dc('dc-a', 21000), 'dc-b': dc('dc-b', 22000) } as never,
    regions: { 'cn-east': { home: 'dc-a' }, 'cn-west': { home: 'dc-b' } },
    segments: { vip: { home: 'dc-a', members: ['vip-2', 'vip-1'] } },
    central: { coupons: { home: 'dc-a' } },
    applications: {
      shop: {
        paths: ['/'],
        routingKey: {
          userId: [{ header: 'x-user-id' }, { query: 'userId' }, { path: '/users/:userId/*' }],
          region: [{ header: 'x-region' }],
        },
        central: { '/coupons': 'central:coupons' },
      },
    },
    tables: {
      'shop.wallet': { userId: 'user_id', region: 'region' },
      'shop.coupon': { central: 'coupons' },
      'shop.country': { unrouted: true },
    },
    links: [{ store: 'mysql/main', include: ['shop.*'] }],
  };
}

export function exampleTopology(change: (document: Record<string, unknown>) => void = () => {}): Topology {
  const document = exampleDocument();
  change(document);
  return validateTopology(document);
}
