import { UNITS_KEY } from './redis-units.js';

/** Given to ACL DRYRUN: with as many arguments as they need. */
type Commands = readonly (readonly string[])[];

const TRANSACTION: Commands = [['WATCH', 'any'], ['UNWATCH'], ['MULTI'], ['EXEC']];

/** What Interlock's account runs, by what for. Preflight asks for all of it; tests run links, verification and fences with nothing else. */
export const REDIS_RIGHTS = {
  'read the replication stream': [
    ...[['PSYNC', '?', '-1'], ['REPLCONF', 'ACK', '0'], ['INFO'], ['TIME'], ['COMMAND']],
    ...[
      ['GET', 'interlock:marker'],
      ['HGETALL', UNITS_KEY],
      ['MULTI'],
      ['EXEC'],
      ['SET', 'interlock:begin', ''],
    ],
  ],
  'take keys again': [
    ['SELECT', '0'],
    ['MULTI'],
    ['MEMORY', 'USAGE', 'any'],
    ['DUMP', 'any'],
    ['PEXPIRETIME', 'any'],
    ['SET', 'interlock:passage', ''],
    ['EXEC'],
  ],
  'apply commands with their position': [
    ...TRANSACTION,
    ...[
      ['PING'],
      ['INFO'],
      ['TIME'],
      ['SELECT', '0'],
      ['CONFIG', 'GET', 'databases'],
      ['EVAL', 'return 1', '0'],
    ],
    ...[
      ['GET', 'any'],
      ['SET', 'any', ''],
      ['DEL', 'any'],
      ['HGET', 'any', 'f'],
      ['HGETALL', 'any'],
    ],
    ...[
      ['HKEYS', 'any'],
      ['HVALS', 'any'],
      ['HLEN', 'any'],
      ['HSET', 'any', 'f', 'v'],
      ['HDEL', 'any', 'f'],
    ],
    ...[
      ['LPUSH', 'any', 'v'],
      ['LTRIM', 'any', '0', '1'],
      ['LRANGE', 'any', '0', '1'],
    ],
    ...[
      ['SADD', 'any', 'm'],
      ['SREM', 'any', 'm'],
      ['SMEMBERS', 'any'],
    ],
  ],
  'apply a copy': [
    ...[
      ['RESTORE', 'any', '0', ''],
      ['UNLINK', 'any'],
      ['SCAN', '0'],
      ['KEYS', 'interlock:*'],
    ],
    ...[['FUNCTION', 'LOAD', 'REPLACE', '']],
  ],
  'change unit states': [
    ...[
      ['EVALSHA', '0'.repeat(40), '1', UNITS_KEY],
      ['EVAL', 'return 1', '1', UNITS_KEY],
    ],
    ...[
      ['SCRIPT', 'LOAD', 'return 1'],
      ['HSET', UNITS_KEY, 'unit', 'state'],
      ['HGET', UNITS_KEY, 'unit'],
    ],
  ],
  verify: [
    ...TRANSACTION,
    ...[
      ['SELECT', '0'],
      ['INFO'],
      ['TIME'],
      ['SCAN', '0'],
      ['MEMORY', 'USAGE', 'any'],
      ['SET', 'interlock:passage', ''],
    ],
    ...[
      ['EXISTS', 'any'],
      ['TYPE', 'any'],
      ['PTTL', 'any'],
      ['PEXPIRETIME', 'any'],
    ],
    ...[
      ['GET', 'any'],
      ['GETRANGE', 'any', '0', '1'],
      ['STRLEN', 'any'],
    ],
    ...[
      ['LRANGE', 'any', '0', '1'],
      ['LLEN', 'any'],
      ['ZRANGE', 'any', '0', '1'],
      ['ZCARD', 'any'],
    ],
    ...[
      ['SMEMBERS', 'any'],
      ['SSCAN', 'any', '0'],
      ['SISMEMBER', 'any', 'm'],
      ['SCARD', 'any'],
    ],
    ...[
      ['HGETALL', 'any'],
      ['HSCAN', 'any', '0'],
      ['HGET', 'any', 'f'],
      ['HLEN', 'any'],
    ],
    ...[
      ['XRANGE', 'any', '-', '+'],
      ['XLEN', 'any'],
      ['XINFO', 'STREAM', 'any'],
      ['XINFO', 'GROUPS', 'any'],
    ],
    ...[
      ['XINFO', 'CONSUMERS', 'any', 'g'],
      ['XPENDING', 'any', 'g'],
    ],
  ],
  repair: [
    ['DUMP', 'any'],
    ['RESTORE', 'any', '0', ''],
    ['SET', 'any', ''],
    ['DEL', 'any'],
    ['HGET', UNITS_KEY, 'u'],
  ],
} as const satisfies Record<string, Commands>;
