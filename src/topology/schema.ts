import { z } from 'zod';
import { linkSchema, tableName } from './link-schema.js';
import { name, secretSchema, storesSchema } from './store-schema.js';

export type * from './link-schema.js';
export type * from './store-schema.js';

const httpUrl = z.url({ protocol: /^https?$/, error: 'expected an http:// or https:// URL' });

const gatewaySchema = z.strictObject({
  /** Where clients and the other DC's gateways reach it. */
  url: httpUrl,
  /** Its admin endpoint: loopback only, bearer token. */
  admin: httpUrl,
  token: secretSchema,
});

const dcSchema = z.strictObject({
  /** The domain that a terminal should use for units of this DC. */
  domain: z.string().min(1),
  /** Temporal task queue of this DC's workers. */
  taskQueue: z.string().min(1),
  ruleCenter: z.strictObject({ url: httpUrl, token: secretSchema }),
  gateways: z.record(name, gatewaySchema),
  stores: storesSchema,
  /** Application name → its id in this DC's CMDB and the base URLs of its instances. */
  applications: z.record(name, z.strictObject({ id: z.string().min(1), instances: z.array(httpUrl) })),
});

/** A header or cookie name (RFC 9110 token). */
const httpToken = z
  .string()
  .regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/, 'expected a name of letters, digits and dashes');

/** One place to look for a part of the routing key. */
const keySourceSchema = z.union(
  [
    z.strictObject({ header: httpToken }),
    z.strictObject({ cookie: httpToken }),
    z.strictObject({ query: z.string().min(1) }),
    /** `/users/:userId/orders`: the segment named `:userId` or `:region`; other segments must match; a trailing `/*` takes any rest. */
    z.strictObject({ path: z.string().startsWith('/', 'expected a path that begins with /') }),
  ],
  { error: 'expected one of { header: NAME }, { cookie: NAME }, { query: NAME }, { path: /a/:userId/* }' },
);

const applicationSchema = z.strictObject({
  /** Requests whose path starts with one of these belong to the application; the longest wins. `/` takes the rest. */
  paths: z.array(z.string().startsWith('/', 'expected a path that begins with /')).min(1),
  /** Tried in order; the first that is present wins. */
  routingKey: z.strictObject({
    userId: z.array(keySourceSchema).min(1),
    region: z.array(keySourceSchema).default([]),
  }),
  /** Path prefix → `central:<name>`: requests that write data with one writer for all. */
  central: z
    .record(
      z.string().startsWith('/', 'expected a path that begins with /'),
      z.string().regex(/^central:[a-z0-9][a-z0-9-]*$/, 'expected central:<name>'),
    )
    .default({}),
});

/** `schema.table` → where its rows' routing key is. */
const tableSchema = z.union(
  [
    z.strictObject({ userId: z.string().min(1), region: z.string().min(1).optional() }),
    z.strictObject({ central: name }),
    z.strictObject({ unrouted: z.literal(true) }),
  ],
  { error: 'expected { userId: COLUMN, region?: COLUMN }, { central: NAME } or { unrouted: true }' },
);
export type TableRouting = z.infer<typeof tableSchema>;

/** Which Redis keys have which owner: see src/routing/redis-keys.ts. */
const keySchema = z.union(
  [
    z.strictObject({ pattern: z.string().min(1) }),
    z.strictObject({ pattern: z.string().min(1), central: name }),
    z.strictObject({ pattern: z.string().min(1), unrouted: z.literal(true) }),
  ],
  {
    error: 'expected { pattern: PATTERN }, with central: NAME or unrouted: true where no user owns the keys',
  },
);

const owned = z.strictObject({ home: name });

export const topologySchema = z.strictObject({
  version: z.literal(1),
  name,
  temporal: z.strictObject({
    address: z.string().regex(/^[^:\s]+:\d+$/, 'expected host:port'),
    namespace: z.string().min(1).default('default'),
    controlTaskQueue: z.string().min(1).default('interlock-control'),
    webUi: httpUrl.optional(),
  }),
  defaultRegion: name,
  datacenters: z.record(name, dcSchema),
  regions: z.record(name, owned),
  segments: z.record(name, z.strictObject({ home: name, members: z.array(z.string().min(1)) })).default({}),
  central: z.record(name, owned).default({}),
  applications: z.record(name, applicationSchema).default({}),
  tables: z.record(tableName, tableSchema).default({}),
  /** Of all Redis stores; the first that matches a key counts. */
  keys: z.array(keySchema).default([]),
  links: z.array(linkSchema).default([]),
  limits: z
    .strictObject({
      /** A request of a fenced scope is held at most this long, then 503. */
      holdMs: z.number().int().positive().default(10_000),
      /** Requests held at once per gateway. */
      holdRequests: z.number().int().positive().default(10_000),
      /** Body bytes held at once per gateway. */
      holdBytes: z
        .number()
        .int()
        .positive()
        .default(64 * 1024 * 1024),
      /** Largest body that is held or replayed on 421. */
      replayBodyBytes: z
        .number()
        .int()
        .positive()
        .default(1024 * 1024),
      /** A switchover starts to fence only below this lag. */
      lagMs: z.number().int().positive().default(1000),
      /** A link that is further behind raises the alert `lag`. */
      alertLagMs: z.number().int().positive().default(30_000),
      /** A link that applies nothing for so long, although there is something, raises the alert `stalled`. */
      alertStalledMs: z.number().int().positive().default(60_000),
      /** Clock skew between a store and this process above which preflight fails. */
      clockSkewMs: z.number().int().positive().default(1000),
    })
    .prefault({}),
});

export type Topology = z.infer<typeof topologySchema>;
export type Datacenter = Topology['datacenters'][string];
export type Gateway = Datacenter['gateways'][string];
export type Application = Topology['applications'][string];
