/** Every so many offsets, where the copy of one is. */
const STEP = 1_000;

/** Where in a copy the records of its origin are, as far as it was read. */
export class CopyPlaces {
  /** Origin offsets, and where a copy of them or of what follows is. Ascending. */
  private readonly places: { origin: number; at: number }[] = [{ origin: 0, at: 0 }];

  note(origin: number, at: number): void {
    if (origin > this.places.at(-1)!.origin + STEP) this.places.push({ origin, at });
  }

  /** Where to begin to read, so that nothing from there on is left out. */
  before(origin: number): number {
    return this.places.findLast((place) => place.origin <= origin)!.at;
  }
}
