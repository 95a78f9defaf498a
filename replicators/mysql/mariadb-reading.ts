import { MariadbPosition } from './mariadb-position.js';

/** Reads MariaDB's stream from a position. Behind an open XA PREPARE the server sends again what the position has: that is left out here. */
export class MariadbReading {
  readonly resumeAt: string;
  /** The GTID before the current one in its domain; empty: there is none. */
  behind = '';
  private readonly position: MariadbPosition;
  /** By domain, the GTID that was read last. */
  private readonly last = new Map<string, string>();

  constructor(position: string) {
    this.position = MariadbPosition.parse(position);
    this.resumeAt = this.position.resumeAt;
    for (const gtid of this.resumeAt.split(',')) this.last.set(domainOf(gtid), gtid);
  }

  /** @returns whether the position has the transaction that begins */
  begin(gtid: string): boolean {
    const domain = domainOf(gtid);
    this.behind = this.last.get(domain) ?? '';
    this.last.set(domain, gtid);
    return this.position.has(gtid);
  }
}

function domainOf(gtid: string): string {
  return gtid.slice(0, gtid.indexOf('-'));
}
