import type { UnitId } from '../../src/routing/units.js';
import type { CommandSpec } from './commands.js';
import { CommandFilter } from './filter.js';
import { KeyUnitReader } from './key-units.js';
import type { RedisLinkConfig } from './link-config.js';
import type { Ownership } from './ownership.js';
import type { StreamCommand } from './resp/command-reader.js';

/** Begins the keys that Interlock keeps its own state in; they are never carried, and lie in database 0. */
const CONTROL = Buffer.from('interlock:');

/** What becomes of a key in a command. */
export type KeyVerdict =
  /** Carried. */
  | 'carried'
  /** Left out: Interlock's own, filtered, a deletion of a key of no known unit (by policy) or of what the source does not own. */
  | 'control'
  | 'filtered'
  | 'unmapped'
  | 'late-deletion'
  /** A write of a unit that the source does not own. */
  | 'not-owned';

/** Decides by the topology and by who owned a unit then; knows nothing of the commands before. */
export class Judge {
  readonly filter: CommandFilter;
  /**
   * Units that are open on the target, for a full synchronisation. Hazard: a source that was lost between the switch and its hand-over still says that
   * it holds what moved; copied over the new owner's values, they would be lost.
   */
  openOnTarget: ReadonlySet<UnitId> = new Set();
  private readonly unitReader: KeyUnitReader;
  /** A key's text is only made when something looks at it. */
  private readonly looksAtKeys: boolean;

  constructor(
    private readonly config: RedisLinkConfig,
    private readonly ownership: Ownership,
  ) {
    this.filter = new CommandFilter(config.filters);
    this.unitReader = new KeyUnitReader(config.keys, config.mapping);
    this.looksAtKeys =
      this.filter.hasKeys || !this.unitReader.isEmpty || config.unmapped === 'ignore-deletes';
  }

  keyVerdict(key: Buffer, deletes: boolean): KeyVerdict {
    if (isControl(key)) return 'control';
    if (!this.looksAtKeys) return 'carried';
    const text = key.toString('latin1');
    if (!this.filter.carriesKey(text)) return 'filtered';
    const unit = this.unitReader.unitOf(text);
    if (unit === undefined || unit === null)
      return deletes && this.config.unmapped === 'ignore-deletes' ? 'unmapped' : 'carried';
    if (this.ownership.isOpen(unit)) return 'carried';
    return deletes ? 'late-deletion' : 'not-owned';
  }

  /** Of a key in a full synchronisation: the source has it, and both sides may have written it. */
  copyVerdict(key: Buffer): 'carried' | 'filtered' | 'other-side' {
    if (isControl(key)) return 'filtered';
    if (!this.looksAtKeys) return 'carried';
    const text = key.toString('latin1');
    if (!this.filter.carriesKey(text)) return 'filtered';
    const unit = this.unitReader.unitOf(text);
    if (unit === undefined || unit === null) return 'carried';
    return this.ownership.isHeld(unit) && !this.openOnTarget.has(unit) ? 'carried' : 'other-side';
  }

  /**
   * Of a key whose value is taken from the source again: it is the truth there. Hazard: the target may own the unit of a key that the source has fenced.
   * @param isDraining a marker has come and was not told: a unit that is fenced has not moved
   */
  carriesValue(key: Buffer, db: number, isGone: boolean, isDraining: boolean): boolean {
    if (!this.filter.carriesDatabase(db)) return false;
    const unit = this.unitOf(key);
    if (unit !== undefined && isDraining && this.ownership.isHeld(unit))
      return this.filter.carriesKey(key.toString('latin1'));
    // A unit that is not the source's is the other side's, whether the key is there or not.
    return this.keyVerdict(key, isGone) === 'carried';
  }

  /** The target's value is the owner's. */
  isOpenOnTarget(key: Buffer): boolean {
    const unit = this.unitOf(key);
    return unit !== undefined && this.openOnTarget.has(unit);
  }

  /** Whether a key that only the target has was deleted at the source: the source owns its unit, or there are no units. */
  isSources(key: Buffer): boolean {
    if (isControl(key)) return false;
    const text = key.toString('latin1');
    if (!this.filter.carriesKey(text)) return false;
    if (this.unitReader.isEmpty) return true;
    const unit = this.unitReader.unitOf(text);
    return typeof unit === 'string' && this.ownership.isHeld(unit) && !this.openOnTarget.has(unit);
  }

  unitOf(key: Buffer): UnitId | undefined {
    if (this.unitReader.isEmpty) return undefined;
    return this.unitReader.unitOf(key.toString('latin1')) ?? undefined;
  }

  /** Of a command: that of all its keys, or `mixed`. */
  verdict(spec: CommandSpec, command: StreamCommand): KeyVerdict | 'mixed' {
    const deletes = spec.kind === 'delete';
    if (spec.onlyKey !== 0) return this.keyVerdict(command.arg(spec.onlyKey), deletes);
    let all: KeyVerdict | undefined;
    for (const index of spec.keysOf(command)) {
      const one = this.keyVerdict(command.arg(index), deletes);
      if (all !== undefined && all !== one) return 'mixed';
      all = one;
    }
    return all ?? 'carried';
  }
}

export function isControl(key: Buffer): boolean {
  return (
    key[0] === CONTROL[0] &&
    key.length >= CONTROL.length &&
    key.compare(CONTROL, 0, CONTROL.length, 0, CONTROL.length) === 0
  );
}
