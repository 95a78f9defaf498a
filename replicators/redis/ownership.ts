import type { DcId, UnitId } from '../../src/routing/units.js';

/** On each server: unit → `state:owner:epoch:mappingVersion[:holder]`. Never forwarded. */
export const UNITS_KEY = 'interlock:units';

/**
 * Who owned each unit at the source, as of the place in its stream that was read last: from what the source writes into `interlock:units`. A unit
 * that is not there is nobody's.
 */
export class Ownership {
  private readonly open = new Set<UnitId>();
  private readonly states: Map<UnitId, string>;

  constructor(
    private readonly source: DcId,
    states: Iterable<readonly [UnitId, string]>,
  ) {
    this.states = new Map(states);
    for (const [unit, state] of this.states) this.judge(unit, state);
  }

  isOpen(unit: UnitId): boolean {
    return this.open.has(unit);
  }

  /** The source holds the unit, open or fenced: what it has of it is the truth. */
  isHeld(unit: UnitId): boolean {
    const [state, owner] = (this.states.get(unit) ?? '').split(':');
    return owner === this.source && (state === 'open' || state === 'write_disabled');
  }

  set(unit: UnitId, state: string): void {
    this.states.set(unit, state);
    this.judge(unit, state);
  }

  delete(unit: UnitId): void {
    this.states.delete(unit);
    this.open.delete(unit);
  }

  clear(): void {
    this.states.clear();
    this.open.clear();
  }

  all(): ReadonlyMap<UnitId, string> {
    return this.states;
  }

  private judge(unit: UnitId, value: string): void {
    const [state, owner] = value.split(':');
    if (state === 'open' && owner === this.source) this.open.add(unit);
    else this.open.delete(unit);
  }
}
