import { afterAll, beforeAll, expect, it } from 'vitest';
import { dataset } from '../support/redis-dataset.js';
import { passMarker, redisLinkConfig, startRedisLink, startRedisPair } from '../support/redis-link.js';
import type { RedisPair, RedisSide, RunningRedisLink } from '../support/redis-link.js';

let pair: RedisPair;
let links: RunningRedisLink[];

beforeAll(async () => {
  pair = await startRedisPair({ 'repl-diskless-sync-delay': '0', 'repl-backlog-size': '64mb' });
  links = [
    await startRedisLink(redisLinkConfig(pair, 'a', { minTtlMs: 0 })),
    await startRedisLink(redisLinkConfig(pair, 'b', { minTtlMs: 0 })),
  ];
});
afterAll(async () => {
  for (const link of links ?? []) await link.stop();
  await pair?.stop();
});

type Command = (string | number)[];

/** Every command that writes, in the forms that replicate differently; `p` keeps the keys of the two sides apart. */
function families(p: string, i: number): Command[] {
  const k = (name: string): string => `${p}:${name}`;
  const later = Date.now() + 1_000_000;
  return [
    ['SET', k('s'), `v${i}`],
    ['SET', k('s:ex'), i, 'EX', 1000],
    ['SET', k('s:get'), i, 'GET'],
    ['SET', k('s:nx'), i, 'NX'],
    ['SET', k('s:ex'), i, 'KEEPTTL'],
    ['SETEX', k('s:setex'), 1000, i],
    ['PSETEX', k('s:psetex'), 1_000_000, i],
    ['SETNX', k('s:setnx'), i],
    ['GETSET', k('s:getset'), i],
    ['MSET', k('m1'), i, k('m2'), i],
    ['MSETNX', k('m3'), i, k('m4'), i],
    ['APPEND', k('s:append'), i],
    ['SETRANGE', k('s:range'), i % 50, 'abc'],
    ['SETBIT', k('s:bit'), i % 200, i % 2],
    ['BITFIELD', k('s:bf'), 'INCRBY', 'u8', i % 64, 3],
    ['BITOP', 'XOR', k('s:bitop'), k('s:bit'), k('s:bf')],
    ['INCR', k('n')],
    ['DECRBY', k('n'), 3],
    ['INCRBYFLOAT', k('f'), '0.1'],
    ['GETDEL', k('s:setnx')],
    ['GETEX', k('s:psetex'), 'EX', 5000],
    ['GETEX', k('s:setex'), 'PERSIST'],
    ['LPUSH', k('l'), i, `x${i}`],
    ['RPUSH', k('l'), 'y'.repeat(100)],
    ['LPUSHX', k('l'), 'z'],
    ['LINSERT', k('l'), 'BEFORE', i, 'before'],
    ['LSET', k('l'), 0, 'first'],
    ['LREM', k('l'), 1, `x${i - 3}`],
    ['LTRIM', k('l'), 0, 500],
    ['LPOP', k('l'), 2],
    ['RPOPLPUSH', k('l'), k('l2')],
    ['LMOVE', k('l'), k('l2'), 'LEFT', 'RIGHT'],
    ['LMPOP', 2, k('none'), k('l2'), 'LEFT', 'COUNT', 2],
    ['BLPOP', k('l'), '0.01'],
    ['BLMOVE', k('l'), k('l2'), 'LEFT', 'LEFT', '0.01'],
    ['SADD', k('set'), i, i + 1, 'text'],
    ['SADD', k('set2'), i, i + 2],
    ['SPOP', k('set')],
    ['SPOP', k('set2'), 2],
    ['SREM', k('set'), 'text'],
    ['SMOVE', k('set'), k('set2'), i],
    ['SUNIONSTORE', k('set3'), k('set'), k('set2')],
    ['SINTERSTORE', k('set4'), k('set'), k('set2')],
    ['SDIFFSTORE', k('set5'), k('set'), k('set2')],
    ['ZADD', k('z'), i / 3, `m${i % 40}`, '-inf', 'low'],
    ['ZADD', k('z'), 'GT', 'INCR', 1, `m${i % 40}`],
    ['ZINCRBY', k('z'), '1.25', 'inc'],
    ['ZPOPMAX', k('z')],
    ['ZMPOP', 1, k('z'), 'MIN'],
    ['ZREM', k('z'), `m${i % 7}`],
    ['ZREMRANGEBYRANK', k('z'), 30, 31],
    ['ZREMRANGEBYSCORE', k('z'), 3, 4],
    ['ZADD', k('zl'), 0, `a${i % 30}`, 0, 'b'],
    ['ZREMRANGEBYLEX', k('zl'), '[a1', '[a2'],
    ['ZRANGESTORE', k('z2'), k('z'), 0, 5],
    ['ZUNIONSTORE', k('z3'), 2, k('z'), k('zl'), 'WEIGHTS', 1, 2],
    ['ZINTERSTORE', k('z4'), 2, k('z'), k('z2')],
    ['ZDIFFSTORE', k('z5'), 2, k('z'), k('z2')],
    ['HSET', k('h'), `f${i % 60}`, i, 'g', 'v'.repeat(80)],
    ['HSETNX', k('h'), `nx${i % 5}`, i],
    ['HINCRBY', k('h'), 'n', 2],
    ['HINCRBYFLOAT', k('h'), 'f', '0.5'],
    ['HDEL', k('h'), `f${(i + 30) % 60}`],
    ['GEOADD', k('g'), 13.361389, 38.115556, `p${i % 9}`, 15.087269, 37.502669, 'q'],
    ['GEOSEARCHSTORE', k('g2'), k('g'), 'FROMLONLAT', 15, 37, 'BYRADIUS', 200, 'km'],
    ['GEORADIUS', k('g'), 15, 37, 200, 'km', 'STORE', k('g3')],
    ['PFADD', k('hll'), i],
    ['PFADD', k('hll2'), i * 7],
    ['PFMERGE', k('hll3'), k('hll'), k('hll2')],
    ['XADD', k('x'), '*', 'f', i],
    ['XADD', k('x'), 'MAXLEN', '~', 100, '*', 'f', i, 'g', 'v'],
    ['XGROUP', 'CREATE', k('x'), `g${i % 3}`, '0'],
    ['XGROUP', 'CREATECONSUMER', k('x'), 'g0', `c${i % 4}`],
    ['XREADGROUP', 'GROUP', 'g0', `c${i % 4}`, 'COUNT', 2, 'STREAMS', k('x'), '>'],
    ['XCLAIM', k('x'), 'g0', 'c9', 0, '0-1'],
    ['XAUTOCLAIM', k('x'), 'g0', 'c8', 0, '0', 'COUNT', 1],
    ['XTRIM', k('x'), 'MAXLEN', 90],
    ['XSETID', k('x'), '99999999999999-1'],
    ['XGROUP', 'SETID', k('x'), 'g1', '$'],
    ['XGROUP', 'DELCONSUMER', k('x'), 'g0', 'c3'],
    ['DEL', k('x:gone')],
    ['SORT', k('l'), 'ALPHA', 'LIMIT', 0, 5, 'STORE', k('sorted')],
    ['COPY', k('h'), k('h:copy'), 'REPLACE'],
    ['COPY', k('h'), k('h:copy'), 'DB', 1, 'REPLACE'],
    ['SET', k(`move${i}`), i],
    ['MOVE', k(`move${i}`), 1],
    ['RENAME', k('m3'), k('m5')],
    ['RENAMENX', k('m4'), k('m6')],
    ['EXPIRE', k('h'), 5000],
    ['PEXPIREAT', k('set'), later],
    ['EXPIREAT', k('z'), Math.floor(later / 1000), 'NX'],
    ['PERSIST', k('set')],
    ['EXPIRE', k('m2'), -1],
    [
      'EVAL',
      "redis.call('INCR',KEYS[1]) redis.call('LPUSH',KEYS[2],redis.call('INCR',KEYS[1])) return 1",
      2,
      k('e:n'),
      k('e:l'),
    ],
    ['EVAL', "return redis.call('SPOP',KEYS[1])", 1, k('set3')],
    ['FCALL', 'bump', 1, k('fn')],
    ['PUBLISH', k('channel'), i],
    ['UNLINK', k('m1'), k('none')],
  ];
}

// A counter of what a group has read: a replica of Redis itself does not get it in every case either.
const ESTIMATE = /"(entries-read|lag)":[^,}]*,?/g;

const LIBRARY =
  "#!lua name=lib\nredis.register_function('bump', function(keys) return redis.call('INCR', keys[1]) end)";

it('carries every family of writes, both ways at once, one by one, pipelined and in transactions', async () => {
  const refused = new Set<string>();
  const write = async (side: RedisSide, p: string): Promise<void> => {
    for (let i = 0; i < 45; i++) {
      const commands = families(p, i);
      if (i % 3 === 2) await side.client.askAll([['MULTI'], ...commands, ['EXEC']]);
      else if (i % 3 === 1) await side.client.askAll(commands);
      else
        for (const command of commands) {
          const reply = await side.client.ask(...command);
          if (reply !== null && typeof reply === 'object' && 'message' in reply)
            refused.add(`${command[0]}: ${reply.message}`);
        }
    }
  };
  await pair.a.run('FUNCTION', 'LOAD', LIBRARY);
  await passMarker(pair.a, pair.b, links[0]!.config.link);
  await Promise.all([write(pair.a, 'a'), write(pair.b, 'b')]);
  await passMarker(pair.a, pair.b, links[0]!.config.link);
  await passMarker(pair.b, pair.a, links[1]!.config.link);
  await passMarker(pair.a, pair.b, links[0]!.config.link);
  // What the source itself refuses is not carried: the list is not to hide a command that is written wrongly here.
  expect(
    [...refused].filter(
      (one) => !/BUSYGROUP|NOGROUP|no such key|smaller than|ID specified|index out of range/.test(one),
    ),
  ).toEqual([]);
  const images = async (side: RedisSide): Promise<[string, unknown][]> => {
    const found = await dataset(side.server.port, [0, 1]);
    return [...found]
      .filter(([key]) => !Buffer.from(key.slice(2), 'hex').toString().startsWith('interlock:'))
      .map(([key, { type, digest, expireAtMs, stream }]): [string, unknown] => [
        `${key.slice(0, 2)}${Buffer.from(key.slice(2), 'hex').toString()}`,
        { type, digest, expireAtMs, stream: JSON.stringify(stream)?.replaceAll(ESTIMATE, '') },
      ])
      .sort(([a], [b]) => (a < b ? -1 : 1));
  };
  const [a, b] = await Promise.all([images(pair.a), images(pair.b)]);
  expect(a.length).toBeGreaterThan(100);
  expect(b).toEqual(a);
  expect(links.map((link) => link.status().quarantined)).toEqual([0, 0]);
});
