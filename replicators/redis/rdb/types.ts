/** What a value is for people and for TYPE. */
export type RedisType = 'string' | 'list' | 'set' | 'zset' | 'hash' | 'stream' | 'module';

/** The formats of a value in an RDB file (`rdb.h`). Redis never changes one: what is saved otherwise gets a number of its own. */
export const RDB = {
  STRING: 0,
  LIST: 1,
  SET: 2,
  ZSET: 3,
  HASH: 4,
  ZSET_2: 5,
  MODULE_PRE_GA: 6,
  MODULE_2: 7,
  HASH_ZIPMAP: 9,
  LIST_ZIPLIST: 10,
  SET_INTSET: 11,
  ZSET_ZIPLIST: 12,
  HASH_ZIPLIST: 13,
  LIST_QUICKLIST: 14,
  STREAM_LISTPACKS: 15,
  HASH_LISTPACK: 16,
  ZSET_LISTPACK: 17,
  LIST_QUICKLIST_2: 18,
  STREAM_LISTPACKS_2: 19,
  SET_LISTPACK: 20,
  STREAM_LISTPACKS_3: 21,
  HASH_METADATA_PRE_GA: 22,
  HASH_LISTPACK_EX_PRE_GA: 23,
  HASH_METADATA: 24,
  HASH_LISTPACK_EX: 25,
} as const;

export const OPCODE = {
  SLOT_INFO: 244,
  FUNCTION2: 245,
  FUNCTION_PRE_GA: 246,
  MODULE_AUX: 247,
  IDLE: 248,
  FREQ: 249,
  AUX: 250,
  RESIZEDB: 251,
  EXPIRETIME_MS: 252,
  EXPIRETIME: 253,
  SELECTDB: 254,
  EOF: 255,
} as const;

/** The newest RDB version that is read: that of Redis 7.4. */
export const NEWEST_RDB_VERSION = 12;
/** The oldest: Redis 5. Files of older servers are read too where they have nothing that has changed since. */
export const OLDEST_RDB_VERSION = 5;

interface Format {
  type: RedisType;
  /** The first RDB version that has it. */
  since: number;
}

const FORMATS = new Map<number, Format>([
  [RDB.STRING, { type: 'string', since: 1 }],
  [RDB.LIST, { type: 'list', since: 1 }],
  [RDB.SET, { type: 'set', since: 1 }],
  [RDB.ZSET, { type: 'zset', since: 1 }],
  [RDB.HASH, { type: 'hash', since: 1 }],
  [RDB.ZSET_2, { type: 'zset', since: 8 }],
  [RDB.MODULE_PRE_GA, { type: 'module', since: 8 }],
  [RDB.MODULE_2, { type: 'module', since: 8 }],
  [RDB.HASH_ZIPMAP, { type: 'hash', since: 2 }],
  [RDB.LIST_ZIPLIST, { type: 'list', since: 2 }],
  [RDB.SET_INTSET, { type: 'set', since: 2 }],
  [RDB.ZSET_ZIPLIST, { type: 'zset', since: 2 }],
  [RDB.HASH_ZIPLIST, { type: 'hash', since: 4 }],
  [RDB.LIST_QUICKLIST, { type: 'list', since: 7 }],
  [RDB.STREAM_LISTPACKS, { type: 'stream', since: 9 }],
  [RDB.HASH_LISTPACK, { type: 'hash', since: 10 }],
  [RDB.ZSET_LISTPACK, { type: 'zset', since: 10 }],
  [RDB.LIST_QUICKLIST_2, { type: 'list', since: 10 }],
  [RDB.STREAM_LISTPACKS_2, { type: 'stream', since: 10 }],
  [RDB.SET_LISTPACK, { type: 'set', since: 11 }],
  [RDB.STREAM_LISTPACKS_3, { type: 'stream', since: 11 }],
  [RDB.HASH_METADATA_PRE_GA, { type: 'hash', since: 12 }],
  [RDB.HASH_LISTPACK_EX_PRE_GA, { type: 'hash', since: 12 }],
  [RDB.HASH_METADATA, { type: 'hash', since: 12 }],
  [RDB.HASH_LISTPACK_EX, { type: 'hash', since: 12 }],
]);

/** Undefined when the number is no format of a value. */
export function formatOf(rdbType: number): Format | undefined {
  return FORMATS.get(rdbType);
}

/** The RDB version that a server of this Redis version writes, and the newest that it takes by RESTORE. */
export function rdbVersionOf(redisVersion: string): number {
  const [major = 0, minor = 0] = redisVersion.split('.').map(Number);
  if (major >= 8 || (major === 7 && minor >= 4)) return 12;
  if (major === 7) return minor >= 2 ? 11 : 10;
  if (major >= 5) return 9;
  return major === 4 ? 8 : 7;
}
