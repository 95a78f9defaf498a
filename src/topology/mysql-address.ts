import net from 'node:net';
import { certificatesOf } from './certificates.js';
import type { MysqlStore, SecretReference, Tls } from './schema.js';

/** Where a MySQL server is, and how to get in. Plain data. */
export interface MysqlAddress {
  host: string;
  port: number;
  user: string;
  password: string;
  tls?: Tls;
}

export function mysqlAddress(
  store: MysqlStore,
  secret: (reference: SecretReference) => string,
): MysqlAddress {
  const { host, port, user, password, tls } = store;
  return { host, port, user, password: secret(password), ...(tls !== undefined && { tls }) };
}

/** What mysql2 is told of a server; every connection of Interlock to one begins with it. */
export interface MysqlConnectionOptions {
  host: string;
  port: number;
  user: string;
  password: string;
  ssl?: {
    ca: string;
    cert?: string;
    key?: string;
    rejectUnauthorized: true;
    verifyIdentity: true;
    minVersion: 'TLSv1.2';
  };
  stream?: () => net.Socket;
}

/**
 * Hazard: mysql2 checks no name of the server by default, and any server with a certificate of the same CA would do. Guard: the certificate must
 * name `serverName`, else `host`. Certificates are read anew each time: they are renewed while Interlock runs.
 * @throws InterlockError BadInput: a file cannot be read
 */
export function mysqlConnectionOptions(address: MysqlAddress): MysqlConnectionOptions {
  const { host, port, user, password, tls } = address;
  if (tls === undefined) return { host, port, user, password };
  const ssl = {
    ...certificatesOf(tls),
    rejectUnauthorized: true,
    verifyIdentity: true,
    minVersion: 'TLSv1.2',
  } as const;
  const name = tls.serverName ?? host;
  if (name === host) return { host, port, user, password, ssl };
  // mysql2 knows one name, which it both connects to and checks.
  const stream = (): net.Socket => net.connect({ host, port, noDelay: true, keepAlive: true });
  return { host: name, port, user, password, ssl, stream };
}

/** What is wrong with the encryption, in words; undefined when the failure is another. */
export function tlsProblem(error: unknown): string | undefined {
  const { code, message } = error as { code?: string; message?: string };
  if (code === 'HANDSHAKE_NO_SSL_SUPPORT')
    return 'it does not speak TLS, and the topology wants it (tls): switch TLS on there';
  if (code === 'HANDSHAKE_SSL_ERROR')
    return `TLS: ${message}: its certificate must be of the CA in tls.ca, and name tls.serverName (else host)`;
  return undefined;
}
