import { InterlockError } from '../../src/errors.js';
import type { Position } from '../core/position.js';

interface Watermark {
  server: number;
  sequence: number;
}

/** A transaction that was prepared (XA) and is neither committed nor rolled back. */
interface Prepared {
  gtid: string;
  domain: number;
  sequence: number;
  /** The GTID before it in its domain; empty: it is the first one. */
  behind: string;
}

/**
 * A MariaDB GTID position: per domain, the last transaction as domain-server-sequence. It means everything of that domain
 * up to the sequence number, but for prepared XA transactions, which are named behind it: `0-1-105~0-1-100@0-1-99` is all up to 105 without
 * 100, which follows 99. Text form of the rest: https://mariadb.com/kb/en/gtid/
 */
export class MariadbPosition implements Position<MariadbPosition> {
  private readonly domains = new Map<number, Watermark>();
  /** By `domain-sequence`. */
  private readonly prepared = new Map<string, Prepared>();

  /** @throws InterlockError BadInput when `text` is no GTID position. */
  static parse(text: string): MariadbPosition {
    const position = new MariadbPosition();
    const compact = text.replace(/\s+/g, '');
    if (compact === '') return position;
    for (const part of compact.split(',')) {
      const [gtid, ...left] = part.split('~') as [string, ...string[]];
      const [domain] = numbersOf(gtid, text);
      if (position.domains.has(domain)) throw malformed(text, part);
      position.add(gtid);
      for (const one of left) {
        const [open, behind, ...more] = one.split('@') as [string, string?, ...string[]];
        if (behind === undefined || more.length > 0 || numbersOf(open, text)[0] !== domain)
          throw malformed(text, part);
        if (behind !== '' && numbersOf(behind, text)[0] !== domain) throw malformed(text, part);
        position.leaveOut(open, behind);
      }
    }
    return position;
  }

  /** Adds one transaction, `domain-server-sequence`; an older one of its domain changes nothing, unless it was left out. */
  add(gtid: string): void {
    const [domain, server, sequence] = numbersOf(gtid, gtid);
    if (this.prepared.size > 0) this.prepared.delete(`${domain}-${sequence}`);
    const known = this.domains.get(domain);
    if (known === undefined || known.sequence < sequence) this.domains.set(domain, { server, sequence });
  }

  /**
   * Goes past an XA PREPARE, which has to be read again until it is committed.
   * @param behind the GTID before it in its domain; empty: there is none
   */
  leaveOut(gtid: string, behind: string): void {
    this.add(gtid);
    const [domain, , sequence] = numbersOf(gtid, gtid);
    this.prepared.set(`${domain}-${sequence}`, { gtid, domain, sequence, behind });
  }

  has(gtid: string): boolean {
    const [domain, , sequence] = numbersOf(gtid, gtid);
    const mine = this.domains.get(domain);
    return mine !== undefined && sequence <= mine.sequence && !this.prepared.has(`${domain}-${sequence}`);
  }

  /** From where a server has to send again for all that is not in this position: as servers write it, with nothing left out. */
  get resumeAt(): string {
    const from = this.clone();
    from.prepared.clear();
    for (const { domain, sequence, behind } of this.prepared.values()) {
      const known = from.domains.get(domain);
      if (known === undefined || known.sequence < sequence) continue;
      from.domains.delete(domain);
      if (behind !== '') from.add(behind);
    }
    return from.toString();
  }

  contains(other: MariadbPosition): boolean {
    for (const [domain, { sequence }] of other.domains) {
      const mine = this.domains.get(domain);
      if (sequence > 0 && (mine === undefined || mine.sequence < sequence)) return false;
    }
    for (const [key, { domain, sequence }] of this.prepared) {
      const theirs = other.domains.get(domain);
      if (theirs !== undefined && sequence <= theirs.sequence && !other.prepared.has(key)) return false;
    }
    return true;
  }

  union(other: MariadbPosition): MariadbPosition {
    const position = this.clone();
    for (const [key, { gtid }] of this.prepared) if (other.has(gtid)) position.prepared.delete(key);
    for (const [domain, { server, sequence }] of other.domains) {
      const known = position.domains.get(domain);
      if (known === undefined || known.sequence < sequence)
        position.domains.set(domain, { server, sequence });
    }
    for (const [key, one] of other.prepared) if (!this.has(one.gtid)) position.prepared.set(key, { ...one });
    return position;
  }

  clone(): MariadbPosition {
    const position = new MariadbPosition();
    for (const [domain, entry] of this.domains) position.domains.set(domain, { ...entry });
    for (const [key, entry] of this.prepared) position.prepared.set(key, { ...entry });
    return position;
  }

  toString(): string {
    return [...this.domains]
      .sort(([a], [b]) => a - b)
      .map(([domain, { server, sequence }]) => {
        const left = [...this.prepared.values()]
          .filter((one) => one.domain === domain)
          .sort((a, b) => a.sequence - b.sequence)
          .map(({ gtid, behind }) => `~${gtid}@${behind}`);
        return `${domain}-${server}-${sequence}${left.join('')}`;
      })
      .join(',');
  }
}

function numbersOf(gtid: string, text: string): [domain: number, server: number, sequence: number] {
  const numbers = /^([0-9]+)-([0-9]+)-([0-9]+)$/.exec(gtid);
  const [domain, server, sequence] = [Number(numbers?.[1]), Number(numbers?.[2]), Number(numbers?.[3])];
  if (!Number.isSafeInteger(sequence)) throw malformed(text, gtid);
  return [domain, server, sequence];
}

function malformed(text: string, part: string): InterlockError {
  return new InterlockError(
    'BadInput',
    `${JSON.stringify(part)} is not part of a MariaDB GTID position; expected domain-server-sequence, one per domain`,
    { details: { position: text } },
  );
}
