import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Flavour } from '../../../infra/mysql-server.js';
import { initialiseLink } from '../../../replicators/mysql/initialise.js';
import type { LinkConfig } from '../../../replicators/mysql/link-config.js';
import { messageOf } from '../../../src/errors.js';
import { relay } from '../../support/relay.js';
import type { Relay } from '../../support/relay.js';
import { dump, linkConfig, rows, startPair, unlogged, writeMarker } from '../../support/replication.js';
import type { Pair } from '../../support/replication.js';
import { FaultInjector, killsOf } from './faults.js';
import type { FaultCounts } from './faults.js';
import { LinkSupervisor } from './link-supervisor.js';
import { Load, SOAK_MAPPING, SOAK_ROUTING, SOAK_SCHEMA, SOAK_TABLES, soakStatements } from './load.js';
import { Random } from './random.js';

export interface SoakOptions {
  flavour: Flavour;
  seed: number;
  /** Faults end after so long, and not before so many kills; 0: not asked for. */
  minutes: number;
  kills: number;
  say: (line: string) => void;
}

export interface SoakReport {
  soak: 'mysql';
  flavour: Flavour;
  seed: number;
  seconds: number;
  kills: number;
  faults: FaultCounts;
  links: Record<string, { processes: number; superseded: number; catchUpMs: number }>;
  transactions: { acknowledged: number; unanswered: number; broken: number };
  comparedRows: number;
  /** What is wrong; empty when every row is the same on both sides and every transaction counts once. */
  findings: string[];
}

const CATCH_UP_MS = 300_000;
const FINDINGS_PER_TABLE = 5;

/** Two servers, a link in each direction as a process of its own, load on both sides, and random faults; then both sides are compared in full. */
export async function runSoak(options: SoakOptions): Promise<SoakReport> {
  const { flavour, seed, say } = options;
  const begin = Date.now();
  const directory = await mkdtemp(path.join(tmpdir(), 'interlock-soak-'));
  const relays: Record<string, Relay> = {};
  const links: Record<string, LinkSupervisor> = {};
  let pair: Pair | undefined;
  try {
    pair = await startPair(flavour);
    for (const side of ['a', 'b'] as const) await unlogged(pair[side], soakStatements(side));
    for (const from of ['a', 'b'] as const) {
      const plain = linkConfig(pair, from, SOAK_SCHEMA, SOAK_ROUTING, { mapping: SOAK_MAPPING });
      await initialiseLink(plain, { from: 'now' });
      const config = { ...plain, ...(await throughRelays(plain, relays)) };
      const file = path.join(directory, `${from}.json`);
      await writeFile(file, JSON.stringify(config));
      links[plain.link] = new LinkSupervisor(plain.link, file);
    }
    const load = new Load(pair, seed);
    const injector = new FaultInjector(
      { links, servers: { 'server a': pair.a.server, 'server b': pair.b.server }, relays },
      new Random(seed),
      (line) => say(`${((Date.now() - begin) / 1000).toFixed(1)} s: ${line}`),
    );
    const startedAt = Date.now();
    const failed = (): boolean => Object.values(links).some(({ failure }) => failure !== undefined);
    try {
      await injector.run(
        (counts) =>
          failed() ||
          (Date.now() - startedAt >= options.minutes * 60_000 && killsOf(counts) >= options.kills),
      );
    } finally {
      await load.stop();
    }
    say(`load stopped: ${load.acknowledged.length} transactions acknowledged; waiting for both links`);
    const findings: string[] = [];
    const report: SoakReport = {
      ...{ soak: 'mysql', flavour, seed, seconds: 0, kills: killsOf(injector.counts) },
      faults: injector.counts,
      links: {},
      transactions: {
        acknowledged: load.acknowledged.length,
        unanswered: load.unanswered,
        broken: load.broken,
      },
      comparedRows: 0,
      findings,
    };
    const waitFrom = Date.now();
    for (const [from, [link, supervisor]] of zip(['a', 'b'] as const, Object.entries(links))) {
      try {
        await supervisor.reaches(await writeMarker(pair[from]), CATCH_UP_MS);
      } catch (error) {
        findings.push(messageOf(error));
      }
      const { starts, superseded } = supervisor;
      report.links[link] = { processes: starts, superseded, catchUpMs: Date.now() - waitFrom };
    }
    if (findings.length === 0) report.comparedRows = await compare(pair, load, findings);
    report.seconds = Math.round((Date.now() - begin) / 1000);
    return report;
  } finally {
    await Promise.all(Object.values(links).map((link) => link.stop()));
    for (const each of Object.values(relays)) each.close();
    await pair?.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

async function throughRelays(
  config: LinkConfig,
  relays: Record<string, Relay>,
): Promise<Pick<LinkConfig, 'source' | 'target'>> {
  const to = async (end: 'source' | 'target'): Promise<LinkConfig['source']> => {
    const between = await relay(config[end].port);
    relays[`${config.link} and its ${end}`] = between;
    return { ...config[end], port: between.port };
  };
  return { source: await to('source'), target: await to('target') };
}

/** Every row of every table, byte for byte; every transaction that was acknowledged, once. @returns rows that were compared */
async function compare(pair: Pair, load: Load, findings: string[]): Promise<number> {
  let compared = 0;
  for (const table of SOAK_TABLES) {
    const [a, b] = await Promise.all([dump(pair.a, table), dump(pair.b, table)]);
    compared += a.length;
    const [onA, onB] = [new Set(a), new Set(b)];
    const differ = [
      ...a.filter((row) => !onB.has(row)).map((row) => `${table}: only on a: ${row.slice(0, 300)}`),
      ...b.filter((row) => !onA.has(row)).map((row) => `${table}: only on b: ${row.slice(0, 300)}`),
    ];
    if (differ.length > 0) findings.push(`${table}: ${differ.length} rows differ`);
    findings.push(...differ.slice(0, FINDINGS_PER_TABLE));
  }
  for (const [name, side] of Object.entries({ a: pair.a, b: pair.b })) {
    const uneven = await rows(
      side,
      `SELECT c.id, c.n, COUNT(j.id) AS times, COUNT(DISTINCT j.n) AS places FROM ${SOAK_SCHEMA}.counter c LEFT JOIN ${SOAK_SCHEMA}.journal j ON j.counter = c.id
       GROUP BY c.id, c.n HAVING c.n <> times OR c.n <> places`,
    );
    for (const { id, n, times } of uneven)
      findings.push(
        `counter ${String(id)} on ${name}: ${String(n)}, but ${String(times)} transactions are there`,
      );
    const there = new Set(
      (await rows(side, `SELECT id FROM ${SOAK_SCHEMA}.journal`)).map(({ id }) => String(id)),
    );
    const lost = load.acknowledged.filter((id) => !there.has(id));
    if (lost.length > 0)
      findings.push(
        `${lost.length} acknowledged transactions are not on ${name}: ${lost.slice(0, 5).join(', ')}`,
      );
  }
  return compared;
}

function zip<A, B>(as: readonly A[], bs: readonly B[]): [A, B][] {
  return as.map((a, i) => [a, bs[i]!]);
}
