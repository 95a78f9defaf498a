import type { LinkKind } from '../core/contract.js';
import type { InitialiseOptions } from '../mysql/initialise.js';

export type { InitialiseOptions } from '../mysql/initialise.js';

/** Where a link without a checkpoint may begin, beside at a copy: `position` is one that a loaded backup has. */
const BEGINS: Record<LinkKind, readonly ('now' | 'earliest' | 'position')[]> = {
  mysql: ['now', 'position'],
  redis: ['now'],
  kafka: ['now', 'earliest'],
  outbox: ['now', 'position'],
};

/** What a link of this kind cannot be asked for, and what to ask for instead; undefined: nothing. */
export function problemOf(
  kind: LinkKind,
  { from, copy, resync, maxRowsPerSecond }: InitialiseOptions,
): { field: string; message: string } | undefined {
  const begins = BEGINS[kind];
  if (from !== undefined && !begins.some((one) => one === from || one === 'position')) {
    const expected = begins.map((one) => `\`${one}\``).join(' or ');
    return {
      field: 'from',
      message: `--from: ${JSON.stringify(from)}: a ${kind} link begins at ${expected}`,
    };
  }
  if (kind === 'outbox' && (copy === true || resync !== undefined)) {
    const message = 'a relay copies no tables: name a position of the binlog with --from';
    return { field: copy === true ? 'copy' : 'resync', message };
  }
  if (kind === 'kafka' && (copy === true || resync !== undefined)) {
    const message =
      'records are not copied beside the stream: begin at the oldest of them with --from earliest';
    return { field: copy === true ? 'copy' : 'resync', message };
  }
  if (kind === 'redis' && resync !== undefined && resync.tables !== null)
    return { field: 'tables', message: 'a redis link copies the whole store again: leave --tables out' };
  if (kind !== 'mysql' && maxRowsPerSecond !== undefined) {
    if (kind === 'outbox')
      return { field: 'max-rows-per-second', message: '--max-rows-per-second goes with --copy' };
    const field = kind === 'redis' ? 'maxCommandsPerSecond' : 'maxRecordsPerSecond';
    const message = `--max-rows-per-second is of MySQL's rows; a ${kind} link obeys ${field} and maxBytesPerSecond of the topology`;
    return { field: 'max-rows-per-second', message };
  }
  return undefined;
}
