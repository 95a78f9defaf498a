import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection } from 'mysql2/promise';
import type { UnitId } from '../../../src/routing/units.js';
import type { Literal } from '../literal.js';
import { quote } from '../literal.js';
import type { Flavour } from '../position.js';
import { LOCK_ERRORS } from '../target-errors.js';
import type { SqlError } from '../target-errors.js';
import type { ComparedTable, RowImage } from './compared-table.js';
import type { Owners } from './owners.js';
import type { Passage } from './passage.js';
import { repair } from './repair.js';
import { BEGIN_BOUNDED, ROLLBACK_BOUNDED, rowsOfEach } from './side.js';
import type { Side } from './side.js';

/** One row: what the owner has, and what the other side has. */
export interface Pair {
  key: Literal[];
  owned: RowImage | null;
  other: RowImage | null;
}

export interface ProvenPair extends Pair {
  repaired: boolean;
  notRepaired?: string;
}

/** The rows that differ; or why nothing could be said. */
export type Proof = { differing: ProvenPair[] } | { undecided: string };

/** A fence waits for the rows that a proof locks: all of it takes no longer, or its session is ended. */
const PROOF_MS = 2_000;
/** What is left for reading and repairing behind the marker. */
const BEHIND_MS = 700;
const ATTEMPTS = 4;
const AGAIN_MS = 250;
const ER_LOCK_NOWAIT = 3572;

/**
 * Decides whether rows differ, or only seem to while changes are on their way. The owner's rows are locked for share; then a marker is
 * written there. When the link has passed it, nothing of these rows is on its way and nothing can set out: what differs now, differs.
 */
export class Prover {
  constructor(
    private readonly table: ComparedTable,
    private readonly owners: Owners,
    private readonly owner: Side,
    private readonly other: Side,
    private readonly passage: Passage,
    private readonly repairs: boolean,
    private readonly signal: AbortSignal,
  ) {}

  /** @param units of the rows, all open here; null: nobody owns them, and only this side's changes are known not to be on their way */
  async prove(keys: readonly Literal[][], units: readonly UnitId[] | null): Promise<Proof> {
    const sorted = units && [...new Set(units)].sort();
    let proof: Proof = { undecided: '' };
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      proof = await this.attempt(keys, sorted);
      if ('differing' in proof) return proof;
      await sleep(AGAIN_MS * attempt, undefined, { signal: this.signal });
    }
    return proof;
  }

  private async attempt(keys: readonly Literal[][], units: readonly UnitId[] | null): Promise<Proof> {
    const session = await this.owner.locker();
    const deadline = Date.now() + PROOF_MS;
    let late = false;
    const watch = setTimeout(() => {
      late = true;
      void this.end(session);
    }, PROOF_MS);
    try {
      await session.query(BEGIN_BOUNDED);
      return await this.underLock(session, keys, units, deadline);
    } catch (error) {
      const { errno } = error as SqlError;
      if (late) return { undecided: `its rows could not be locked and compared within ${PROOF_MS} ms` };
      if (errno !== undefined && (LOCK_ERRORS.has(errno) || errno === ER_LOCK_NOWAIT))
        return { undecided: `a transaction at ${this.owner.dc} keeps its rows or its unit locked` };
      throw error;
    } finally {
      clearTimeout(watch);
      if (late) this.owner.drop('lock');
      else await session.query(ROLLBACK_BOUNDED).catch(() => this.owner.drop('lock'));
    }
  }

  private async underLock(
    session: Connection,
    keys: readonly Literal[][],
    units: readonly UnitId[] | null,
    deadline: number,
  ): Promise<Proof> {
    const { table, owner, other, passage } = this;
    if (units !== null) {
      // Under this lock the unit stays open here: it cannot be opened on the other side, whose rows only the link writes then.
      const [states] = await rowsOfEach(session, [unitLock(owner.server.flavour, units)]);
      const open = states!.every(([, state, holder]) => state === 'open' && holder === owner.dc);
      if (!open || states!.length !== units.length)
        return { undecided: `its unit is not open at ${owner.dc} (is a switchover under way?)` };
    }
    const owned = await this.images(session, keys, true);
    if (units !== null && this.owners.unitsOf(owned).some((unit) => !units.includes(unit)))
      return { undecided: 'it moves to another unit' };
    const generation = await passage.pass(deadline - Date.now() - BEHIND_MS);
    if (generation === undefined)
      return { undecided: `${passage.link} lags: it did not pass a marker while the row was locked` };
    const others = await this.images(await other.reader(), keys, false);
    const differing = keys
      .map((key, i): Pair => ({ key, owned: owned[i]!, other: others[i]! }))
      .filter((pair) => !table.same(pair.owned, pair.other));
    if (!this.repairs || units === null)
      return { differing: differing.map((pair) => ({ ...pair, repaired: false })) };
    const order = {
      ...{ table, link: passage.link, generation, owner: owner.dc, target: other, units },
      stillLocked: async () => void (await session.query('DO 0')),
    };
    if (differing.length === 0) return { differing: [] };
    const refusal = await repair(order, differing);
    if (refusal === undefined || differing.length === 1)
      return { differing: differing.map((pair) => outcome(pair, refusal)) };
    // One row may be in the way of all: each by itself.
    const repaired: ProvenPair[] = [];
    for (const pair of differing) repaired.push(outcome(pair, await repair(order, [pair])));
    return { differing: repaired };
  }

  private async images(
    session: Connection,
    keys: readonly Literal[][],
    lock: boolean,
  ): Promise<(RowImage | null)[]> {
    const found = await rowsOfEach(
      session,
      keys.map((key) => this.table.row(key, lock)),
    );
    return found.map(([cells]) => (cells === undefined ? null : this.table.imageOf(cells)));
  }

  /** Ends the session on the server: closed by us, it would keep its locks while it waits for another. What waits for an answer fails. */
  private async end(session: Connection): Promise<void> {
    const reader = await this.owner.reader();
    await reader.query(`KILL ${session.threadId}`).catch(() => undefined);
  }
}

function outcome(pair: Pair, refusal: string | undefined): ProvenPair {
  return refusal === undefined
    ? { ...pair, repaired: true }
    : { ...pair, repaired: false, notRepaired: refusal };
}

/** Locks units for share: [unit, state, owner] of each. A lock conflict is an error at once: a fence must not be made to wait in a queue. */
export function unitLock(flavour: Flavour, units: readonly UnitId[]): string {
  const lock = flavour === 'mysql' ? 'FOR SHARE NOWAIT' : 'LOCK IN SHARE MODE NOWAIT';
  return `SELECT unit,CAST(state AS CHAR),owner FROM interlock.unit_state FORCE INDEX (PRIMARY) WHERE unit IN (${units.map(quote).join(',')}) ORDER BY unit ${lock}`;
}
