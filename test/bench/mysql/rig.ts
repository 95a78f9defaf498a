import type { Pool, RowDataPacket } from 'mysql2/promise';
import { initialiseLink } from '../../../replicators/mysql/initialise.js';
import type { LinkConfig } from '../../../replicators/mysql/link-config.js';
import { CONTROL_TABLES } from '../../../src/fence/control-schema.js';
import { FenceStore } from '../../../src/fence/fence-store.js';
import { testRules } from '../../sdk/support.js';
import { startTestMysql } from '../../support/mysql.js';
import type { TestMysql } from '../../support/mysql.js';
import { LinkSide, NativeSide } from './sides.js';
import type { Side } from './sides.js';

/** Rows of a table that are summed up together, by the server. */
const CHUNK_ROWS = 1_000;
const APPLY_DEADLINE_MS = 600_000;
const POLL_MS = 5;
const CHECK_MS = 1_000;

/** One source, and three targets that replicate the same transactions from it, one after the other. */
export class MysqlRig {
  source!: Pool;
  version = '';
  ours!: LinkSide;
  readonly password = 'test';
  sourcePort = 0;
  /** The server of `native.one`, into which dumps are loaded, too. */
  dumpTargetPort = 0;
  private config!: () => LinkConfig;
  /** The way back, from the link's target. */
  back!: LinkSide;
  native!: { four: NativeSide; one: NativeSide };
  private readonly servers: TestMysql[] = [];
  private readonly tables: string[] = [];
  private markers = 0;

  async up(): Promise<void> {
    const source = await this.server();
    const targets = [await this.server(), await this.server(), await this.server()] as const;
    const pools = [source, ...targets].map((server) => server.pool({ connectionLimit: 4 }));
    const [sourcePool, linkPool, fourPool, onePool] = pools as [Pool, Pool, Pool, Pool];
    this.source = source.pool({ connectionLimit: 32 });
    await sourcePool.query("SET GLOBAL binlog_transaction_dependency_tracking = 'WRITESET'");
    // Hazard: until the first definition is logged, or 25 000 rows, the source says of independent transactions that they depend on number
    // 0, and appliers take these one at a time. Only a fresh server is like that: it would flatter the link.
    await sourcePool.query('CREATE DATABASE first_definition');
    for (const pool of pools) {
      await unlogged(pool, [
        'CREATE DATABASE interlock',
        ...Object.values(CONTROL_TABLES),
        'CREATE DATABASE bench',
      ]);
      await unlogged(pool, ['CREATE TABLE bench.finish (id INT PRIMARY KEY)']);
    }
    this.tables.push('bench.finish');
    const fence = new FenceStore({
      dc: 'dc-a',
      store: 'main',
      pool: source.pool({ multipleStatements: true }),
      flavour: 'mysql',
    });
    await fence.addMissing(testRules());
    for (const [pool, workers] of [
      [fourPool, 4],
      [onePool, 1],
    ] as const) {
      await pool.query(`SET GLOBAL replica_parallel_workers = ${workers}`);
      await pool.query('SET GLOBAL replica_preserve_commit_order = ON');
      await replicateFrom(pool, source);
    }
    this.config = (): LinkConfig => linkConfig(source, targets[0], this.tables);
    await initialiseLink(this.config(), { from: 'now' });
    this.sourcePort = source.port;
    this.dumpTargetPort = targets[2].port;
    this.ours = new LinkSide('interlock', linkPool, targets[0], this.config);
    this.back = new LinkSide('interlock, the way back', sourcePool, source, () =>
      this.backConfig(source, targets[0]),
    );
    this.native = {
      four: new NativeSide('native, 4', fourPool, targets[1]),
      one: new NativeSide('native, 1', onePool, targets[2]),
    };
    const [[row]] = await sourcePool.query<RowDataPacket[]>('SELECT VERSION() AS version');
    this.version = String(row!['version']);
  }

  private backConfig(source: TestMysql, target: TestMysql): LinkConfig {
    const there = linkConfig(target, source, this.tables);
    return { ...there, link: 'mysql/main:dc-b>dc-a', from: 'dc-b', to: 'dc-a', winsTies: false };
  }

  /** The link's target has a way back, and the two native targets replicate from each other instead. */
  async bothWays(): Promise<void> {
    const { four, one } = this.native;
    await initialiseLink(this.backConfig(this.back.server, this.ours.server), { from: 'now' });
    await one.target.query('SET GLOBAL replica_parallel_workers = 4');
    await replicateFrom(four.target, one.server);
    await replicateFrom(one.target, four.server);
  }

  /** The link begins anew when it starts, at now, and copies the table, which its target has no rows of. */
  async orderCopy(table: string): Promise<void> {
    await initialiseLink({ ...this.config(), include: [table] }, { copy: true, discardCheckpoint: true });
  }

  get sides(): Side[] {
    return [this.ours, this.native.four, this.native.one];
  }

  /** A table that all servers have with the same rows, 1 to `rows`. */
  async table(name: string, rows: number): Promise<string> {
    const table = `bench.${name}`;
    const statements = [
      `CREATE TABLE ${table} (id INT PRIMARY KEY, user_id VARCHAR(32) NOT NULL, n BIGINT NOT NULL, note VARCHAR(100) NOT NULL)`,
      `SET SESSION cte_max_recursion_depth = ${rows + 1}`,
      ...(rows === 0
        ? []
        : [
            `INSERT INTO ${table} WITH RECURSIVE seq (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM seq WHERE id < ${rows})
               SELECT id, ${USER_OF_ID}, 0, ${NOTE_OF_ID} FROM seq`,
          ]),
    ];
    for (const pool of [this.source, ...this.sides.map((side) => side.target)]) {
      await unlogged(pool, statements);
    }
    this.tables.push(table);
    return table;
  }

  /** The end of a work: a transaction of its own, behind all others. Answers the id of its row. */
  async finish(at: Pool = this.source): Promise<number> {
    await at.query('INSERT INTO bench.finish VALUES (?)', [++this.markers]);
    return this.markers;
  }

  /** Starts a side that is stopped and waits for the row of the end. Answers the time of both, in milliseconds. */
  async catchUp(side: Side, marker: number): Promise<number> {
    await side.prepare();
    const begin = performance.now();
    await side.start();
    await this.reaches(side, marker);
    return performance.now() - begin;
  }

  async reaches(side: Side, marker: number): Promise<void> {
    const begin = performance.now();
    let checkedAt = begin;
    const connection = await side.target.getConnection();
    try {
      for (;;) {
        const [rows] = await connection.query<RowDataPacket[]>('SELECT 1 FROM bench.finish WHERE id = ?', [
          marker,
        ]);
        if (rows.length > 0) return;
        const now = performance.now();
        if (now - checkedAt > CHECK_MS) {
          checkedAt = now;
          await side.check();
          if (now - begin > APPLY_DEADLINE_MS)
            throw new Error(`${side.name}: the end of the work is not there after ${APPLY_DEADLINE_MS} ms`);
        }
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    } finally {
      connection.release();
    }
  }

  /** Every row of the table on every side, in the order of its key. @throws when a side differs from the source */
  async requireEqual(table: string, sides: readonly Side[] = this.sides): Promise<void> {
    const expected = await checksums(this.source, table);
    for (const side of sides) {
      const found = await checksums(side.target, table);
      const longer = found.length > expected.length ? found : expected;
      const wrong = longer.findIndex((_, i) => expected[i] !== found[i]);
      if (wrong < 0) continue;
      throw new Error(
        `${side.name}: ${table} differs from the source: ${expected[wrong] ?? 'nothing'} there, ${found[wrong] ?? 'nothing'} here`,
      );
    }
  }

  async down(): Promise<void> {
    for (const link of [this.ours, this.back] as (LinkSide | undefined)[]) link?.kill();
    await Promise.all(this.servers.map((server) => server.stop()));
  }

  private async server(): Promise<TestMysql> {
    const server = await startTestMysql('mysql', { durable: true });
    this.servers.push(server);
    return server;
  }
}

export const USER_OF_ID = `CONCAT('u', id % 5000)`;
export const NOTE_OF_ID = `CONCAT('a note of some forty characters, of ', id)`;

/** Both sides write them. */
const UNROUTED = /^bench\.(finish$|both)/;

async function replicateFrom(pool: Pool, { port, password }: TestMysql): Promise<void> {
  await pool.query(
    `CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = ${port}, SOURCE_USER = 'root',
       SOURCE_PASSWORD = '${password}', SOURCE_AUTO_POSITION = 1`,
  );
}

function linkConfig(source: TestMysql, target: TestMysql, tables: readonly string[]): LinkConfig {
  const address = ({ host, port, user, password, flavour }: TestMysql): LinkConfig['source'] => ({
    ...{ host, port, user, password, flavour },
  });
  const { defaultRegion, regions } = testRules();
  return {
    ...{ link: 'mysql/main:dc-a>dc-b', from: 'dc-a', to: 'dc-b' },
    ...{ source: address(source), target: address(target), include: ['bench.*'], exclude: [] },
    tables: Object.fromEntries(
      tables.map((table) => [table, UNROUTED.test(table) ? { unrouted: true } : { userId: 'user_id' }]),
    ),
    mapping: { defaultRegion, regions: Object.keys(regions), segments: {} },
    ...{ conflicts: {}, onQuarantine: 'stop', winsTies: true },
  };
}

/** Statements that nobody replicates. */
export async function unlogged(pool: Pool, statements: string[]): Promise<void> {
  const connection = await pool.getConnection();
  try {
    await connection.query('SET sql_log_bin = 0');
    for (const statement of statements) await connection.query(statement);
  } finally {
    // The session ends with its setting.
    connection.destroy();
  }
}

async function checksums(pool: Pool, table: string): Promise<string[]> {
  const connection = await pool.getConnection();
  try {
    await connection.query('SET SESSION group_concat_max_len = 16777216');
    const [rows] = await connection.query<RowDataPacket[]>(
      `SELECT CONCAT('from ', MIN(id), ': ', COUNT(*), ' rows, ', SHA2(GROUP_CONCAT(CONCAT_WS('|', id, HEX(user_id), n, HEX(note)) ORDER BY id), 256)) AS sum
         FROM ${table} GROUP BY id DIV ${CHUNK_ROWS} ORDER BY MIN(id)`,
    );
    return rows.map((row) => String(row['sum']));
  } finally {
    connection.release();
  }
}
