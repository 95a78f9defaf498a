import mysql from 'mysql2/promise';
import type { Connection } from 'mysql2/promise';
import { bucketOf, bucketUnit } from '../../../src/routing/units.js';
import type { LinkConfig } from '../../../replicators/mysql/link-config.js';
import type { Side } from '../../support/replication.js';
import { Random } from './random.js';

const SCHEMA = 'soak';
const WRITERS = 2;
const USERS = 12;
/** So that the load does not take the machine from what is tested. */
const PAUSE_MS = 4;
const RETRY_MS = 100;
/** One transaction in so many is larger than what a link keeps in memory. */
const LARGE_EVERY = 500;
const OWNER = { east: 'a', west: 'b' } as const;
type Region = keyof typeof OWNER;
const REGIONS = Object.keys(OWNER) as Region[];

export const SOAK_SCHEMA = SCHEMA;
export const SOAK_TABLES = ['counter', 'journal', 'wallet', 'entry', 'seat'].map((t) => `${SCHEMA}.${t}`);
export const SOAK_ROUTING: LinkConfig['tables'] = {
  [`${SCHEMA}.counter`]: { unrouted: true },
  [`${SCHEMA}.journal`]: { unrouted: true },
  [`${SCHEMA}.seat`]: { unrouted: true },
  [`${SCHEMA}.wallet`]: { userId: 'user_id', region: 'region' },
  [`${SCHEMA}.entry`]: { userId: 'user_id', region: 'region' },
};
export const SOAK_MAPPING: LinkConfig['mapping'] = { defaultRegion: 'east', regions: REGIONS, segments: {} };

const usersOf = (region: Region): string[] => Array.from({ length: USERS }, (_, i) => `${region}-${i}`);
const writersOf = (side: 'a' | 'b'): number[] =>
  Array.from({ length: WRITERS }, (_, i) => (side === 'a' ? 1 : 1001) + i);
/** Seats of a writer: nobody else writes them. */
const seatsOf = (writer: number): number[] => Array.from({ length: 8 }, (_, i) => writer * 100 + i);

/** What both sides have at the beginning: the tables, their first rows, and who owns whom. */
export function soakStatements(side: 'a' | 'b'): string[] {
  const writers = [...writersOf('a'), ...writersOf('b')];
  const users = REGIONS.flatMap((region) => usersOf(region).map((user) => ({ region, user })));
  const units = users.map(({ region, user }) => {
    const owner = OWNER[region];
    return `('${bucketUnit(region, bucketOf(user))}','${owner === side ? 'open' : 'remote'}','dc-${owner}',1,1,'')`;
  });
  return [
    `CREATE DATABASE ${SCHEMA}`,
    `CREATE TABLE ${SCHEMA}.counter (id INT PRIMARY KEY, n BIGINT NOT NULL)`,
    `CREATE TABLE ${SCHEMA}.journal (id VARCHAR(40) PRIMARY KEY, counter INT NOT NULL, n BIGINT NOT NULL)`,
    `CREATE TABLE ${SCHEMA}.wallet (region VARCHAR(10), user_id VARCHAR(20), balance DECIMAL(20,4) NOT NULL, doc JSON, changed TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), PRIMARY KEY (region, user_id))`,
    `CREATE TABLE ${SCHEMA}.entry (id BIGINT PRIMARY KEY AUTO_INCREMENT, region VARCHAR(10) NOT NULL, user_id VARCHAR(20) NOT NULL, amount DECIMAL(20,4) NOT NULL, body MEDIUMBLOB, KEY (region, user_id))`,
    `CREATE TABLE ${SCHEMA}.seat (id INT PRIMARY KEY, place VARCHAR(20) CHARACTER SET utf8mb4 NOT NULL, UNIQUE KEY (place))`,
    `INSERT INTO ${SCHEMA}.counter VALUES ${writers.map((writer) => `(${writer},0)`).join(',')}`,
    `INSERT INTO ${SCHEMA}.wallet VALUES ${users.map(({ region, user }) => `('${region}','${user}',0,'{}','2026-01-01 00:00:00')`).join(',')}`,
    `INSERT INTO ${SCHEMA}.seat VALUES ${writers.flatMap((writer) => seatsOf(writer).map((id) => `(${id},'p${id}')`)).join(',')}`,
    `INSERT INTO interlock.unit_state (unit, state, owner, epoch, mapping_version, server) VALUES ${[...new Set(units)].join(',')}`,
  ];
}

/**
 * Transactions over several tables at both sides, each of units that its side owns. Each counts one up in its writer's counter and leaves its
 * id in the journal: one that is lost or carried out twice shows in either.
 */
export class Load {
  /** Ids of transactions whose COMMIT was answered. */
  readonly acknowledged: string[] = [];
  /** Transactions whose COMMIT was not answered. */
  unanswered = 0;
  /** Transactions that the server rolled back (deadlocks) or that broke before their COMMIT. */
  broken = 0;
  private stopping = false;
  private readonly writers: Promise<void>[];

  constructor(sides: Record<'a' | 'b', Side>, seed: number) {
    this.writers = (['a', 'b'] as const).flatMap((name) =>
      writersOf(name).map((writer) => this.write(name, sides[name], writer, new Random(seed * 7 + writer))),
    );
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await Promise.all(this.writers);
  }

  private async write(name: 'a' | 'b', side: Side, writer: number, random: Random): Promise<void> {
    const region = REGIONS.find((candidate) => OWNER[candidate] === name)!;
    let connection: Connection | undefined;
    for (let count = 0; !this.stopping; count++) {
      const id = `${writer}-${count}`;
      let committing = false;
      try {
        connection ??= await open(side);
        await connection.query('START TRANSACTION');
        await connection.query(`UPDATE ${SCHEMA}.counter SET n = n + 1 WHERE id = ${writer}`);
        await connection.query(
          `INSERT INTO ${SCHEMA}.journal SELECT '${id}', id, n FROM ${SCHEMA}.counter WHERE id = ${writer}`,
        );
        for (let left = random.int(4); left > 0; left--) {
          for (const sql of changes(random, region, writer)) await connection.query(sql);
        }
        if (random.int(LARGE_EVERY) === 0) {
          for (const sql of large(region, writer, id)) await connection.query(sql);
        }
        committing = true;
        await connection.query('COMMIT');
        this.acknowledged.push(id);
      } catch (error) {
        if (committing) this.unanswered += 1;
        else this.broken += 1;
        const { errno } = error as { errno?: number };
        // Of a transaction that was rolled back for a lock, the session is good; any other is given up.
        if (errno !== 1213 && errno !== 1205) {
          connection?.destroy();
          connection = undefined;
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        } else await connection!.query('ROLLBACK').catch(() => connection?.destroy());
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    connection?.destroy();
  }
}

async function open({ server: { host, port, user, password } }: Side): Promise<Connection> {
  const connection = await mysql.createConnection({ host, port, user, password });
  connection.on('error', () => undefined);
  return connection;
}

/** About 10 MB, of which one row stays. */
function large(region: Region, writer: number, id: string): string[] {
  const user = `${region}-${writer % USERS}`;
  const row = `('${region}', '${user}', ${writer}, REPEAT('${id} ', 30000))`;
  return [
    ...Array.from(
      { length: 3 },
      () =>
        `INSERT INTO ${SCHEMA}.entry (region, user_id, amount, body) VALUES ${Array.from({ length: 8 }, () => row).join(',')}`,
    ),
    `DELETE FROM ${SCHEMA}.entry WHERE region = '${region}' AND user_id = '${user}' AND LENGTH(body) > 100000 ORDER BY id LIMIT 23`,
  ];
}

function changes(random: Random, region: Region, writer: number): string[] {
  const user = `${region}-${random.int(USERS)}`;
  const where = `WHERE region = '${region}' AND user_id = '${user}'`;
  const amount = `${random.int(10_000)}.${random.int(10_000)}`;
  const seats = seatsOf(writer);
  const [one, other] = [seats[random.int(seats.length)]!, seats[random.int(seats.length)]!];
  return random.weighted<() => string[]>([
    [6, () => [`UPDATE ${SCHEMA}.wallet SET balance = balance + ${amount} ${where}`]],
    [
      2,
      () => [`UPDATE ${SCHEMA}.wallet SET doc = JSON_SET(doc, '$.k${random.int(5)}', '${amount}') ${where}`],
    ],
    [
      6,
      () => [
        `INSERT INTO ${SCHEMA}.entry (region, user_id, amount, body) VALUES ('${region}', '${user}', ${amount}, REPEAT('x', ${random.int(400)}))`,
      ],
    ],
    // Many rows in one transaction, and a large one.
    [
      1,
      () => [
        `INSERT INTO ${SCHEMA}.entry (region, user_id, amount, body) SELECT region, user_id, ${amount}, REPEAT('y', ${random.int(90_000)}) FROM ${SCHEMA}.entry ${where} ORDER BY id DESC LIMIT 20`,
      ],
    ],
    [2, () => [`UPDATE ${SCHEMA}.entry SET amount = amount + 1 ${where} ORDER BY id LIMIT 15`]],
    [3, () => [`DELETE FROM ${SCHEMA}.entry ${where} ORDER BY id LIMIT 12`]],
    // A unique value that goes from one row to another, and a row that gets another key.
    [
      2,
      () => [
        `UPDATE ${SCHEMA}.seat SET place = CONCAT('free', ${one}) WHERE id = ${one}`,
        `UPDATE ${SCHEMA}.seat SET place = CONCAT('t', ${one}, '-', ${random.int(1_000_000)}) WHERE id = ${other}`,
        `UPDATE ${SCHEMA}.seat SET place = CONCAT('p', ${one}) WHERE id = ${one}`,
      ],
    ],
    [
      1,
      () => [
        `UPDATE ${SCHEMA}.seat SET id = id + 50 WHERE id = ${one}`,
        `UPDATE ${SCHEMA}.seat SET id = id - 50 WHERE id = ${one + 50}`,
      ],
    ],
  ])();
}
