import { randomUUID } from 'node:crypto';
import { NOBODY } from '../core/contract.js';
import type { Marker } from './markers.js';

/** Names of keys that wait are in memory; with more, a person has to look. */
const MOST_KEYS = 100_000;
const MOST_BYTES = 8 * 1024 * 1024;

/** A place before every marker that is still to be told. */
export const BEFORE_ALL = -1;

export interface MendedKey {
  db: number;
  key: Buffer;
}

/** As the source had it at the mark in its stream; `payload` null: it had none. */
export interface MendedValue extends MendedKey {
  payload: Buffer | null;
  /** Unix time; null: it does not expire. */
  expireAtMs: number | null;
}

interface Asked {
  keys: Map<string, Due>;
  marker: Marker;
  values: MendedValue[] | undefined;
}

interface Due extends MendedKey {
  /** A place in the source's stream before which nothing says that the target's key is wrong. */
  from: number;
  /** Commands of the key are not carried: its value has what they do. */
  isLeftOut?: true;
}

/**
 * Keys that are taken from the source again. Hazard: the target lets a key expire by its own clock. A link that is behind then meets a command that makes the
 * key live longer, and finds nothing, or a part. Guard: the source is asked for the key's value and writes a mark into its own stream in the same
 * transaction; the link writes the value where it meets the mark. The names are kept on the target until then, in the blocks' transactions.
 */
export class Mends {
  private readonly due = new Map<string, Due>();
  private bytes = 0;
  private asked: Asked | undefined;
  private overflows = false;
  /** Names that the target has not noted. */
  private fresh: Buffer[] = [];

  /** Keys that wait, or were asked for and not written. */
  get size(): number {
    return this.due.size + (this.asked?.keys.size ?? 0);
  }

  /** Nothing that is wrong lies before; Infinity: nothing is. */
  get oldest(): number {
    let oldest = Infinity;
    for (const keys of [this.asked?.keys, this.due])
      for (const { from } of keys?.values() ?? []) oldest = Math.min(oldest, from);
    return oldest;
  }

  /** What an attempt before has left: see `nameOf`. */
  load(names: readonly Buffer[]): void {
    for (const name of names) {
      const at = name.indexOf(':');
      const db = Number(name.toString('latin1', 0, at));
      this.due.set(name.toString('latin1'), {
        db,
        key: name.subarray(at + 1),
        from: BEFORE_ALL,
        isLeftOut: true,
      });
      this.bytes += name.length;
    }
  }

  /** @returns false: there are too many, and this is the first that is not kept */
  add(key: Buffer, db: number, from: number): boolean {
    if (this.keep(key, db, from) !== undefined) return true;
    const isFirst = !this.overflows;
    this.overflows = true;
    return !isFirst;
  }

  /** Also its commands are left out until its value comes. @returns false: there are too many */
  leaveOut(key: Buffer, db: number, from: number): boolean {
    const kept = this.keep(key, db, from);
    if (kept !== undefined) kept.isLeftOut = true;
    return kept !== undefined;
  }

  isLeftOut(key: Buffer, db: number): boolean {
    return this.size > 0 && this.find(nameOf(key, db).toString('latin1'))?.isLeftOut === true;
  }

  private find(id: string): Due | undefined {
    return this.due.get(id) ?? this.asked?.keys.get(id);
  }

  private keep(key: Buffer, db: number, from: number): Due | undefined {
    const name = nameOf(key, db);
    const id = name.toString('latin1');
    // What was asked for and is not written yet comes behind everything that was read.
    const found = this.find(id);
    if (found !== undefined) return found;
    if (this.due.size >= MOST_KEYS || this.bytes + name.length > MOST_BYTES) return undefined;
    const due: Due = { db, key: Buffer.from(key), from };
    this.due.set(id, due);
    this.bytes += name.length;
    this.fresh.push(name);
    return due;
  }

  /** For the next block. */
  takeFresh(): Buffer[] {
    const { fresh } = this;
    this.fresh = [];
    return fresh;
  }

  /** The keys that are asked for next; none while others are. */
  next(most: number): MendedKey[] {
    if (this.asked !== undefined) return [];
    const keys: MendedKey[] = [];
    for (const one of this.due.values()) if (keys.push(one) === most) break;
    return keys;
  }

  /** They are asked for. @returns the mark of these: see `meets` */
  ask(keys: readonly MendedKey[]): Marker {
    const marker = { id: `mend-${randomUUID()}`, workflowId: NOBODY, runId: '' };
    const asked = new Map<string, Due>();
    for (const { key, db } of keys) {
      const id = nameOf(key, db).toString('latin1');
      const due = this.due.get(id)!;
      asked.set(id, due);
      this.remove(id);
    }
    this.asked = { keys: asked, marker, values: undefined };
    return marker;
  }

  answer(values: MendedValue[]): void {
    this.asked!.values = values;
  }

  /** Whether the source's stream is at the mark of what was asked for. */
  meets(marker: Marker): boolean {
    return marker.id === this.asked?.marker.id;
  }

  /** Undefined: the answer has not come. */
  get values(): MendedValue[] | undefined {
    return this.asked?.values;
  }

  /** What was asked for is done. @returns the names, for the target to forget */
  settle(): Buffer[] {
    const names = [...this.asked!.keys.keys()].map((id) => Buffer.from(id, 'latin1'));
    this.asked = undefined;
    return names;
  }

  /** What was asked for did not come. */
  putBack(): void {
    const later = [...this.due];
    this.due.clear();
    for (const [id, one] of [...this.asked!.keys, ...later]) this.due.set(id, one);
    this.bytes = [...this.due.keys()].reduce((sum, id) => sum + id.length, 0);
    this.asked = undefined;
  }

  /** Not to be mended. @returns the name, for the target to forget */
  drop({ key, db }: MendedKey): Buffer {
    const name = nameOf(key, db);
    this.remove(name.toString('latin1'));
    return name;
  }

  private remove(id: string): void {
    if (this.due.delete(id)) this.bytes -= id.length;
    if (this.due.size === 0) this.overflows = false;
  }
}

/** `<database>:<key>` */
function nameOf(key: Buffer, db: number): Buffer {
  return Buffer.concat([Buffer.from(`${db}:`), key]);
}
