import { z } from 'zod';

/** A data center, store, gateway, region … name: lower case, digits, dashes. */
const name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'expected a name of lower-case letters, digits and dashes');

/** Secrets are never written into the topology: `{ env: NAME }` or `{ file: PATH }`. */
export const secretSchema = z.union(
  [
    z.strictObject({
      env: z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'expected the name of an environment variable'),
    }),
    z.strictObject({ file: z.string().min(1) }),
  ],
  { error: 'expected { env: NAME } or { file: PATH }' },
);
export type SecretReference = z.infer<typeof secretSchema>;

const port = z.number().int().min(1).max(65535);
const httpUrl = z.url({ protocol: /^https?$/, error: 'expected an http:// or https:// URL' });

export const mysqlStoreSchema = z.strictObject({
  host: z.string().min(1),
  port,
  user: z.string().min(1),
  password: secretSchema,
  /** `mysql` (8.0) or `mariadb` (10.11). */
  flavour: z.enum(['mysql', 'mariadb']).default('mysql'),
  /** Every connection is encrypted. PEM files; relative ones are taken from the topology file's directory. */
  tls: z
    .strictObject({
      /** Of the authority that has signed the server's certificate. */
      ca: z.string().min(1),
      /** Of the client, where the server asks for one: both or none. */
      cert: z.string().min(1).optional(),
      key: z.string().min(1).optional(),
      /** The name in the server's certificate, when it is not `host`; needed when `host` is an address. */
      serverName: z.string().min(1).optional(),
    })
    .refine(({ cert, key }) => (cert === undefined) === (key === undefined), {
      error: 'expected both cert and key, or neither',
    })
    .optional(),
  /** Exactly one MySQL store per DC holds the rules and epochs. */
  control: z.boolean().default(false),
});
export type MysqlStore = z.infer<typeof mysqlStoreSchema>;

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
  stores: z.strictObject({ mysql: z.record(name, mysqlStoreSchema) }),
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

/** What a link does with a row that is not on the target as the source had it. */
const conflictPolicySchema = z.union(
  [
    z.enum(['owner-wins', 'source-wins', 'target-wins', 'quarantine']),
    /** The greater value of this column wins. */
    z.strictObject({ latest: z.string().min(1) }),
  ],
  { error: 'expected owner-wins, source-wins, target-wins, quarantine or { latest: COLUMN }' },
);
export type ConflictPolicy = z.infer<typeof conflictPolicySchema>;
const tableName = z.string().regex(/^[^.]+\.[^.]+$/, 'expected schema.table');

/** Rows are carried when the column has one of the values, byte for byte; NULL is none. */
const rowFilterSchema = z.strictObject({
  column: z.string().min(1),
  in: z.array(z.union([z.string(), z.number().int()])).min(1),
});
export type RowFilter = z.infer<typeof rowFilterSchema>;

/** The target gives these columns its own default. */
const carriedColumnsSchema = z.strictObject({ without: z.array(z.string().min(1)).min(1) });
export type CarriedColumns = z.infer<typeof carriedColumnsSchema>;

export const linkSchema = z.strictObject({
  /** `mysql/<name>`: a store of that kind and name in both DCs. */
  store: z.string().regex(/^mysql\/[a-z0-9][a-z0-9-]*$/, 'expected mysql/<store name>'),
  /** Directions wanted; default both. */
  from: name.optional(),
  to: name.optional(),
  /** `schema.table` patterns with `*`; `interlock.*` and system schemas are never carried. */
  include: z.array(z.string().min(1)).min(1).default(['*.*']),
  exclude: z.array(z.string().min(1)).default([]),
  /** `schema.table` → policy; default `owner-wins`, for unrouted tables (they have no owner) `quarantine`. */
  conflicts: z
    .record(z.string().regex(/^[^.]+\.[^.]+$/, 'expected schema.table'), conflictPolicySchema)
    .default({}),
  /** A transaction that cannot be applied is kept aside; then the link stops before it, or goes on behind it. */
  onQuarantine: z.enum(['stop', 'go-on']).default('stop'),
  /** Source table → target table. */
  rename: z.record(tableName, tableName).optional(),
  /** Source table → the columns of it that are not carried. */
  columns: z.record(tableName, carriedColumnsSchema).optional(),
  /** Source table → the rows of it that are carried. */
  rows: z.record(tableName, rowFilterSchema).optional(),
  /** The link applies no more than this; what is more waits at the source. */
  maxRowsPerSecond: z.number().int().positive().optional(),
  maxBytesPerSecond: z.number().int().positive().optional(),
});

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
