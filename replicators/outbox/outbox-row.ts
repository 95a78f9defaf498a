import { InterlockError } from '../../src/errors.js';
import { OUTBOX_COLUMNS } from '../../src/kafka/outbox-table.js';
import type { OutboxColumn, StoredHeader } from '../../src/kafka/outbox-table.js';
import type { Header } from '../kafka/client/record-batch.js';
import { NULL, textOf } from '../mysql/literal.js';
import type { Literal } from '../mysql/literal.js';
import type { SourceTable } from '../mysql/source-table.js';
import type { RowChange } from '../mysql/transaction.js';

/** One event, as it goes to Kafka. */
export interface OutboxEvent {
  topic: string;
  key: Buffer;
  value: Buffer | null;
  headers: Header[];
}

const columnsOf = new WeakMap<SourceTable, Record<OutboxColumn, number>>();

/** The event of an inserted row. Rows are only ever deleted after that, which says nothing. @throws InterlockError LinkStopped */
export function eventOf({ table, before, after }: RowChange): OutboxEvent | null {
  if (before !== null || after === null) return null;
  let at = columnsOf.get(table);
  if (at === undefined) columnsOf.set(table, (at = readColumns(table)));
  const headers = bytesOf(after[at.headers]!);
  return {
    topic: bytesOf(after[at.topic]!)!.toString(),
    key: bytesOf(after[at.event_key]!)!,
    value: bytesOf(after[at.event_value]!),
    headers: headers === null ? [] : headersOf(headers, table.name),
  };
}

function readColumns(table: SourceTable): Record<OutboxColumn, number> {
  const found = OUTBOX_COLUMNS.map((column) => [column, table.columns.indexOf(column)] as const);
  const missing = found.filter(([, index]) => index < 0).map(([column]) => column);
  if (missing.length > 0) {
    throw new InterlockError(
      'LinkStopped',
      `${table.name} is no outbox table: it has no ${missing.join(', ')}; create it by the statement of docs/kafka-sdk.md`,
      { details: { table: table.name } },
    );
  }
  return Object.fromEntries(found) as Record<OutboxColumn, number>;
}

function headersOf(bytes: Buffer, table: string): Header[] {
  try {
    return (JSON.parse(bytes.toString()) as StoredHeader[]).map(([name, value]) => [
      Buffer.from(name),
      Buffer.from(value, 'base64'),
    ]);
  } catch (error) {
    throw new InterlockError(
      'LinkStopped',
      `${table}: headers of a row cannot be read: only outbox.add writes it`,
      {
        cause: error,
      },
    );
  }
}

/** The bytes that a literal stores; null for NULL. */
export function bytesOf(literal: Literal): Buffer | null {
  if (literal === NULL) return null;
  const hex = /^(?:_[a-z0-9]+ )?x'([0-9a-f]*)'$/.exec(literal);
  return hex === null ? Buffer.from(textOf(literal)!) : Buffer.from(hex[1]!, 'hex');
}
