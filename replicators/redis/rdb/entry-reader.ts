import { InterlockError } from '../../../src/errors.js';
import type { RdbEvent } from './events.js';
import { RestorableValue } from './restorable-value.js';
import type { KeyAttributes } from './restorable-value.js';
import { moduleName, skipModuleField, skipValue } from './skip.js';
import { NEWEST_RDB_VERSION, OLDEST_RDB_VERSION, OPCODE, RDB, formatOf } from './types.js';
import type { RedisType } from './types.js';
import { NEED_MORE } from './window.js';
import type { Window } from './window.js';

/** A value that is to be decoded; the window stands at its first byte. */
export interface OpenValue extends KeyAttributes {
  type: RedisType;
  rdbType: number;
}

export interface EntryOptions {
  rawLimitBytes: number;
  targetRdbVersion: number;
  decode: 'where-needed' | 'all';
}

/** Reads entries (opcodes and keys with their values) as long as the window has them whole. */
export class EntryReader {
  private version = 0;
  private db = 0;
  private expireAtMs: number | null = null;
  private idle: number | null = null;
  private freq: number | null = null;

  constructor(
    private readonly window: Window,
    private readonly options: EntryOptions,
  ) {}

  /**
   * Adds what is read to `events`, up to the end of the window ('more'), of the file ('end'), or to a value that is not to be had as it is (that value).
   */
  read(events: RdbEvent[]): 'more' | 'end' | OpenValue {
    const { window } = this;
    for (;;) {
      const start = window.pos;
      try {
        if (this.version === 0) this.header();
        else {
          const stop = this.entry(events);
          if (stop !== null) return stop;
        }
      } catch (error) {
        if (error !== NEED_MORE) throw error;
        window.pos = start;
        // What was read is read again when more is there: it has to be twice as much each time.
        window.missing = Math.max(window.missing, window.available);
        return 'more';
      }
    }
  }

  private header(): void {
    const { window } = this;
    const text = window.take(9).toString('latin1');
    const version = Number(/^REDIS(\d{4})$/.exec(text)?.[1] ?? NaN);
    if (Number.isNaN(version)) window.bad('it does not begin with REDIS and a version', 0);
    if (version > NEWEST_RDB_VERSION || version < OLDEST_RDB_VERSION) {
      throw new InterlockError(
        'Refused',
        `the source writes RDB version ${version}; versions ${OLDEST_RDB_VERSION} to ${NEWEST_RDB_VERSION} (up to Redis 7.4) can be read`,
        { details: { version } },
      );
    }
    this.version = version;
  }

  private entry(events: RdbEvent[]): 'end' | OpenValue | null {
    const { window } = this;
    const at = window.pos;
    const opcode = window.byte();
    switch (opcode) {
      case OPCODE.EXPIRETIME_MS:
        this.expireAtMs = this.expiry(window.milliseconds());
        return null;
      case OPCODE.EXPIRETIME:
        this.expireAtMs = window.take(4).readInt32LE() * 1000;
        return null;
      case OPCODE.IDLE:
        this.idle = window.length();
        return null;
      case OPCODE.FREQ:
        this.freq = window.byte();
        return null;
      case OPCODE.AUX:
        events.push({ kind: 'aux', name: window.string().toString(), value: window.string() });
        return null;
      case OPCODE.SELECTDB:
        this.db = window.length();
        events.push({ kind: 'select', db: this.db });
        return null;
      case OPCODE.RESIZEDB:
        events.push({ kind: 'resize', keys: window.length(), expires: window.length() });
        return null;
      case OPCODE.SLOT_INFO:
        for (let field = 0; field < 3; field += 1) window.length();
        return null;
      case OPCODE.FUNCTION2:
        events.push({ kind: 'function', code: window.string() });
        return null;
      case OPCODE.FUNCTION_PRE_GA:
        throw this.refused(
          at,
          'it has functions as release candidates of Redis 7.0 saved them; use a release',
        );
      case OPCODE.MODULE_AUX:
        this.moduleAux(events);
        return null;
      case OPCODE.EOF:
        this.end(events);
        return 'end';
      default:
        return this.value(opcode, at, events);
    }
  }

  private expiry(at: bigint): number {
    const value = Number(at);
    return Number.isSafeInteger(value) ? value : this.window.bad(`a key that expires at ${at} ms`);
  }

  private moduleAux(events: RdbEvent[]): void {
    const module = moduleName(this.window.number());
    // When it is to be loaded: an opcode and a number.
    this.window.length();
    this.window.length();
    while (skipModuleField(this.window));
    events.push({ kind: 'module-aux', module });
  }

  private end(events: RdbEvent[]): void {
    const { window } = this;
    window.need(8);
    window.sum();
    const sum = window.take(8);
    const checksumOk = sum.readBigUInt64LE() === 0n ? null : true;
    if (checksumOk === true && !window.crc.isAt(sum, 0)) {
      window.bad('its checksum says that bytes before it are not those that were saved', window.pos - 8);
    }
    if (window.available > 0) window.bad('bytes follow its end');
    events.push({ kind: 'end', checksumOk, bytes: window.offset });
  }

  private value(rdbType: number, at: number, events: RdbEvent[]): OpenValue | null {
    const { window, options } = this;
    const format = formatOf(rdbType);
    if (format === undefined) return window.bad(`${rdbType} where a value or an opcode begins`, at);
    const key = window.string();
    if (rdbType === RDB.MODULE_PRE_GA) {
      throw this.refused(at, `key ${show(key)} is of a module, as release candidates of Redis 4.0 saved it`);
    }
    const attributes: KeyAttributes = {
      db: this.db,
      key,
      expireAtMs: this.expireAtMs,
      idle: this.idle,
      freq: this.freq,
    };
    const known = format.since <= options.targetRdbVersion && options.decode !== 'all';
    if (!known || !this.skipWhole(rdbType)) {
      this.forget();
      return { ...attributes, type: format.type, rdbType };
    }
    const body = this.body;
    if (body !== null) {
      const version = Math.min(this.version, options.targetRdbVersion);
      events.push(new RestorableValue(attributes, format.type, rdbType, body, version));
    }
    this.forget();
    return null;
  }

  /** Of the value that was skipped; null: it has no elements. */
  private body: Buffer | null = null;

  /** Moves behind the value; false (and where it was) when it is larger than what may be sent whole. */
  private skipWhole(rdbType: number): boolean {
    const { window } = this;
    const start = window.pos;
    const limit = this.options.rawLimitBytes;
    try {
      const elements = skipValue(window, rdbType);
      if (window.pos - start <= limit) {
        this.body = elements ? window.data.subarray(start, window.pos) : null;
        return true;
      }
    } catch (error) {
      if (error !== NEED_MORE) throw error;
      const read = window.pos - start;
      const have = window.data.length - start;
      if (Math.max(have, read + window.missing) <= limit) throw error;
    }
    window.pos = start;
    return false;
  }

  private forget(): void {
    this.expireAtMs = this.idle = this.freq = null;
  }

  private refused(at: number, what: string): InterlockError {
    const offset = this.window.offset - this.window.pos + at;
    return new InterlockError('Refused', `the source's RDB file cannot be read at byte ${offset}: ${what}`, {
      details: { offset },
    });
  }
}

/** A key, for people. */
export function show(key: Buffer): string {
  const text = key.toString('utf8', 0, 80);
  return JSON.stringify(key.length > 80 ? `${text}…` : text);
}
