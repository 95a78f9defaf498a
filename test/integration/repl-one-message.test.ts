import mysql from 'mysql2/promise';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TableBatch } from '../../replicators/mysql/batch.js';
import { oneMessage } from '../../replicators/mysql/one-message.js';
import type { Statement } from '../../replicators/mysql/statements.js';
import { startTestMysql } from '../support/mysql.js';
import type { TestMysql } from '../support/mysql.js';

const START = 'START TRANSACTION';
const CHECKPOINT = 'UPDATE t.checkpoint SET seq=seq+1 WHERE generation=7';

function statement(sql: string, kind: Statement['kind'], more: Partial<Statement> = {}): Statement {
  return { sql, kind, affected: 1, table: {} as TableBatch, keys: [], ...more };
}

const INSERT = statement('INSERT INTO t.row_ VALUES (2)', 'insert');

describe.each(['mysql', 'mariadb'] as const)('a transaction in one message on %s', (flavour) => {
  let server: TestMysql;
  let connection: Connection;
  beforeAll(async () => {
    server = await startTestMysql(flavour);
    const { host, port, user, password } = server;
    connection = await mysql.createConnection({ host, port, user, password, multipleStatements: true });
    await connection.query(
      `CREATE DATABASE t; CREATE TABLE t.checkpoint (generation INT, seq INT); INSERT INTO t.checkpoint VALUES (7, 0);
       CREATE TABLE t.row_ (id INT PRIMARY KEY)`,
    );
  });
  afterAll(async () => {
    await connection?.end();
    await server?.stop();
  });

  async function send(
    head: string[],
    statements: Statement[],
  ): Promise<{ errno: number | null; ids: number[]; seq: number }> {
    await connection.query(
      'DELETE FROM t.row_; INSERT INTO t.row_ VALUES (1); UPDATE t.checkpoint SET seq=0',
    );
    const errno = await connection.query(oneMessage(head, statements)!.join(';')).then(
      () => null,
      (error: { errno: number }) => error.errno,
    );
    // What was not committed goes.
    await connection.query('ROLLBACK');
    const [rows] = await connection.query<RowDataPacket[]>('SELECT id FROM t.row_ ORDER BY id');
    const [[checkpoint]] = await connection.query<RowDataPacket[]>('SELECT seq FROM t.checkpoint');
    return { errno, ids: rows.map(({ id }) => id as number), seq: checkpoint!['seq'] as number };
  }
  const NOTHING = { ids: [1], seq: 0 };
  const UNKNOWN_LOCALE = 1649;

  it('is committed when each statement did what it must have done', async () => {
    const deleted = statement('SELECT id FROM t.row_ WHERE id=9', 'deleted', { affected: null });
    const gone = statement('DELETE FROM t.row_ WHERE id=9', 'delete', { mayBeGone: true });
    const session = statement('SET SESSION foreign_key_checks=0', 'session', { affected: null });
    const any = statement('DELETE FROM t.row_ WHERE id>100', 'delete', { affected: null });
    expect(await send([START, CHECKPOINT], [session, INSERT, deleted, gone, any])).toEqual({
      errno: null,
      ids: [1, 2],
      seq: 1,
    });
  });

  it('writes nothing when another attempt holds the checkpoint', async () => {
    const other = CHECKPOINT.replace('7', '8');
    expect(await send([START, other], [INSERT])).toEqual({ errno: UNKNOWN_LOCALE, ...NOTHING });
  });

  it.each([
    ['changes fewer rows', statement('DELETE FROM t.row_ WHERE id=9', 'delete')],
    ['changes more rows', statement('DELETE FROM t.row_', 'delete')],
    [
      'changes more rows than the one that may be gone',
      statement('DELETE FROM t.row_', 'delete', { mayBeGone: true }),
    ],
    [
      'finds a row that was deleted later',
      statement('SELECT id FROM t.row_ WHERE id=1', 'deleted', { affected: null }),
    ],
  ])('writes nothing when a statement %s', async (_what, wrong) => {
    expect(await send([START, CHECKPOINT], [INSERT, wrong])).toEqual({ errno: UNKNOWN_LOCALE, ...NOTHING });
    expect(
      await send([START, CHECKPOINT], [INSERT, wrong, statement('INSERT INTO t.row_ VALUES (3)', 'insert')]),
    ).toEqual({ errno: UNKNOWN_LOCALE, ...NOTHING });
  });

  it('writes nothing when a statement is refused', async () => {
    const twice = statement('INSERT INTO t.row_ VALUES (2)', 'insert');
    expect(await send([START, CHECKPOINT], [INSERT, twice])).toEqual({ errno: 1062, ...NOTHING });
  });
});

it('rows that have to be looked at, many statements and long ones go in steps', () => {
  const check = statement('SELECT id FROM t.row_ WHERE id=1 FOR UPDATE', 'check', { affected: null });
  expect(oneMessage([START, CHECKPOINT], [check, INSERT])).toBeUndefined();
  expect(oneMessage([START, CHECKPOINT], Array<Statement>(7).fill(INSERT))).toBeUndefined();
  expect(
    oneMessage([START, CHECKPOINT], [statement(`SELECT '${'x'.repeat(20_000)}'`, 'insert')]),
  ).toBeUndefined();
});
