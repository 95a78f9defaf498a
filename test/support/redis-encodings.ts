import { randomBytes } from 'node:crypto';
import type { Redis } from 'ioredis';
import { redisClient } from './redis-dataset.js';

const LIBRARY = `#!lua name=golden
redis.register_function('twice', function(keys, args) return 2 * args[1] end)`;

const FAR_MS = Date.UTC(2100, 0, 1) + 123;

/** Puts every type in every encoding that the server has, on both sides of each threshold, into three databases. */
export async function fillWithEveryEncoding(port: number): Promise<void> {
  const client = redisClient(port);
  try {
    await client.call('FUNCTION', 'LOAD', 'REPLACE', LIBRARY);
    await strings(client);
    await lists(client);
    await sets(client);
    await sortedSets(client);
    await hashes(client);
    await streams(client);
    await client.select(3);
    await client.call('SET', 'k', 'of database 3', 'PXAT', FAR_MS);
    await client.select(15);
    await client.call('RPUSH', 'list', 'of', 'database', '15');
    await client.call('PEXPIREAT', 'list', FAR_MS + 1);
  } finally {
    client.disconnect();
  }
}

function times(count: number, element: (index: number) => string): string[] {
  return Array.from({ length: count }, (_, index) => element(index));
}

async function strings(client: Redis): Promise<void> {
  for (const length of [0, 1, 20, 21, 63, 64, 65, 16_383, 16_384, 16_385, 300_000]) {
    await client.set(`string:repeated:${length}`, 'ab'.repeat(length / 2 + 1).slice(0, length));
    await client.set(`string:random:${length}`, randomBytes(length));
  }
  // Compressible with far and long references, and literals between them.
  const block = randomBytes(5_000);
  await client.set(
    'string:references',
    Buffer.concat(times(60, () => '').map((_, index) => Buffer.concat([block, Buffer.from([index])]))),
  );
  const powers = [7, 8, 15, 16, 31, 32, 63].flatMap((bits) => [
    2n ** BigInt(bits) - 1n,
    -(2n ** BigInt(bits)),
  ]);
  for (const value of [0n, -1n, ...powers, ...powers.map((power) => power + 1n)])
    await client.set(`string:int:${value}`, String(value));
  await client.set(Buffer.from([0, 13, 10, 255, 36]), Buffer.from([13, 10, 0, 128]));
  await client.set('123456', 'a key that is a number');
  await client.set('k'.repeat(300), 'a key that is compressed');
  await client.call('SET', 'string:expires', 'v', 'PXAT', FAR_MS);
  await client.call('SETBIT', 'string:bitmap', 100_000, 1);
  await client.call('PFADD', 'string:hyperloglog', ...times(2_000, String));
}

async function lists(client: Redis): Promise<void> {
  const mixed = (index: number): string =>
    index % 3 === 0 ? String(index * 7919 - 100_000) : `element ${index}`;
  for (const count of [1, 127, 128, 129, 2_000]) await client.rpush(`list:${count}`, ...times(count, mixed));
  const numbers = [
    0,
    127,
    128,
    -1,
    4095,
    4096,
    -4096,
    -4097,
    32_767,
    -32_769,
    8_388_607,
    8_388_608,
    -8_388_609,
    2 ** 31,
    -(2 ** 31) - 1,
  ];
  await client.rpush(
    'list:numbers',
    ...numbers,
    '9223372036854775807',
    '-9223372036854775808',
    '9223372036854775808',
    '007',
    '-0',
    '+1',
  );
  await client.rpush(
    'list:lengths',
    ...[0, 63, 64, 127, 128, 4_095, 4_096, 8_191, 8_192, 8_193, 70_000].map((length) => 'x'.repeat(length)),
  );
  await client.rpush('list:plain', randomBytes(20_000), 'small', randomBytes(9_000), 'y'.repeat(40_000));
  await client.rpush('list:expires', 'a');
  await client.pexpireat('list:expires', FAR_MS);
}

async function sets(client: Redis): Promise<void> {
  await client.sadd('set:int16', ...times(50, (index) => String(index * 601 - 15_000)));
  await client.sadd('set:int32', '1', '-2147483648', '2147483647', '40000');
  await client.sadd('set:int64', '1', '-9223372036854775808', '9223372036854775807');
  for (const count of [1, 511, 512, 513, 2_000])
    await client.sadd(`set:ints:${count}`, ...times(count, String));
  for (const count of [1, 127, 128, 129, 2_000])
    await client.sadd(`set:words:${count}`, ...times(count, (index) => `w${index}`));
  await client.sadd('set:long', 'a', 'b'.repeat(65), 'c'.repeat(20_000));
}

async function sortedSets(client: Redis): Promise<void> {
  const scores = [
    '0',
    '-0',
    '1',
    '-1',
    '0.1',
    '3.3333333333333335',
    '1e308',
    '1.7976931348623157e308',
    '5e-324',
    '-2.2250738585072014e-308',
    'inf',
    '-inf',
    '9007199254740993',
    '123456789012345680',
    '-17.5',
  ];
  for (const count of [scores.length, 127, 128, 129, 2_000]) {
    const pairs = times(count, String).flatMap((index) => [
      scores[Number(index)] ?? String(Number(index) / 7),
      `member ${index}`,
    ]);
    await client.zadd(`zset:${count}`, ...pairs);
  }
  await client.zadd('zset:long', '1.5', 'm'.repeat(65), '2', '42');
  await client.call('GEOADD', 'zset:geo', 13.361389, 38.115556, 'Palermo', 15.087269, 37.502669, 'Catania');
}

async function hashes(client: Redis): Promise<void> {
  for (const count of [1, 127, 128, 129, 511, 512, 513, 2_000]) {
    await client.hset(
      `hash:${count}`,
      ...times(count, String).flatMap((index) => [
        `field ${index}`,
        Number(index) % 2 === 0 ? index : `value ${index}`,
      ]),
    );
  }
  for (const length of [0, 64, 65, 5_000])
    await client.hset(`hash:value:${length}`, 'f', 'v'.repeat(length), 'g', '1');
  await client.hset('hash:expires', 'f', 'v');
  await client.pexpireat('hash:expires', FAR_MS);
}

async function streams(client: Redis): Promise<void> {
  for (const count of [1, 99, 100, 101, 450]) {
    for (let index = 1; index <= count; index += 1) {
      const fields =
        index % 10 === 0
          ? ['other', String(index), 'fields', 'x'.repeat(index)]
          : ['a', String(index), 'b', 'v'];
      await client.xadd(`stream:${count}`, `${1_700_000_000_000 + index * 3}-${index}`, ...fields);
    }
  }
  await client.call('XDEL', 'stream:450', '1700000000150-50', '1700000000153-51', '1700000001350-450');
  await client.xadd('stream:ids', '0-1', 'f', 'v');
  await client.xadd('stream:ids', '18446744073709551614-18446744073709551615', 'f', 'v');
  await client.call(
    'XSETID',
    'stream:101',
    '1800000000000-7',
    'ENTRIESADDED',
    '5000',
    'MAXDELETEDID',
    '1700000000001-0',
  );
  // Groups that have read all, some, none; consumers with and without pending entries, delivered at different times and counts.
  await client.call('XGROUP', 'CREATE', 'stream:450', 'all', '0');
  await client.call('XREADGROUP', 'GROUP', 'all', 'c1', 'COUNT', '300', 'STREAMS', 'stream:450', '>');
  await client.call('XREADGROUP', 'GROUP', 'all', 'c2', 'STREAMS', 'stream:450', '>');
  await client.call('XACK', 'stream:450', 'all', '1700000000003-1', '1700000000006-2');
  await client.call(
    'XCLAIM',
    'stream:450',
    'all',
    'c3',
    '0',
    '1700000000009-3',
    'TIME',
    '1600000000000',
    'RETRYCOUNT',
    '70000',
  );
  await client.call(
    ...(['XCLAIM', 'stream:450', 'all', 'c1', '0', '1700000000012-4'] as const),
    ...['TIME', '1600000000001', 'RETRYCOUNT', '2'],
  );
  await client.call('XGROUP', 'CREATECONSUMER', 'stream:450', 'all', 'idle');
  await client.call('XGROUP', 'CREATE', 'stream:450', 'none', '$');
  await client.call('XGROUP', 'CREATE', 'stream:450', 'from the middle', '1700000000300-0');
  await client.call('XADD', 'stream:pending and deleted', '7-1', 'f', 'v');
  await client.call('XADD', 'stream:pending and deleted', '7-2', 'f', 'v');
  await client.call('XGROUP', 'CREATE', 'stream:pending and deleted', 'g', '0');
  await client.call('XREADGROUP', 'GROUP', 'g', 'c', 'STREAMS', 'stream:pending and deleted', '>');
  await client.call('XDEL', 'stream:pending and deleted', '7-1');
  await client.call('XGROUP', 'CREATE', 'stream:empty with a group', 'g', '0', 'MKSTREAM');
  await client.call('XADD', 'stream:emptied', '5-5', 'f', 'v');
  await client.call('XDEL', 'stream:emptied', '5-5');
  await client.call('XGROUP', 'CREATE', 'stream:never', 'g', '0', 'MKSTREAM');
  await client.call('XGROUP', 'DESTROY', 'stream:never', 'g');
  await client.pexpireat('stream:1', FAR_MS);
}
