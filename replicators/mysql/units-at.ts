import { randomInt } from 'node:crypto';
import { InterlockError } from '../../src/errors.js';
import type { SourceUnit } from '../core/contract.js';
import { TableFilter } from '../../src/topology/table-filter.js';
import type { LinkConfig } from './link-config.js';
import { contains, parsePosition } from './position.js';
import { BinlogStream } from './stream.js';

const SILENCE_MS = 5_000;
const READ_MS = 40_000;

/**
 * The owners of the source's units as of a position in its past: those of a later snapshot, with every change in between undone, as
 * the source's stream tells it.
 * @throws InterlockError Refused: the stream in between is too long to be read; NeedsOperator: it is purged
 */
export async function unitsAt(
  config: LinkConfig,
  position: string,
  snapshot: { position: string; units: SourceUnit[] },
): Promise<SourceUnit[]> {
  const { flavour } = config.source;
  const seen = parsePosition(flavour, position);
  const end = parsePosition(flavour, snapshot.position);
  const units = new Map(snapshot.units.map((unit) => [unit.unit, unit]));
  if (contains(seen, end)) return snapshot.units;
  const met = new Set<string>();
  let stream: BinlogStream | undefined;
  let timer: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      stream = new BinlogStream({
        ...config.source,
        position,
        serverId: randomInt(2 ** 31, 2 ** 32 - 1),
        filter: new TableFilter([], []),
        reading: { charsets: new Map(), jsonAsText: false },
        byteBudget: () => Number.MAX_SAFE_INTEGER,
        silenceMs: SILENCE_MS,
        onPrepared: (gtid) => {
          seen.add(gtid);
          if (contains(seen, end)) resolve();
        },
        onTransaction: (transaction) => {
          if (contains(seen, end)) return;
          for (const event of transaction.unitsBefore) {
            // Only the first change after the position tells what the unit was there.
            if (met.has(event.unit)) continue;
            met.add(event.unit);
            if (event.state === null) units.delete(event.unit);
            else units.set(event.unit, event);
          }
          seen.add(transaction.gtid);
          if (contains(seen, end)) resolve();
        },
        onError: reject,
      });
      timer = setTimeout(
        () =>
          reject(
            new InterlockError(
              'Refused',
              `--from ${position}: what ${config.from} has written since cannot be read in ${READ_MS} ms, so who owned its units there is not known; load the target from a newer backup`,
              { details: { link: config.link, position } },
            ),
          ),
        READ_MS,
      );
      stream.start().catch(reject);
    });
    return [...units.values()];
  } finally {
    clearTimeout(timer);
    stream?.stop();
  }
}
