import { z } from 'zod';
import { isRedisWrite } from './redis-commands.js';
import { name } from './store-schema.js';

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
export const tableName = z.string().regex(/^[^.]+\.[^.]+$/, 'expected schema.table');

/** Rows are carried when the column has one of the values, byte for byte; NULL is none. */
const rowFilterSchema = z.strictObject({
  column: z.string().min(1),
  in: z.array(z.union([z.string(), z.number().int()])).min(1),
});
export type RowFilter = z.infer<typeof rowFilterSchema>;

/** The target gives these columns its own default. */
const carriedColumnsSchema = z.strictObject({ without: z.array(z.string().min(1)).min(1) });
export type CarriedColumns = z.infer<typeof carriedColumnsSchema>;

const ends = {
  /** `<kind>/<name>`: a store of that kind and name in both DCs. */
  store: z.string(),
  /** Directions wanted; default both. */
  from: name.optional(),
  to: name.optional(),
};
const mostPerSecond = z.number().int().positive().optional();

const mysqlLinkSchema = z.strictObject({
  ...ends,
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
  maxRowsPerSecond: mostPerSecond,
  maxBytesPerSecond: mostPerSecond,
});

const commandNames = z.array(
  z.string().refine((text) => isRedisWrite(text), {
    error: 'expected the name of a command that writes, or of a module (with a dot)',
  }),
);
const databaseNumbers = z.array(z.number().int().nonnegative());

const redisLinkSchema = z.strictObject({
  ...ends,
  /** Key patterns with `*`; `interlock:*` is never carried. */
  include: z.array(z.string().min(1)).min(1).default(['*']),
  exclude: z.array(z.string().min(1)).default([]),
  /** Numbers of the databases that are carried; all when absent. */
  databases: databaseNumbers.min(1).optional(),
  excludeDatabases: databaseNumbers.min(1).optional(),
  /** Commands that are carried; all when absent. */
  includeCommands: commandNames.min(1).optional(),
  /** Commands that are not carried. */
  excludeCommands: commandNames.default([]),
  /** Keys that live for less are not carried. */
  minTtlMs: z.number().int().nonnegative().default(3000),
  /** The source's backlog no longer reaches back to the checkpoint: stop, or copy everything anew. */
  onGap: z.enum(['stop', 'resync']).default('stop'),
  /** A command that cannot be applied is kept aside; then the link stops before it, or goes on behind it. */
  onQuarantine: z.enum(['stop', 'go-on']).default('stop'),
  /** What is done with a write to a unit that the source does not own. */
  conflicts: z.enum(['owner-wins', 'source-wins', 'quarantine']).default('owner-wins'),
  /** Of keys without a unit (no pattern of `keys` matches, or an `unrouted` one), deletions too are carried, or are not. */
  unmapped: z.enum(['apply', 'ignore-deletes']).default('apply'),
  /** The link applies no more than this; what is more waits at the source. */
  maxCommandsPerSecond: mostPerSecond,
  maxBytesPerSecond: mostPerSecond,
});

const kafkaLinkSchema = z.strictObject({
  ...ends,
  /** Topic patterns with `*`; `interlock.*` and topics that begin with `__` are never carried. */
  include: z.array(z.string().min(1)).min(1).default(['*']),
  exclude: z.array(z.string().min(1)).default([]),
  /** The copy's name. */
  naming: z
    .string()
    .refine((text) => text.split('{topic}').length === 2 && /^[A-Za-z0-9._{}-]+$/.test(text), {
      error:
        'expected the name of the copy, with {topic} once, {from} where wanted, else letters, digits, dots, dashes',
    })
    .default('{from}.{topic}'),
  /** Records that the link has not read are gone from the source: stop, or go on behind the gap. */
  onGap: z.enum(['stop', 'go-on']).default('stop'),
  /** The link applies no more than this; what is more waits at the source. */
  maxRecordsPerSecond: mostPerSecond,
  maxBytesPerSecond: mostPerSecond,
});

/** The relay of a MySQL store's outbox to the Kafka of the same data center; one in each. */
const outboxSchema = z.strictObject({
  /** `outbox/<name of the MySQL store>` */
  store: z.string(),
  /** The Kafka store that takes the events. */
  kafka: name,
  /** `schema.table` of the store's outbox tables. */
  tables: z.array(tableName).min(1),
});

const STORE = /^(mysql|redis|kafka|outbox)\/[a-z0-9][a-z0-9-]*$/;
export type MysqlLinkSpec = z.infer<typeof mysqlLinkSchema> & { kind: 'mysql' };
export type RedisLinkSpec = z.infer<typeof redisLinkSchema> & { kind: 'redis' };
export type KafkaLinkSpec = z.infer<typeof kafkaLinkSchema> & { kind: 'kafka' };
export type OutboxSpec = z.infer<typeof outboxSchema> & { kind: 'outbox' };
/** Of a link between the two data centers. */
export type PairLinkSpec = MysqlLinkSpec | RedisLinkSpec | KafkaLinkSpec;
export type LinkSpec = PairLinkSpec | OutboxSpec;
export type LinkKind = LinkSpec['kind'];
const BY_KIND = {
  mysql: mysqlLinkSchema,
  redis: redisLinkSchema,
  kafka: kafkaLinkSchema,
  outbox: outboxSchema,
};

/** A link; what it may say depends on the kind of its store. */
export const linkSchema = z
  .looseObject({
    store: z.string().regex(STORE, 'expected mysql/NAME, redis/NAME, kafka/NAME or outbox/NAME'),
  })
  .transform((raw, context): LinkSpec => {
    const kind = STORE.exec(raw.store)![1] as LinkKind;
    const parsed = BY_KIND[kind].safeParse(raw);
    if (parsed.success) return { kind, ...parsed.data } as LinkSpec;
    for (const issue of parsed.error.issues) context.issues.push({ ...issue, input: raw } as never);
    return z.NEVER;
  });
