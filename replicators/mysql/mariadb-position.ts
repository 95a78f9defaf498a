import { InterlockError } from '../../src/errors.js';
import type { Position } from '../core/position.js';

/**
 * A MariaDB GTID position: per domain, the last transaction as domain-server-sequence. It means everything of that domain
 * up to the sequence number. Text form: https://mariadb.com/kb/en/gtid/
 */
export class MariadbPosition implements Position<MariadbPosition> {
  private readonly domains = new Map<number, { server: number; sequence: number }>();

  /** @throws InterlockError BadInput when `text` is no GTID position. */
  static parse(text: string): MariadbPosition {
    const position = new MariadbPosition();
    const compact = text.replace(/\s+/g, '');
    if (compact === '') return position;
    for (const part of compact.split(',')) {
      const numbers = /^([0-9]+)-([0-9]+)-([0-9]+)$/.exec(part);
      const domain = Number(numbers?.[1]);
      if (!numbers || position.domains.has(domain)) throw malformed(text, part);
      position.add(part);
    }
    return position;
  }

  /** Adds one transaction, `domain-server-sequence`; an older one of its domain changes nothing. */
  add(gtid: string): void {
    const [domain, server, sequence] = gtid.split('-').map(Number);
    if (domain === undefined || server === undefined || !Number.isSafeInteger(sequence))
      throw malformed(gtid, gtid);
    const known = this.domains.get(domain);
    if (known === undefined || known.sequence < sequence!)
      this.domains.set(domain, { server, sequence: sequence! });
  }

  contains(other: MariadbPosition): boolean {
    for (const [domain, { sequence }] of other.domains) {
      const mine = this.domains.get(domain);
      if (sequence > 0 && (mine === undefined || mine.sequence < sequence)) return false;
    }
    return true;
  }

  union(other: MariadbPosition): MariadbPosition {
    const position = this.clone();
    for (const [domain, { server, sequence }] of other.domains)
      position.add(`${domain}-${server}-${sequence}`);
    return position;
  }

  clone(): MariadbPosition {
    const position = new MariadbPosition();
    for (const [domain, entry] of this.domains) position.domains.set(domain, { ...entry });
    return position;
  }

  toString(): string {
    return [...this.domains]
      .sort(([a], [b]) => a - b)
      .map(([domain, { server, sequence }]) => `${domain}-${server}-${sequence}`)
      .join(',');
  }
}

function malformed(text: string, part: string): InterlockError {
  return new InterlockError(
    'BadInput',
    `${JSON.stringify(part)} is not part of a MariaDB GTID position; expected domain-server-sequence, one per domain`,
    { details: { position: text } },
  );
}
