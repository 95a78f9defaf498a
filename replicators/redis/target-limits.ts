import { textOf } from './connection.js';
import type { RedisConnection } from './connection.js';
import type { DecodedValue } from './rdb/events.js';
import { rdbVersionOf } from './rdb/types.js';
import { info } from './source-info.js';

/** What the target takes. Above the sizes, it closes the connection instead of answering. */
export interface TargetLimits {
  /** It has the databases 0 to this less one. */
  databases: number;
  /** The newest format of values that it takes. */
  rdbVersion: number;
  /** Of one argument (`proto-max-bulk-len`). */
  argumentBytes: number;
  /** Of one transaction (`client-query-buffer-limit`). */
  transactionBytes: number;
}

/** A server has so many when nobody says otherwise. */
const DATABASES = 16;
const MB = 1024 * 1024;

/** Not every user may ask: then these are what a server takes when nobody says otherwise. */
export async function targetLimits(target: RedisConnection): Promise<TargetLimits> {
  const version = (await info(target, 'server')).get('redis_version') ?? '7.0.0';
  const names = ['databases', 'proto-max-bulk-len', 'client-query-buffer-limit'];
  const said = await target.askAll(names.map((name) => ['CONFIG', 'GET', name]));
  const [databases, argument, transaction] = said.map((reply) =>
    Array.isArray(reply) ? Number(textOf(reply[1])) : NaN,
  );
  const known = (value: number | undefined, otherwise: number): number =>
    Number.isSafeInteger(value) && value! > 0 ? value! : otherwise;
  return {
    databases: known(databases, DATABASES),
    rdbVersion: rdbVersionOf(version),
    argumentBytes: known(argument, 512 * MB),
    transactionBytes: known(transaction, 1024 * MB),
  };
}

/** Of what makes a value, or a piece of one. */
export function longestArgument({ commands }: DecodedValue): number {
  let most = 0;
  for (const command of commands) for (const argument of command) most = Math.max(most, argument.length);
  return most;
}

/** What it adds to a string; 0 for values of other types. */
export function stringBytes({ type, commands }: DecodedValue): number {
  if (type !== 'string') return 0;
  const parts = commands.filter(([name]) => ['SET', 'APPEND'].includes((name as Buffer).toString()));
  return parts.reduce((sum, [, , part]) => sum + part!.length, 0);
}

/** Why the target cannot take an argument, or an element of a value, and what to do. */
export function tooLarge(bytes: number, { argumentBytes }: TargetLimits): string {
  return `${bytes} bytes in one argument; the target takes ${argumentBytes} (proto-max-bulk-len): CONFIG SET it there as at the source, start the link again, then \`interlock verify redis --repair\``;
}
