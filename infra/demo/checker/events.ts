import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { WriteRecord } from '../load/journal.js';
import { EVENTS } from '../schema.sql.js';
import type { EventKind } from '../schema.sql.js';
import type { LedgerFinding } from './ledger.js';

/** One time that an event was handled. */
export interface Handling {
  kind: EventKind;
  key: string;
  requestId: string;
  step: string;
  seq: number;
  /** The highest of the key that was handled before. */
  before: number;
  redelivered: boolean;
}

export interface EventBooks {
  handlings: Handling[];
  /** By kind and key: how many events were written, and up to which they were handled. */
  keys: { kind: EventKind; key: string; written: number; handled: number }[];
}

const KINDS = Object.keys(EVENTS) as EventKind[];
const POLL_MS = 200;

/**
 * With the load paused, the consumers handle what is left, as long as that goes on: an event that does not come in `timeoutMs` after the last one is
 * found by the audit.
 */
export async function waitUntilHandled(connections: readonly Connection[], timeoutMs: number): Promise<void> {
  let deadline = Date.now() + timeoutMs;
  let before = -1;
  for (;;) {
    const keys = (await Promise.all(connections.map(readKeys))).flat();
    const total = keys.reduce((sum, { handled }) => sum + handled, 0);
    if (total > before) deadline = Date.now() + timeoutMs;
    before = total;
    if (keys.every(({ written, handled }) => written <= handled) || Date.now() > deadline) return;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Returns when some event was handled in each data center: a consumer group begins to work seconds after its members have started. */
export async function waitUntilConsumed(
  connections: readonly Connection[],
  timeoutMs: number,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const dcs = new Set<string>();
    for (const connection of connections) {
      const [rows] = await connection.query<RowDataPacket[]>('SELECT DISTINCT dc FROM shop.wallet_handled');
      for (const row of rows) dcs.add(String(row['dc']));
    }
    if (dcs.size >= connections.length || Date.now() > deadline) return;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

export async function readEvents(connection: Connection): Promise<EventBooks> {
  const handlings: Handling[] = [];
  for (const kind of KINDS) {
    const [rows] = await connection.query<RowDataPacket[]>(
      `SELECT CONCAT_WS('/', ${EVENTS[kind].columns.join(', ')}) AS k, request_id, step, seq, seq_before, redelivered
       FROM shop.${kind}_handled ORDER BY id`,
    );
    for (const row of rows) {
      handlings.push({
        ...{ kind, key: String(row['k']), requestId: String(row['request_id']), step: String(row['step']) },
        ...{ seq: Number(row['seq']), before: Number(row['seq_before']) },
        redelivered: Number(row['redelivered']) === 1,
      });
    }
  }
  return { handlings, keys: await readKeys(connection) };
}

async function readKeys(connection: Connection): Promise<EventBooks['keys']> {
  const keys: EventBooks['keys'] = [];
  for (const kind of KINDS) {
    const { columns } = EVENTS[kind];
    const [rows] = await connection.query<RowDataPacket[]>(
      `SELECT CONCAT_WS('/', ${columns.join(', ')}) AS k, e.seq AS written, COALESCE(s.seq, 0) AS handled
       FROM shop.${kind}_emitted e LEFT JOIN shop.${kind}_seen s USING (${columns.join(', ')})`,
    );
    for (const row of rows) {
      const [written, handled] = [Number(row['written']), Number(row['handled'])];
      keys.push({ kind, key: String(row['k']), written, handled });
    }
  }
  return keys;
}

/** Every acknowledged write's events are handled, none is left out, in order of each key; again only where it is marked. Pure. */
export function auditEvents(
  journal: readonly WriteRecord[],
  { handlings, keys }: EventBooks,
): LedgerFinding[] {
  const findings: LedgerFinding[] = [];
  const find = (kind: LedgerFinding['kind'], requestId: string | null, message: string): void =>
    void findings.push({ kind, requestId, message });
  const handled = new Set<string>();
  for (const { kind, key, requestId, step, seq, before, redelivered } of handlings) {
    handled.add(`${requestId} ${step}`);
    const what = `event ${seq} of ${kind} ${key}`;
    if (seq > before + 1) find('disorder', requestId, `${what} was handled behind ${before}`);
    else if (seq <= before && !redelivered)
      find('doubled', requestId, `${what} was handled again, and not marked as redelivered`);
  }
  for (const { kind, key, written, handled: upTo } of keys) {
    if (upTo !== written)
      find('lost', null, `${kind} ${key} has ${written} events, handled are those up to ${upTo}`);
  }
  for (const write of journal) {
    if (write.kind === 'visit' || write.status !== 'acked') continue;
    const steps = write.kind === 'deduction' ? ['deduction'] : ['debit', 'credit'];
    for (const step of steps)
      if (!handled.has(`${write.id} ${step}`))
        find('lost', write.id, `its ${step} was acknowledged, and no event of it was handled`);
  }
  return findings;
}
