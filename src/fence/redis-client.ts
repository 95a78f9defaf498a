import { Redis, ReplyError } from 'ioredis';
import type { RedisOptions } from 'ioredis';
import { InterlockError, messageOf } from '../errors.js';
import { certificatesOf } from '../topology/certificates.js';
import type { RedisAddress } from '../topology/redis-address.js';

const CONNECT_TIMEOUT_MS = 3_000;
/** No command of Interlock takes so long: the server is gone, or stands still. */
const COMMAND_TIMEOUT_MS = 3_000;
const RETRY_MS = { first: 20, most: 500 };
const COMMAND_RETRIES = 2;

/**
 * A client for Interlock's own account, connected on first use; it connects again by itself. Hazard: a command that is sent again by the client
 * may be carried out twice. Guard: what was sent and not answered is an error, and the caller decides.
 */
export function openRedis(address: RedisAddress, name: string): Redis {
  const client = new Redis({
    ...redisConnectionOptions(address),
    connectionName: name,
    lazyConnect: true,
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: COMMAND_TIMEOUT_MS,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: COMMAND_RETRIES,
    retryStrategy: (times) => Math.min(RETRY_MS.first * times, RETRY_MS.most),
  });
  // Each command says so itself.
  client.on('error', () => undefined);
  return client;
}

/** What ioredis is told of a server. Certificates are read anew each time. @throws InterlockError BadInput: a file cannot be read */
export function redisConnectionOptions({ host, port, user, password, tls }: RedisAddress): RedisOptions {
  return {
    ...{ host, port },
    ...(user !== undefined && { username: user }),
    ...(password !== undefined && { password }),
    ...(tls !== undefined && {
      tls: {
        ...certificatesOf(tls),
        servername: tls.serverName ?? host,
        rejectUnauthorized: true,
        minVersion: 'TLSv1.2',
      },
    }),
  };
}

/** Passing by themselves. */
const PASSING = /^(LOADING|BUSY|MASTERDOWN|TRYAGAIN|CLUSTERDOWN)\b/;

/** What a failure of a Redis store means to a caller; an InterlockError is passed through. */
export function redisUnavailable(store: string, error: unknown): InterlockError {
  if (error instanceof InterlockError) return error;
  const message = messageOf(error);
  const details = { what: store };
  if (!(error instanceof ReplyError) || PASSING.test(message)) {
    return new InterlockError('Unavailable', `${store} does not answer: ${message}`, {
      ...{ cause: error, retryable: true, details },
    });
  }
  const rights = /^(NOAUTH|WRONGPASS|NOPERM)\b/.test(message);
  const hint = rights ? '. Look at user and password of the store in the topology, and at its ACL' : '';
  return new InterlockError(rights ? 'Refused' : 'Internal', `${store}: ${message}${hint}`, {
    cause: error,
    details,
  });
}

/** A line of INFO. */
export function infoField(info: string, field: string): string | undefined {
  return new RegExp(`^${field}:(.*?)\\r?$`, 'm').exec(info)?.[1];
}
