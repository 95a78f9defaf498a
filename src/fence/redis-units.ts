import { InterlockError } from '../errors.js';
import type { Holder } from '../routing/rules.js';
import type { UnitId } from '../routing/units.js';
import type { Marker, UnitState, UnitStateName } from './types.js';

/** Interlock's keys in a Redis store, in database 0. No link carries them. */
export const UNITS_KEY = 'interlock:units';
/** The last fence's. */
export const MARKER_KEY = 'interlock:marker';
/** The field of `interlock:units` with the run_id of the server on which the states were asserted. */
export const SERVER_FIELD = '#server';
/**
 * `#was:<unit>`: the state that a server came back with, when something was written over it before the states were asserted there. It alone says how old
 * the data is.
 */
export const WAS_PREFIX = '#was:';

const STATES: readonly UnitStateName[] = ['open', 'write_disabled', 'remote'];

/** `state:owner:epoch:mappingVersion`, and `:workflow:run` of the holder, percent-encoded. */
export function formatUnit({
  state,
  owner,
  epoch,
  mappingVersion,
  holder,
}: Omit<UnitState, 'unit' | 'server'>): string {
  const held =
    holder === null ? [] : [encodeURIComponent(holder.workflowId), encodeURIComponent(holder.runId)];
  return [state, owner, epoch, mappingVersion, ...held].join(':');
}

/** @throws InterlockError NeedsOperator: it is no state; something else wrote it */
export function parseUnit(store: string, unit: UnitId, text: string, server: string): UnitState {
  const [name, owner, epoch, mappingVersion, workflowId, runId] = text.split(':');
  const state = STATES.find((one) => one === name);
  const numbers = [epoch, mappingVersion].map(Number);
  if (state === undefined || owner === undefined || !numbers.every((one) => Number.isSafeInteger(one))) {
    throw new InterlockError(
      'NeedsOperator',
      `${store}: ${UNITS_KEY} has ${JSON.stringify(text.slice(0, 80))} for ${unit}, which is no state: remove the key, then run \`interlock rules reassert\``,
      { details: { store, unit } },
    );
  }
  const holder: Holder | null =
    workflowId === undefined
      ? null
      : { workflowId: decodeURIComponent(workflowId), runId: decodeURIComponent(runId ?? '') };
  return { unit, state, owner, epoch: numbers[0]!, mappingVersion: numbers[1]!, server, holder };
}

export function formatMarker({ id, workflowId, runId, epoch }: Marker): string {
  return JSON.stringify({ id, workflowId, runId, epoch });
}
