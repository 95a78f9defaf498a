import { setTimeout as sleep } from 'node:timers/promises';
import { InterlockError } from '../../../src/errors.js';
import type { Router } from '../../../src/routing/rules.js';
import type { DcId, UnitId } from '../../../src/routing/units.js';
import type { Difference } from '../../core/verification.js';
import type { Literal } from '../literal.js';
import type { ComparedTable, RowImage } from './compared-table.js';
import type { Owners, RowOwner } from './owners.js';
import type { Passage } from './passage.js';
import { Prover } from './proof.js';
import type { ProvenPair } from './proof.js';
import { rowsOfEach } from './side.js';
import type { Side } from './side.js';

export interface SettlementOptions {
  table: ComparedTable;
  owners: Owners;
  sides: readonly [Side, Side];
  /** By source: the links that carry changes of the table. */
  passages: ReadonlyMap<DcId, Passage>;
  /** The rules in force. */
  router: () => Promise<Router>;
  /** Only rows of these units; all when absent. */
  units?: ReadonlySet<UnitId>;
  repairs: boolean;
  /** At once: the next look at a repaired row finds it equal, in whatever process it is made. */
  onRepaired: (difference: Difference) => void;
  signal: AbortSignal;
}

export interface Settled {
  /** Without those that were repaired. */
  differences: Difference[];
  undecided: { count: number; reason: string }[];
  /** Keys of which neither side had a row: deleted meanwhile, if nothing is wrong. */
  vanished: Literal[][];
}

interface Candidate {
  key: Literal[];
  images: [RowImage | null, RowImage | null];
}

const KEYS_AT_ONCE = 100;
/** Few rows are locked at a time, and only for as long as a marker takes. */
const KEYS_PER_PROOF = 20;
const LOOKS = 2;
/** Without a lock: so often are rows looked at that nobody owns, until they stand still between two markers. */
const UNOWNED_LOOKS = 10;
const UNOWNED_PAUSE_MS = 50;
const PASSAGE_MS = 30_000;

/** A link did not pass a marker in time: nothing can be said of its rows. */
export class LinkBehind extends InterlockError {
  constructor(readonly link: string) {
    super('Unavailable', `${link} did not pass a marker in ${PASSAGE_MS / 1000} s`);
  }
}

/**
 * Decides which of the rows that differed at one look do differ. First by looking again behind markers, without locks; what is left of the
 * owned rows by proof; of the others, by their standing still, and a proof in each direction.
 */
export class Settlement {
  private readonly provers = new Map<DcId, Prover>();

  constructor(private readonly options: SettlementOptions) {
    const { table, owners, sides, passages, repairs, signal } = options;
    for (const [owner, other] of [sides, [sides[1], sides[0]]] as const) {
      const passage = passages.get(owner.dc);
      if (passage !== undefined)
        this.provers.set(owner.dc, new Prover(table, owners, owner, other, passage, repairs, signal));
    }
  }

  /** @throws LinkBehind */
  async settle(keys: readonly Literal[][]): Promise<Settled> {
    const settled: Settled = { differences: [], undecided: [], vanished: [] };
    for (let at = 0; at < keys.length; at += KEYS_AT_ONCE)
      await this.some(keys.slice(at, at + KEYS_AT_ONCE), settled);
    return settled;
  }

  private async some(keys: readonly Literal[][], settled: Settled): Promise<void> {
    let open: Candidate[] = keys.map((key) => ({ key, images: [null, null] }));
    for (let look = 0; look < LOOKS && open.length > 0; look++) {
      await this.passAll();
      open = (
        await this.look(
          open.map(({ key }) => key),
          settled,
        )
      ).filter((one) => this.inScope(one));
    }
    if (open.length === 0) return;
    const router = await this.options.router();
    const owned = new Map<DcId, Candidate[]>();
    const unowned: Candidate[] = [];
    for (const one of open) {
      const { owner } = this.options.owners.ownerOf(router, one.images);
      if (owner === null) unowned.push(one);
      else owned.set(owner, [...(owned.get(owner) ?? []), one]);
    }
    for (const [owner, candidates] of owned) {
      for (let at = 0; at < candidates.length; at += KEYS_PER_PROOF)
        await this.prove(owner, candidates.slice(at, at + KEYS_PER_PROOF), router, settled);
    }
    await this.standStill(unowned, settled);
  }

  private async prove(
    owner: DcId,
    candidates: readonly Candidate[],
    router: Router,
    settled: Settled,
  ): Promise<void> {
    const { owners, sides } = this.options;
    const prover = this.provers.get(owner);
    if (prover === undefined) {
      settled.undecided.push({ count: candidates.length, reason: `no link carries what ${owner} owns` });
      return;
    }
    const units = candidates.flatMap(({ images }) => owners.unitsOf(images));
    const proof = await prover.prove(
      candidates.map(({ key }) => key),
      units,
    );
    if ('undecided' in proof) {
      settled.undecided.push({ count: candidates.length, reason: proof.undecided });
      return;
    }
    for (const pair of proof.differing) {
      const images: Candidate['images'] =
        owner === sides[0].dc ? [pair.owned, pair.other] : [pair.other, pair.owned];
      const difference = this.difference(images, owners.ownerOf(router, images), pair);
      if (difference.repaired) this.options.onRepaired(difference);
      else settled.differences.push(difference);
    }
  }

  /**
   * Both sides may write these rows, and no lock on one side stops the other: the same two images before and behind markers of both. Hazard: a row
   * that goes to and fro seems to stand still. Guard: they are the same, too, while each side in turn is locked, and all that it has written has come.
   */
  private async standStill(candidates: readonly Candidate[], settled: Settled): Promise<void> {
    const { table } = this.options;
    let open = [...candidates];
    for (let look = 0; look < UNOWNED_LOOKS && open.length > 0; look++) {
      await sleep(UNOWNED_PAUSE_MS * look, undefined, { signal: this.options.signal });
      await this.passAll();
      const before = open;
      open = [];
      const still: Candidate[] = [];
      for (const one of await this.look(
        before.map(({ key }) => key),
        settled,
      )) {
        const stood = before.some(({ images }) =>
          images.every((image, i) => table.same(image, one.images[i]!)),
        );
        (stood ? still : open).push(one);
      }
      for (let at = 0; at < still.length; at += KEYS_PER_PROOF)
        open.push(...(await this.proveStill(still.slice(at, at + KEYS_PER_PROOF), settled)));
    }
    if (open.length > 0)
      settled.undecided.push({ count: open.length, reason: 'nobody owns it, and it changes all the time' });
  }

  /** @returns those of which nothing could be said */
  private async proveStill(candidates: readonly Candidate[], settled: Settled): Promise<Candidate[]> {
    const { table, sides } = this.options;
    let left = [...candidates];
    const undecided: Candidate[] = [];
    for (const side of sides) {
      const prover = this.provers.get(side.dc);
      if (prover === undefined || left.length === 0) continue;
      const proof = await prover.prove(
        left.map(({ key }) => key),
        null,
      );
      if ('undecided' in proof) return [...undecided, ...left];
      const differ: Candidate[] = [];
      for (const { key, owned, other } of proof.differing) {
        const images: Candidate['images'] = side === sides[0] ? [owned, other] : [other, owned];
        const known = left.find((one) => one.key === key)!;
        const stood = known.images.every((image, i) => table.same(image, images[i]!));
        (stood ? differ : undecided).push({ key, images });
      }
      left = differ;
    }
    for (const { images } of left)
      settled.differences.push(this.difference(images, { unit: null, owner: null }));
    return undecided;
  }

  /** Both sides' rows of these keys, without those that are equal; two keys of one row (in their collation) are one candidate. */
  private async look(keys: readonly Literal[][], settled: Settled): Promise<Candidate[]> {
    const { table, sides } = this.options;
    const statements = keys.map((key) => table.row(key, false));
    const [a, b] = await Promise.all(sides.map(async (side) => rowsOfEach(await side.reader(), statements)));
    const found = new Map<string, Candidate>();
    keys.forEach((key, i) => {
      const images = [a![i]![0], b![i]![0]].map((cells) =>
        cells === undefined ? null : table.imageOf(cells),
      );
      const [left, right] = images as Candidate['images'];
      if (left === null && right === null) settled.vanished.push([...key]);
      if (table.same(left, right)) return;
      const id = [left, right].map((image) => (image === null ? '-' : table.keyOfImage(image).join(',')));
      found.set(id.join(' | '), { key: [...key], images: [left, right] });
    });
    return [...found.values()];
  }

  private async passAll(): Promise<void> {
    await Promise.all(
      [...this.options.passages.values()].map(async (passage) => {
        if ((await passage.pass(PASSAGE_MS)) === undefined) throw new LinkBehind(passage.link);
      }),
    );
  }

  private inScope({ images }: Candidate): boolean {
    const { units, owners } = this.options;
    return units === undefined || owners.unitsOf(images).some((unit) => units.has(unit));
  }

  private difference(
    images: Candidate['images'],
    owner: RowOwner,
    proven: Pick<ProvenPair, 'repaired' | 'notRepaired'> = { repaired: false },
  ): Difference {
    const { table, sides, repairs } = this.options;
    const one = (images[0] ?? images[1])!;
    const show = (image: RowImage | null) => (image === null ? null : table.show(image));
    const notRepaired =
      proven.notRepaired ??
      (repairs && owner.owner === null ? 'nobody owns it: nobody can say which image is right' : undefined);
    return {
      key: table.showKey(one),
      ...owner,
      images: { [sides[0].dc]: show(images[0]), [sides[1].dc]: show(images[1]) },
      repaired: proven.repaired,
      ...(notRepaired !== undefined && { notRepaired }),
    };
  }
}
