import type { PoolConnection } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { quarantineUpdate } from '../../replicators/mysql/records.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import {
  createOnBoth,
  dump,
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  unrouted,
  until,
} from '../support/replication.js';
import type { Pair, RunningLink } from '../support/replication.js';

/** The most is sixteen times that, and less than a row lock is waited for: to the link, a row that is locked is a statement that does not end. */
const ANSWER_MS = 200;

describe.each(['mysql', 'mariadb'] as const)('a statement that does not end on a target of %s', (flavour) => {
  let pair: Pair;
  const running: RunningLink[] = [];
  const blockers: PoolConnection[] = [];
  beforeAll(async () => {
    pair = await startPair(flavour);
  });
  afterEach(async () => {
    for (const blocker of blockers.splice(0)) blocker.destroy();
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    await pair?.stop();
  });

  const prepare = async (schema: string, overrides: Partial<LinkConfig> = {}): Promise<RunningLink> => {
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.item (id INT PRIMARY KEY, n INT)`,
      `INSERT INTO ${schema}.item VALUES (1, 0), (2, 0)`,
    ]);
    const config = linkConfig(pair, 'a', schema, unrouted(schema, ['item']), {
      answerMs: ANSWER_MS,
      ...overrides,
    });
    const link = await runLink(config);
    running.push(link);
    return link;
  };
  const holding = async (statements: string[]): Promise<PoolConnection> => {
    const blocker = await pair.b.pool.getConnection();
    blockers.push(blocker);
    for (const statement of statements) await blocker.query(statement);
    return blocker;
  };
  const locked = (schema: string): Promise<PoolConnection> =>
    holding(['START TRANSACTION', `SELECT n FROM ${schema}.item WHERE id = 1 FOR UPDATE`]);
  const record = async (link: RunningLink): Promise<Record<string, unknown>> =>
    (
      await rows(
        pair.b,
        `SELECT id, gtid, state, passed, tries, reason FROM interlock.quarantine WHERE link = '${link.config.link}'`,
      )
    )[0]!;

  it('that waits for the lock of a table is named, and goes through when the lock is gone', async () => {
    const schema = 's_lock';
    const link = await prepare(schema);
    const { generation } = link.status();
    const blocker = await holding([`LOCK TABLES ${schema}.item READ`]);
    await pair.a.pool.query(`UPDATE ${schema}.item SET n = 1 WHERE id = 1`);
    // More often than a statement is tried that takes too long by itself.
    await until(
      () => link.status().generation > generation + 8,
      'it is tried again',
      120_000,
      () => JSON.stringify(link.status()),
    );
    // Said while it is tried, too.
    await until(() => link.status().state === 'streaming', 'it streams', 60_000);
    const said = link.status().lastError;
    expect(said).toMatchObject({ code: 'Unavailable' });
    expect(said!.message).toMatch(
      /update of s_lock\.item \(1 rows\).* got no answer in [\d.]+ s .*Waiting for .*lock.*; transaction .*SHOW FULL PROCESSLIST on dc-b/,
    );
    await blocker.query('UNLOCK TABLES');
    await settled(link, pair.a);
    expect(await dump(pair.b, `${schema}.item`)).toEqual(await dump(pair.a, `${schema}.item`));
    expect(link.status()).toMatchObject({ quarantined: 0, lastError: null });
  });

  it('is kept aside after bounded tries, and the link stops before its transaction, alone', async () => {
    const schema = 's_stop';
    const link = await prepare(schema);
    await locked(schema);
    // Those around it are not to blame.
    await pair.a.pool.query(`UPDATE ${schema}.item SET n = 1 WHERE id = 2`);
    await pair.a.pool.query(`UPDATE ${schema}.item SET n = 1 WHERE id = 1`);
    await pair.a.pool.query(`UPDATE ${schema}.item SET n = 2 WHERE id = 2`);
    const error = await link.ended;
    expect(error).toMatchObject({ code: 'LinkStopped', details: { kind: 'quarantined' } });
    const { gtid, state, passed, reason } = await record(link);
    expect({ state, passed }).toEqual({ state: 'open', passed: 0 });
    expect(String(reason)).toMatch(/s_stop\.item \(1 rows\).* got no answer in 3\.2 s/);
    expect((error as Error).message).toContain(`stopped before ${String(gtid)}`);
    expect(await rows(pair.b, `SELECT n FROM ${schema}.item WHERE id = 2`)).toEqual([{ n: 1 }]);
    blockers.splice(0).forEach((blocker) => blocker.destroy());
    const again = await runLink(link.config, null);
    running.push(again);
    await settled(again, pair.a);
    expect(await dump(pair.b, `${schema}.item`)).toEqual(await dump(pair.a, `${schema}.item`));
    expect(await record(again)).toMatchObject({ state: 'applied' });
  });

  it('go-on: the link goes on behind it, and a retry is bounded, too', async () => {
    const schema = 's_on';
    const link = await prepare(schema, { onQuarantine: 'go-on' });
    await locked(schema);
    await pair.a.pool.query(`UPDATE ${schema}.item SET n = 1 WHERE id = 1`);
    await pair.a.pool.query(`UPDATE ${schema}.item SET n = 1 WHERE id = 2`);
    const there = async (): Promise<boolean> =>
      (await rows(pair.b, `SELECT n FROM ${schema}.item WHERE id = 2 AND n = 1`)).length === 1;
    await until(there, 'the link goes on', 120_000, () => JSON.stringify(link.status()));
    const { id, state, passed } = await record(link);
    expect({ state, passed }).toEqual({ state: 'open', passed: 1 });
    const retry = (): Promise<unknown> => pair.b.pool.query(quarantineUpdate(Number(id), 'open', 'retry'));
    await retry();
    await until(
      async () => Number((await record(link))['tries']) === 2,
      'it is given up',
      120_000,
      () => JSON.stringify(link.status()),
    );
    expect(await record(link)).toMatchObject({
      state: 'open',
      reason: expect.stringContaining('got no answer') as string,
    });
    blockers.splice(0).forEach((blocker) => blocker.destroy());
    await retry();
    await until(async () => (await record(link))['state'] === 'applied', 'it is applied', 60_000);
    await settled(link, pair.a);
    expect(await dump(pair.b, `${schema}.item`)).toEqual(await dump(pair.a, `${schema}.item`));
  });
});
