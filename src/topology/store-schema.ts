import { z } from 'zod';

/** A data center, store, gateway, region … name: lower case, digits, dashes. */
export const name = z
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

/** Every connection is encrypted. PEM files; relative ones are taken from the topology file's directory. */
const tlsSchema = z
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
  });
export type Tls = z.infer<typeof tlsSchema>;

const mysqlStoreSchema = z.strictObject({
  host: z.string().min(1),
  port,
  user: z.string().min(1),
  password: secretSchema,
  /** `mysql` (8.0) or `mariadb` (10.11). */
  flavour: z.enum(['mysql', 'mariadb']).default('mysql'),
  tls: tlsSchema.optional(),
  /** Exactly one MySQL store per DC holds the rules and epochs. */
  control: z.boolean().default(false),
});
export type MysqlStore = z.infer<typeof mysqlStoreSchema>;

const redisStoreSchema = z
  .strictObject({
    host: z.string().min(1),
    port,
    /** An ACL user; the server's `default` user when absent. */
    user: z.string().min(1).optional(),
    password: secretSchema.optional(),
    tls: tlsSchema.optional(),
  })
  // Without one, a client would be the server's `default` user.
  .refine(({ user, password }) => user === undefined || password !== undefined, {
    path: ['password'],
    error: 'expected { env: NAME } or { file: PATH }, as there is a user',
  });
export type RedisStore = z.infer<typeof redisStoreSchema>;

const kafkaStoreSchema = z.strictObject({
  /** Where a client begins; the brokers name the others. */
  brokers: z.array(z.string().regex(/^[^:\s]+:\d{1,5}$/, 'expected host:port')).min(1),
  tls: tlsSchema.optional(),
  sasl: z
    .strictObject({
      mechanism: z.enum(['plain', 'scram-sha-256', 'scram-sha-512']),
      user: z.string().min(1),
      password: secretSchema,
    })
    .optional(),
});
export type KafkaStore = z.infer<typeof kafkaStoreSchema>;

/** By name; the same name in both DCs is a pair. */
export const storesSchema = z.strictObject({
  mysql: z.record(name, mysqlStoreSchema),
  redis: z.record(name, redisStoreSchema).default({}),
  kafka: z.record(name, kafkaStoreSchema).default({}),
});
