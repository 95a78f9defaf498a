import type { RedisStore, SecretReference, Tls } from './schema.js';

/** Where a Redis server is, and how to get in. Plain data. */
export interface RedisAddress {
  host: string;
  port: number;
  /** An ACL user; without it, `password` is that of the default user. */
  user?: string;
  password?: string;
  tls?: Tls;
}

export function redisAddress(
  { host, port, user, password, tls }: RedisStore,
  secret: (reference: SecretReference) => string,
): RedisAddress {
  return {
    ...{ host, port },
    ...(user !== undefined && { user }),
    ...(password !== undefined && { password: secret(password) }),
    ...(tls !== undefined && { tls }),
  };
}
