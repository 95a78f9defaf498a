import type { CommandBytes } from './block.js';
import type { StreamPlace } from './checkpoint.js';
import { encodeCommand } from './connection.js';
import type { StreamCommand } from './resp/command-reader.js';

/** What is left out is kept for so long as it could come back; with more than this, keys are carried instead. */
const MOST_BYTES = 8 * 1024 * 1024;
const MOST_KEYS = 100_000;
/** The source says that a key has expired; that does not come when it was flushed away. */
const FORGET_MS = 60_000;
/** The source's clock is known no better. */
const CLOCK_MS = 1_000;

interface LeftOut {
  expiresAt: number;
  db: number;
  key: Buffer;
  /** From the one that gave the key its value on. */
  commands: Buffer[];
  /** In the source's stream, before all of them. */
  from: StreamPlace;
}

/** What a command says of a key's life: as of when (ms since the epoch) it ends; Infinity: it has no end; null: it says nothing. */
export interface Life {
  endsAt: number | null;
  /** The key's value is new, whatever was there. */
  overwrites: boolean;
}

const NOTHING: Life = { endsAt: null, overwrites: false };

/**
 * Leaves out keys that live shorter than a limit: their value, and every command of theirs, until they expire. The target then has no such key (what it
 * had is removed). A key that is made to live longer, or that a command of several keys needs, is carried after all, from its first command on.
 */
export class ShortLived {
  private readonly keys = new Map<string, LeftOut>();
  private bytes = 0;
  /** Commands that were left out for good. */
  dropped = 0;

  constructor(
    private readonly minTtlMs: number,
    /** The source's clock. */
    private readonly now: () => number,
  ) {}

  get isEmpty(): boolean {
    return this.keys.size === 0;
  }

  /** The key lies on the target as at the source. */
  private forget(id: string, found: LeftOut): void {
    this.keys.delete(id);
    for (const command of found.commands) this.bytes -= command.length;
  }

  has(key: Buffer, db: number): boolean {
    return this.keys.size > 0 && this.keys.has(idOf(db, key));
  }

  /** From where on what may still live can be read again; null: nothing may. */
  oldest(): StreamPlace | null {
    const before = this.now() - CLOCK_MS;
    // The keys are in the order of their places.
    for (const { expiresAt, from } of this.keys.values()) if (expiresAt >= before) return from;
    return null;
  }

  all(): { key: Buffer; db: number }[] {
    return [...this.keys.values()];
  }

  /**
   * A command of one key.
   * @param from a place before it, and before what `into` has
   * @returns false: it is left out; nothing is to be done
   */
  carries(
    name: string,
    command: StreamCommand,
    key: Buffer,
    db: number,
    into: CommandBytes,
    from: StreamPlace,
  ): boolean {
    if (this.minTtlMs === 0) return true;
    const found = this.keys.size === 0 ? undefined : this.keys.get(idOf(db, key));
    const life = lifeOf(name, command);
    if (found === undefined && life === NOTHING) return true;
    const short = life.endsAt !== null && life.endsAt - this.now() < this.minTtlMs;
    if (found === undefined) return short ? !this.leaveOut(command, key, db, life, into, from) : true;
    const id = idOf(db, key);
    if (name === 'del' || name === 'unlink') {
      this.dropped += found.commands.length + 1;
      this.forget(id, found);
      return false;
    }
    if (life.overwrites) {
      this.dropped += found.commands.length;
      this.forget(id, found);
      return short ? !this.leaveOut(command, key, db, life, null, from) : true;
    }
    if (life.endsAt !== null && !short) {
      this.bringBack(id, found, into);
      return true;
    }
    if (this.bytes + command.bytes > MOST_BYTES) {
      this.bringBack(id, found, into);
      return true;
    }
    if (short) found.expiresAt = life.endsAt!;
    found.commands.push(Buffer.from(command.raw));
    this.bytes += command.bytes;
    return false;
  }

  /** A command of several keys needs them as they are at the source. */
  need(keys: readonly Buffer[], db: number, into: CommandBytes): void {
    if (this.keys.size === 0) return;
    for (const key of keys) {
      const id = idOf(db, key);
      const found = this.keys.get(id);
      if (found !== undefined) this.bringBack(id, found, into);
    }
  }

  /** One of the keys of a DEL. @returns whether the target has nothing to delete */
  gone(key: Buffer, db: number): boolean {
    if (this.keys.size === 0) return false;
    const id = idOf(db, key);
    const found = this.keys.get(id);
    if (found === undefined) return false;
    this.dropped += found.commands.length;
    this.forget(id, found);
    return true;
  }

  /** From time to time: keys whose end nobody has told. */
  sweep(): void {
    const before = this.now() - FORGET_MS;
    for (const [id, found] of this.keys) if (found.expiresAt < before) this.forget(id, found);
  }

  private bringBack(id: string, found: LeftOut, into: CommandBytes): void {
    for (const raw of found.commands) into.addRaw(raw, found.db);
    into.forget(found.key, found.db);
    this.forget(id, found);
  }

  /** @param into null: the target does not have the key. @returns whether it is left out */
  private leaveOut(
    command: StreamCommand,
    key: Buffer,
    db: number,
    life: Life,
    into: CommandBytes | null,
    from: StreamPlace,
  ): boolean {
    if (this.keys.size >= MOST_KEYS || this.bytes + command.bytes > MOST_BYTES) return false;
    const commands = life.overwrites ? [] : into === null ? null : madeHere(key, db, into);
    // An older key that is given a short life lies on the target: it takes it over, and the deletion that ends it.
    if (commands === null) return false;
    const bytes = commands.reduce((sum, made) => sum + made.bytes, command.bytes);
    if (this.bytes + bytes > MOST_BYTES) return false;
    for (const made of commands) into!.remove(made);
    if (into !== null) {
      into.addRaw(encodeCommand(['UNLINK', key]), db);
      into.forget(key, db);
    }
    const kept = [...commands, command].map(({ raw }) => Buffer.from(raw));
    this.keys.set(idOf(db, key), {
      ...{ expiresAt: life.endsAt!, db, key: Buffer.from(key), commands: kept, from },
    });
    this.bytes += bytes;
    return true;
  }
}

/** The latest commands of the key, from the one that made it on; null: it was not made by one of the latest. */
function madeHere(key: Buffer, db: number, into: CommandBytes): StreamCommand[] | null {
  const commands: StreamCommand[] = [];
  for (const { command, db: itsDb } of into.latest()) {
    if (itsDb !== db || command.argc < 2) continue;
    const name = command.name;
    // A command of several keys may have used it.
    const only = command.arg(1).equals(key);
    if (!only) {
      if (mentions(command, key)) return null;
      continue;
    }
    commands.unshift(command);
    const life = lifeOf(name, command);
    if (life.overwrites) return commands;
    if (!SIMPLE.has(name)) return null;
  }
  return null;
}

function mentions(command: StreamCommand, key: Buffer): boolean {
  for (let i = 2; i < command.argc; i++)
    if (command.argBytes(i) === key.length && command.arg(i).equals(key)) return true;
  return false;
}

/** Of one key, and do not read others. */
const SIMPLE = new Set([
  'append', 'setrange', 'setbit', 'incr', 'decr', 'incrby', 'decrby', 'pexpireat', 'persist',
]); // prettier-ignore

function idOf(db: number, key: Buffer): string {
  return `${db}:${key.toString('latin1')}`;
}

/** Of what a source sends: Redis 7 makes every other command that gives a life one of these, with the time at which it ends. */
function lifeOf(name: string, command: StreamCommand): Life {
  switch (name) {
    case 'set':
      return lifeOfSet(command);
    case 'pexpireat':
      return { endsAt: numberAt(command, 2), overwrites: false };
    case 'persist':
      return { endsAt: Infinity, overwrites: false };
    case 'restore': {
      const endsAt = numberAt(command, 2);
      return { endsAt: endsAt === 0 ? Infinity : endsAt, overwrites: true };
    }
    default:
      return NOTHING;
  }
}

function lifeOfSet(command: StreamCommand): Life {
  if (command.argc === 3) return OVERWRITTEN;
  const words = wordsFrom(command, 3);
  // The key keeps the life it has.
  if (words.includes('keepttl')) return NOTHING;
  const at = words.indexOf('pxat');
  return at < 0 ? OVERWRITTEN : { endsAt: Number(words[at + 1]), overwrites: true };
}
const OVERWRITTEN: Life = { endsAt: Infinity, overwrites: true };

function wordsFrom(command: StreamCommand, from: number): string[] {
  const words: string[] = [];
  for (let i = from; i < command.argc; i++) words.push(command.arg(i).toString('latin1').toLowerCase());
  return words;
}

function numberAt(command: StreamCommand, index: number): number {
  return Number(command.arg(index).toString('latin1'));
}
