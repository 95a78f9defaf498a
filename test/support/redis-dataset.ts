import { Redis } from 'ioredis';

/** A client for one test; the caller disconnects it. Integers come as text, so that none is rounded. */
export function redisClient(port: number, db = 0): Redis {
  return new Redis({ host: '127.0.0.1', port, db, stringNumbers: true, maxRetriesPerRequest: null });
}

export interface KeyImage {
  type: string;
  encoding: string;
  /** Of the value; the order of fields and members does not count. */
  digest: string;
  expireAtMs: string;
  /** XINFO STREAM FULL, without what depends on how the stream is stored, and on when a consumer was seen. */
  stream?: unknown;
}

/** `db/key in hex` → all that can be known of the key. */
export async function dataset(
  port: number,
  databases: readonly number[] = [0],
): Promise<Map<string, KeyImage>> {
  const images = new Map<string, KeyImage>();
  for (const db of databases) {
    const client = redisClient(port, db);
    try {
      let cursor = '0';
      do {
        const [next, keys] = (await client.callBuffer('SCAN', cursor, 'COUNT', '1000')) as [Buffer, Buffer[]];
        cursor = next.toString();
        const found = await Promise.all(keys.map((key) => keyImage(client, key)));
        for (const [index, key] of keys.entries()) images.set(`${db}/${key.toString('hex')}`, found[index]!);
      } while (cursor !== '0');
    } finally {
      client.disconnect();
    }
  }
  return images;
}

async function keyImage(client: Redis, key: Buffer): Promise<KeyImage> {
  const [type, encoding, [digest], expireAtMs] = await Promise.all([
    client.call('TYPE', key) as Promise<string>,
    client.call('OBJECT', 'ENCODING', key) as Promise<string>,
    client.call('DEBUG', 'DIGEST-VALUE', key) as Promise<[string]>,
    client.call('PEXPIRETIME', key) as Promise<string>,
  ]);
  const stream =
    type === 'stream'
      ? withoutChance(await client.call('XINFO', 'STREAM', key, 'FULL', 'COUNT', '0'))
      : undefined;
  return { type, encoding, digest, expireAtMs, ...(stream !== undefined && { stream }) };
}

const CHANCE = new Set(['radix-tree-keys', 'radix-tree-nodes', 'seen-time', 'active-time']);

/** Lists of names and values in turn become objects. */
function withoutChance(value: unknown): unknown {
  if (!Array.isArray(value)) return value;
  const named =
    value.length > 0 &&
    value.length % 2 === 0 &&
    value.every((one, index) => index % 2 === 1 || typeof one === 'string');
  if (!named || /^\d+-\d+$/.test(String(value[0]))) return value.map(withoutChance);
  return Object.fromEntries(
    value.flatMap((name, index) =>
      index % 2 === 0 && !CHANCE.has(String(name)) ? [[String(name), withoutChance(value[index + 1])]] : [],
    ),
  );
}
