import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from 'node:crypto';
import { InterlockError } from '../../../src/errors.js';
import type { Api, Connection } from './connection.js';
import { check } from './protocol-errors.js';

export interface SaslOptions {
  mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
  username: string;
  password: string;
}

/** Proves to a broker who this is, before anything else is asked on the connection. */
export async function authenticate(connection: Connection, options: SaslOptions): Promise<void> {
  const { mechanism, username, password } = options;
  await connection.call(handshake(mechanism.toUpperCase()));
  if (mechanism === 'plain') {
    await connection.call(token(Buffer.from(`\0${username}\0${password}`)));
    return;
  }
  await scram(connection, mechanism === 'scram-sha-256' ? 'sha256' : 'sha512', username, password);
}

/** RFC 5802, without channel binding. */
async function scram(
  connection: Connection,
  hash: string,
  username: string,
  password: string,
): Promise<void> {
  const nonce = randomBytes(18).toString('base64');
  const first = `n=${username.replaceAll('=', '=3D').replaceAll(',', '=2C')},r=${nonce}`;
  const challenge = (await connection.call(token(Buffer.from(`n,,${first}`)))).toString();
  const { r = '', s = '', i = '' } = fields(challenge);
  if (!r.startsWith(nonce)) throw refused(connection, 'its nonce does not begin with ours');
  const bytes = hash === 'sha256' ? 32 : 64;
  const salted = pbkdf2Sync(password, Buffer.from(s, 'base64'), Number(i), bytes, hash);
  const hmac = (key: Buffer, text: string): Buffer => createHmac(hash, key).update(text).digest();
  const clientKey = hmac(salted, 'Client Key');
  const stored = createHash(hash).update(clientKey).digest();
  const final = `c=biws,r=${r}`;
  const message = `${first},${challenge},${final}`;
  const signature = hmac(stored, message);
  const proof = Buffer.from(clientKey.map((byte, at) => byte ^ signature[at]!)).toString('base64');
  const answer = fields((await connection.call(token(Buffer.from(`${final},p=${proof}`)))).toString());
  const expected = hmac(hmac(salted, 'Server Key'), message);
  const given = Buffer.from(answer['v'] ?? '', 'base64');
  if (given.length !== expected.length || !timingSafeEqual(given, expected))
    throw refused(connection, 'it does not know the password itself');
}

function fields(text: string): Record<string, string> {
  return Object.fromEntries(text.split(',').map((part) => [part.slice(0, 1), part.slice(2)]));
}

function refused(connection: Connection, why: string): InterlockError {
  return new InterlockError('Refused', `${connection.address} was not believed: ${why}`);
}

function handshake(mechanism: string): Api<void> {
  return {
    key: 17,
    version: 1,
    name: 'SaslHandshake',
    write: (w) => void w.string(mechanism),
    read: (r) => {
      const code = r.int16();
      const known = r.array(() => r.string());
      check(code, `SASL ${mechanism}`, `the broker knows ${known.join(', ')}`);
    },
  };
}

function token(bytes: Buffer): Api<Buffer> {
  return {
    key: 36,
    version: 1,
    name: 'SaslAuthenticate',
    write: (w) => void w.bytes(bytes),
    read: (r) => {
      const code = r.int16();
      check(code, 'SASL', r.nullableString());
      return r.bytes() ?? Buffer.alloc(0);
    },
  };
}
