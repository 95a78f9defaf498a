import type { Connection, RowDataPacket } from 'mysql2/promise';

/** What `ddl apply` has recorded in a store, as far as a link into it has to know. */
export interface DdlSteps {
  /** `schema.table` and `schema.table.column` that a run drops on all sides → whether it still does. */
  dropped: ReadonlyMap<string, { running: boolean }>;
  /** Tables that a run changes now → which one. */
  changing: ReadonlyMap<string, string>;
}

const NO_SUCH_TABLE = 1146;

/** A store that an Interlock of before has set up has no such records. */
export async function readDdlSteps(connection: Connection): Promise<DdlSteps> {
  const dropped = new Map<string, { running: boolean }>();
  const changing = new Map<string, string>();
  try {
    const [rows] = await connection.query<RowDataPacket[]>(
      'SELECT change_id, name, dropped, state FROM interlock.ddl_step',
    );
    for (const row of rows as { change_id: string; name: string; dropped: string | null; state: string }[]) {
      const running = row.state !== 'done' && row.state !== 'failed';
      if (running) changing.set(row.name, row.change_id);
      for (const gone of row.dropped === null ? [] : (JSON.parse(row.dropped) as string[]))
        dropped.set(gone, { running: running || dropped.get(gone)?.running === true });
    }
  } catch (error) {
    if ((error as { errno?: number }).errno !== NO_SUCH_TABLE) throw error;
  }
  return { dropped, changing };
}
