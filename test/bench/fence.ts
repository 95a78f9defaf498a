/**
 * `npm run bench -- fence [--json] [--mysql mariadb]`: a typical transaction (one select, two updates) with and without the fence, same
 * pool, pairs interleaved in alternating order. The peer is what an application writes without Interlock on mysql2/promise. Not measured:
 * the network (client and server share the machine and its cores), reads outside of transactions.
 */
import type mysql from 'mysql2/promise';
import { FenceStore } from '../../src/fence/fence-store.js';
import { bucketOf } from '../../src/routing/units.js';
import { createInterlock, FixedRules } from '../../src/sdk/index.js';
import type { FencedMysql } from '../../src/sdk/index.js';
import { testRules } from '../sdk/support.js';
import { startTestMysql } from '../support/mysql.js';
import { benchFlags, refuse } from './flags.js';
import { compare, machine, printReport, quantile } from './report.js';
import type { BenchResult } from './report.js';

const ROWS = 10_000;
const CONCURRENCY = 8;
const PAIRS = 9;
const RUN_MS = 2_000;
const WARM_UP_MS = 1_500;

interface Measured {
  perSecond: number;
  p99Ms: number;
}

type Work = (userId: string, from: number, to: number) => Promise<void>;

const SELECT = 'SELECT v FROM bench.account WHERE id = ?';
const UPDATE = 'UPDATE bench.account SET v = v + ? WHERE id = ?';

function plain(pool: mysql.Pool): Work {
  return async (_userId, from, to) => {
    const connection = await pool.getConnection();
    try {
      await connection.beginTransaction();
      await connection.query(SELECT, [from]);
      await connection.query(UPDATE, [-1, from]);
      await connection.query(UPDATE, [1, to]);
      await connection.commit();
    } catch (error) {
      await connection.rollback();
      throw error;
    } finally {
      connection.release();
    }
  };
}

function fenced(store: FencedMysql): Work {
  return (userId, from, to) =>
    store.transaction({ userId, region: 'cn-east' }, async (tx) => {
      await tx.query(SELECT, [from]);
      await tx.query(UPDATE, [-1, from]);
      await tx.query(UPDATE, [1, to]);
    });
}

async function measure(work: Work, durationMs: number): Promise<Measured> {
  const times: number[] = [];
  const started = performance.now();
  const end = started + durationMs;
  const worker = async (n: number): Promise<void> => {
    for (let i = n; performance.now() < end; i += CONCURRENCY) {
      // Two rows of the worker's own share: no lock waits, which would measure InnoDB and not the fence.
      const from = 1 + n + CONCURRENCY * Math.floor(Math.random() * (ROWS / CONCURRENCY - 1));
      const to = 1 + n + CONCURRENCY * Math.floor(Math.random() * (ROWS / CONCURRENCY - 1));
      const begun = performance.now();
      await work(`u${i % 50_000}`, from, to);
      times.push(performance.now() - begun);
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, (_, n) => worker(n)));
  const seconds = (performance.now() - started) / 1_000;
  return { perSecond: times.length / seconds, p99Ms: quantile(times, 0.99) };
}

async function compareOn(pool: mysql.Pool, label: string): Promise<BenchResult[]> {
  const interlock = createInterlock({ dc: 'dc-a', application: 'bench', rules: new FixedRules(testRules()) });
  const ours = fenced(interlock.mysql(pool));
  const peer = plain(pool);
  await measure(peer, WARM_UP_MS);
  await measure(ours, WARM_UP_MS);
  const pairs: { ours: Measured; peer: Measured }[] = [];
  for (let i = 0; i < PAIRS; i++) {
    process.stderr.write(`fence${label}: pair ${i + 1} of ${PAIRS}\n`);
    const first = await measure(i % 2 === 0 ? ours : peer, RUN_MS);
    const second = await measure(i % 2 === 0 ? peer : ours, RUN_MS);
    pairs.push(i % 2 === 0 ? { ours: first, peer: second } : { ours: second, peer: first });
  }
  await interlock.close();
  const of = (pick: (m: Measured) => number) =>
    pairs.map((pair) => ({ ours: pick(pair.ours), peer: pick(pair.peer) }));
  const peerName = 'mysql2, no fence';
  return [
    compare(
      `fenced transaction${label}`,
      'transactions/s',
      peerName,
      of((m) => m.perSecond),
    ),
    compare(
      `fenced transaction p99${label}`,
      'ms',
      peerName,
      of((m) => m.p99Ms),
      false,
    ),
  ];
}

async function main(): Promise<void> {
  const flags = benchFlags('fence', {
    json: { type: 'boolean', default: false },
    mysql: { type: 'string', default: 'mysql' },
  });
  const flavour = flags.mysql;
  if (flavour !== 'mysql' && flavour !== 'mariadb') {
    refuse(`--mysql: ${JSON.stringify(flavour)}: expected mysql or mariadb`);
  }
  const server = await startTestMysql(flavour, { durable: true });
  try {
    const admin = server.pool({ multipleStatements: true });
    const fence = new FenceStore({ dc: 'dc-a', store: 'main', pool: admin, flavour });
    await fence.ensureSchema();
    await fence.addMissing(testRules());
    await admin.query('CREATE DATABASE bench');
    await admin.query('CREATE TABLE bench.account (id INT PRIMARY KEY, v BIGINT NOT NULL)');
    const rows = Array.from({ length: ROWS }, (_, i) => [i + 1, bucketOf(`u${i}`)]);
    await admin.query('INSERT INTO bench.account (id, v) VALUES ?', [rows]);
    const [[version]] = (await admin.query('SELECT VERSION() AS version')) as unknown as [
      { version: string }[],
    ];
    const results: BenchResult[] = [];
    for (const multipleStatements of [false, true]) {
      const pool = server.pool({ connectionLimit: CONCURRENCY, multipleStatements });
      results.push(...(await compareOn(pool, multipleStatements ? ', multipleStatements' : '')));
    }
    printReport(
      {
        bench: 'fence',
        machine: machine(),
        settings: {
          server: version!.version,
          durability: 'default (binlog and redo log synced at each commit)',
          concurrency: CONCURRENCY,
          pairs: PAIRS,
          runMs: RUN_MS,
          units: 2_001,
        },
        results,
      },
      flags.json,
    );
  } finally {
    await server.stop();
  }
}

await main();
