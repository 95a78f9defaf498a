import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import { CONTROL_TABLES } from '../../src/fence/control-schema.js';
import { InterlockError } from '../../src/errors.js';
import { startTestMysql } from '../support/mysql.js';
import {
  dump,
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  unlogged,
  until,
} from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';

const SCHEMA = 't_failover';
const TABLES = ['counter', 'entry'].map((table) => `${SCHEMA}.${table}`);
const STATEMENTS = [
  `CREATE DATABASE ${SCHEMA}`,
  `CREATE TABLE ${SCHEMA}.counter (id INT PRIMARY KEY, n INT NOT NULL)`,
  `CREATE TABLE ${SCHEMA}.entry (id INT PRIMARY KEY AUTO_INCREMENT, n INT NOT NULL)`,
  `INSERT INTO ${SCHEMA}.counter VALUES (1, 0), (2, 0)`,
];

/** Side a has a replica of its own, by the servers' own replication; a is lost, and the replica takes its place. */
describe.each(['mysql', 'mariadb'] as const)('a server of %s fails over to its own replica', (flavour) => {
  let pair: Pair;
  let replica: Side;
  const running: RunningLink[] = [];

  beforeAll(async () => {
    const [both, server] = await Promise.all([startPair(flavour), startTestMysql(flavour, { offset: 1 })]);
    pair = both;
    replica = {
      server,
      pool: server.pool({
        dateStrings: true,
        supportBigNumbers: true,
        bigNumberStrings: true,
        timezone: '+00:00',
      }),
    };
    await unlogged(replica, ['CREATE DATABASE interlock', ...Object.values(CONTROL_TABLES)]);
    for (const side of [pair.a, pair.b, replica]) await unlogged(side, STATEMENTS);
    const { host, port, user, password } = pair.a.server;
    await replica.pool.query(
      flavour === 'mysql'
        ? `CHANGE REPLICATION SOURCE TO SOURCE_HOST='${host}', SOURCE_PORT=${port}, SOURCE_USER='${user}', SOURCE_PASSWORD='${password}', SOURCE_AUTO_POSITION=1`
        : `CHANGE MASTER TO MASTER_HOST='${host}', MASTER_PORT=${port}, MASTER_USER='${user}', MASTER_PASSWORD='${password}', MASTER_USE_GTID=slave_pos`,
    );
    await replica.pool.query('START SLAVE');
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    await replica?.server.stop();
    await pair?.stop();
  });

  const start = async (config: LinkConfig, from: string | null): Promise<RunningLink> => {
    const link = await runLink(config, from);
    running.push(link);
    return link;
  };
  const tables = { [TABLES[0]!]: { unrouted: true as const }, [TABLES[1]!]: { unrouted: true as const } };
  const atReplica = (): Pair => ({ ...pair, a: replica });
  /** Each transaction counts one up: one that is lost or applied twice shows. */
  const write = async (side: Side, counter: number, times: number): Promise<void> => {
    for (let i = 0; i < times; i++) {
      const connection = await side.pool.getConnection();
      await connection.beginTransaction();
      await connection.query(`UPDATE ${SCHEMA}.counter SET n = n + 1 WHERE id = ${counter}`);
      await connection.query(
        `INSERT INTO ${SCHEMA}.entry (n) SELECT n FROM ${SCHEMA}.counter WHERE id = ${counter}`,
      );
      await connection.commit();
      connection.release();
    }
  };
  const counters = async (side: Side): Promise<number[]> =>
    (await rows(side, `SELECT n FROM ${SCHEMA}.counter ORDER BY id`)).map(({ n }) => Number(n));

  it('links in both directions go on by GTID, and a replica that lacks what was applied is diverged', async () => {
    const ab = await start(linkConfig(pair, 'a', SCHEMA, tables), 'now');
    const ba = await start(linkConfig(pair, 'b', SCHEMA, tables), 'now');
    await write(pair.a, 1, 20);
    await write(pair.b, 2, 20);
    await settled(ab, pair.a);
    await settled(ba, pair.b);
    // What the links have not carried yet: they find it at the replica.
    await Promise.all([ab.stop(), ba.stop()]);
    await write(pair.a, 1, 20);
    await write(pair.b, 2, 20);
    await until(async () => (await counters(replica))[0] === 40, 'the replica has all of its source', 30_000);
    await pair.a.server.kill('SIGKILL');
    await replica.pool.query('STOP SLAVE');
    await replica.pool.query('RESET SLAVE ALL');
    await write(replica, 1, 20);

    const promoted = atReplica();
    const next = await start(linkConfig(promoted, 'a', SCHEMA, tables), null);
    const back = await start(linkConfig(promoted, 'b', SCHEMA, tables), null);
    await write(replica, 1, 20);
    await write(pair.b, 2, 20);
    await settled(next, replica);
    await settled(back, pair.b);
    expect(await counters(pair.b)).toEqual([80, 60]);
    for (const table of TABLES) expect(await dump(pair.b, table)).toEqual(await dump(replica, table));
    expect(next.status()).toMatchObject({ state: 'streaming', lastError: null });

    // The lost server comes back as it was: it lacks what the link has applied since.
    await Promise.all([next.stop(), back.stop()]);
    await pair.a.server.restart();
    const stale = await start(linkConfig(pair, 'a', SCHEMA, tables), null);
    const error = await stale.ended;
    expect(error).toBeInstanceOf(InterlockError);
    expect((error as InterlockError).details).toMatchObject({ state: 'diverged' });
    expect(await counters(pair.b)).toEqual([80, 60]);
  });
});
