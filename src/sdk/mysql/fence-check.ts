import { InterlockError } from '../../errors.js';
import type { UnitId } from '../../routing/units.js';
import { identityExpression } from '../../fence/flavour.js';
import type { Flavour } from '../../fence/flavour.js';
import type { WantedUnit } from '../target.js';

/**
 * Locks the units' rows for share and reads them, together with the server's identity. A locking read sees the newest committed row and
 * makes no snapshot, so that the transaction's first consistent read comes after the lock. NOWAIT is the check: waiters would fill the pool.
 */
export function lockStatement(flavour: Flavour, units: readonly UnitId[]): string {
  const lock = flavour === 'mysql' ? 'FOR SHARE NOWAIT' : 'LOCK IN SHARE MODE NOWAIT';
  // Unit ids have passed parseUnit: nothing in them needs escaping.
  const list = units.map((unit) => `'${unit}'`);
  const where = list.length === 1 ? `= ${list[0]}` : `IN (${list.join(',')}) ORDER BY unit`;
  const index = list.length === 1 ? '' : ' FORCE INDEX (PRIMARY)';
  // One column in place of seven: the client spends more on columns than on rows.
  const value = `CONCAT_WS('|',unit,state,owner,epoch,mapping_version,server,${identityExpression(flavour)})`;
  return `SELECT ${value} AS value FROM interlock.unit_state${index} WHERE unit ${where} ${lock}`;
}

interface Row {
  unit: UnitId;
  state: string;
  owner: string;
  epoch: number;
  mappingVersion: number;
  server: string;
  identity: string;
}

/** Epoch of each unit when all of them may be written here; throws the refusal otherwise. `rows`: the answer to `lockStatement`. */
export function checkRows(rows: readonly string[], wanted: readonly WantedUnit[]): Map<UnitId, number> {
  const found = new Map<UnitId, Row>();
  for (const value of rows) {
    const [unit, state, owner, epoch, mappingVersion, server, identity] = value.split('|');
    found.set(unit!, {
      unit: unit!,
      state: state!,
      owner: owner!,
      epoch: Number(epoch),
      mappingVersion: Number(mappingVersion),
      server: server!,
      identity: identity!,
    });
  }
  if (wanted.length > 1) checkOneOwner(wanted, found);
  for (const { unit } of wanted) checkRow(unit, found.get(unit));
  for (const { unit, mappingVersion } of wanted) {
    const row = found.get(unit)!;
    if (mappingVersion !== undefined && mappingVersion !== row.mappingVersion) {
      throw new InterlockError(
        'StaleMapping',
        `${unit}: the store has mapping version ${row.mappingVersion}, this instance ${mappingVersion}: the user may belong to another unit`,
        {
          retryable: true,
          details: {
            unit,
            owner: row.owner,
            epoch: row.epoch,
            mappingVersion: row.mappingVersion,
            used: mappingVersion,
          },
        },
      );
    }
  }
  return new Map(wanted.map(({ unit }) => [unit, found.get(unit)!.epoch]));
}

/** A transaction whose units have different owners belongs nowhere, whatever their states are: it is never forwarded. */
function checkOneOwner(wanted: readonly WantedUnit[], found: ReadonlyMap<UnitId, Row>): void {
  const owners = new Map<UnitId, string>();
  for (const { unit } of wanted) {
    const row = found.get(unit);
    if (row !== undefined) owners.set(unit, row.owner);
  }
  if (new Set(owners.values()).size <= 1) return;
  const list = [...owners].map(([unit, owner]) => `${unit}: ${owner}`).join(', ');
  throw new InterlockError(
    'CrossOwner',
    `the units of this transaction have different owners (${list}); split it into one transaction per owner`,
    {
      details: {
        owners: Object.fromEntries(owners),
        epochs: Object.fromEntries([...found].map(([unit, row]) => [unit, row.epoch])),
      },
    },
  );
}

function checkRow(unit: UnitId, row: Row | undefined): void {
  // An absent row means no: a store that never heard of the unit must not be written.
  if (row === undefined) {
    throw new InterlockError(
      'WriteDisabled',
      `${unit} has no state in this store: not writable here until it is asserted`,
      { retryable: true, details: { unit, owner: null, epoch: null, reason: 'absent' } },
    );
  }
  const details = { unit, owner: row.owner, epoch: row.epoch };
  if (row.state === 'remote') {
    throw new InterlockError('NotOwner', `${unit} belongs to ${row.owner} since epoch ${row.epoch}`, {
      details,
    });
  }
  if (row.state !== 'open') {
    throw new InterlockError('WriteDisabled', `${unit} is write-disabled since epoch ${row.epoch}`, {
      retryable: true,
      details: { ...details, reason: 'fenced' },
    });
  }
  // A restored server, or a replica that was promoted, may have missed a fence.
  if (row.server !== row.identity) {
    throw new InterlockError(
      'ServerIdentityChanged',
      `${unit}: its state was asserted on server ${row.server}, this is ${row.identity}: write-disabled until it is asserted again`,
      { retryable: true, details: { ...details, server: row.server, identity: row.identity } },
    );
  }
}

/** The whole data center is being, or is, write-disabled, or its read_only is not off again yet. Nothing of the transaction was kept. */
export function readOnlyError(epochs: ReadonlyMap<UnitId, number>, cause: unknown): InterlockError {
  const units = [...epochs.keys()];
  const what = units.length === 0 ? 'unrouted table' : units.join(', ');
  return new InterlockError('WriteDisabled', `${what}: the server is read_only`, {
    retryable: true,
    cause,
    details: {
      unit: units[0],
      units,
      owner: null,
      epoch: epochs.get(units[0]!) ?? null,
      reason: 'read_only',
    },
  });
}

/** A fence is under way on one of the rows. Owner and epoch are what the rules last said: the row cannot be read. */
export function lockedError(
  units: readonly UnitId[],
  known: { owner: string; epoch: number } | undefined,
  cause: unknown,
): InterlockError {
  return new InterlockError('WriteDisabled', `${units.join(', ')}: a change of ownership is under way`, {
    retryable: true,
    cause,
    details: {
      unit: units[0],
      units: [...units],
      owner: known?.owner ?? null,
      epoch: known?.epoch ?? null,
      reason: 'locked',
    },
  });
}
