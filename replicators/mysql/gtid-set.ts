import { InterlockError } from '../../src/errors.js';
import type { Position } from '../core/position.js';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/**
 * A set of MySQL transactions: per server UUID, disjoint ascending intervals, both ends included.
 * Text form: https://dev.mysql.com/doc/refman/8.0/en/replication-gtids-concepts.html#replication-gtids-concepts-gtid-sets
 * Tagged GTIDs (MySQL 8.3) are refused: they would be lost in a set that does not know them.
 */
export class GtidSet implements Position<GtidSet> {
  private readonly intervals = new Map<string, [number, number][]>();

  /** @throws InterlockError BadInput when `text` is no GTID set. */
  static parse(text: string): GtidSet {
    const set = new GtidSet();
    const compact = text.replace(/\s+/g, '');
    if (compact === '') return set;
    for (const part of compact.split(',')) {
      const [uuid = '', ...ranges] = part.toLowerCase().split(':');
      if (!UUID.test(uuid) || ranges.length === 0) throw malformed(text, part);
      for (const range of ranges) {
        const bounds = /^([1-9][0-9]*)(?:-([1-9][0-9]*))?$/.exec(range);
        if (!bounds) throw malformed(text, part);
        const first = Number(bounds[1]);
        const last = bounds[2] === undefined ? first : Number(bounds[2]);
        if (first > last || !Number.isSafeInteger(last)) throw malformed(text, part);
        set.addRange(uuid, first, last);
      }
    }
    return set;
  }

  /** Adds one transaction, `uuid:number`. */
  add(gtid: string): void {
    const colon = gtid.indexOf(':');
    const number = Number(gtid.slice(colon + 1));
    const uuid = gtid.slice(0, colon);
    if (colon < 0 || !Number.isSafeInteger(number) || number < 1) throw malformed(gtid, gtid);
    const ranges = this.intervals.get(uuid);
    const last = ranges?.at(-1);
    if (last !== undefined && last[1] + 1 === number) last[1] = number;
    else this.addRange(uuid, number, number);
  }

  private addRange(uuid: string, first: number, last: number): void {
    const ranges = this.intervals.get(uuid) ?? [];
    const merged: [number, number][] = [];
    let from = first;
    let to = last;
    let placed = false;
    for (const range of ranges) {
      if (range[1] + 1 < from) merged.push(range);
      else if (range[0] > to + 1) {
        if (!placed) merged.push([from, to]);
        placed = true;
        merged.push(range);
      } else {
        from = Math.min(from, range[0]);
        to = Math.max(to, range[1]);
      }
    }
    if (!placed) merged.push([from, to]);
    this.intervals.set(uuid, merged);
  }

  has(gtid: string): boolean {
    return this.contains(GtidSet.parse(gtid));
  }

  contains(other: GtidSet): boolean {
    for (const [uuid, ranges] of other.intervals) {
      const mine = this.intervals.get(uuid) ?? [];
      for (const [first, last] of ranges) {
        if (!mine.some(([from, to]) => from <= first && last <= to)) return false;
      }
    }
    return true;
  }

  union(other: GtidSet): GtidSet {
    const set = this.clone();
    for (const [uuid, ranges] of other.intervals) {
      for (const [first, last] of ranges) set.addRange(uuid, first, last);
    }
    return set;
  }

  clone(): GtidSet {
    const set = new GtidSet();
    for (const [uuid, ranges] of this.intervals) {
      set.intervals.set(
        uuid,
        ranges.map(([from, to]) => [from, to]),
      );
    }
    return set;
  }

  toString(): string {
    return [...this.intervals]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(
        ([uuid, ranges]) =>
          `${uuid}:${ranges.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(':')}`,
      )
      .join(',');
  }
}

function malformed(text: string, part: string): InterlockError {
  return new InterlockError(
    'BadInput',
    `${JSON.stringify(part)} is not part of a GTID set; expected uuid:1-5[:7-9…] without tags`,
    { details: { position: text } },
  );
}
