import { rm } from 'node:fs/promises';
import path from 'node:path';
import { Router } from '../../src/routing/rules.js';
import { initialRules } from '../../src/topology/derive.js';
import { loadTopology } from '../../src/topology/load.js';
import type { RedisAddress } from '../../src/topology/redis-address.js';
import type { Topology } from '../../src/topology/schema.js';
import type { FlowReport, SwitchReport, SwitchStatus } from '../../workflows/contract.js';
import { labDown, labUp } from '../lab/lab.js';
import type { LabInfo } from '../lab/lab.js';
import { LabFiles } from '../lab/state.js';
import type { LabShape } from '../lab/options.js';
import { DATACENTERS } from '../lab/options.js';
import { Checker } from './checker/checker.js';
import type { CheckReport } from './checker/checker.js';
import type { ServerAddress } from './checker/binlog-stream.js';
import { interlockCli } from './interlock-cli.js';
import type { CliResult } from './interlock-cli.js';
import type { LoadCounts } from './load/generator.js';
import { readJournal, windowStats } from './load/journal.js';
import type { WindowStats } from './load/journal.js';
import { LoadProcess } from './load/process.js';
import { SHOP_WORKLOAD } from './workload.js';

export interface RigOptions {
  /** State of the lab and the journal; wiped first. */
  directory: string;
  shape?: Partial<LabShape>;
  /** Segments of the topology; default none. */
  segments?: Topology['segments'];
  /** Writes per second, open loop. */
  rate: number;
  /** Closed loop with so many clients instead. */
  clients?: number;
  readRate?: number;
  progress?: (line: string) => void;
  signal?: AbortSignal;
}

/** What a switchover cost, as its report and its clients say. */
export interface SwitchoverCost {
  scope: string;
  outcome: string;
  /** What stands, in words. */
  summary: string;
  fencedMs: number | null;
  slowestClientWriteMs: number | null;
  failedRequests: number;
  heldRequests: number;
  clients: WindowStats;
  runId: string;
  flow: FlowReport | undefined;
}

/** Two data centers with the shop on them, under load, and a checker: what the demo, the benchmark and the fault tests stand on. */
export class DemoRig {
  private constructor(
    readonly options: RigOptions,
    readonly lab: LabInfo,
    readonly topology: Topology,
    readonly journal: string,
    readonly load: LoadProcess,
    readonly checker: Checker,
  ) {}

  /** Lab, schema, shop, links both ways, load generator (not started yet). What fails in between leaves nothing running. */
  static async up(options: RigOptions): Promise<DemoRig> {
    try {
      return await DemoRig.start(options);
    } catch (error) {
      await labDown({ directory: options.directory });
      throw error;
    }
  }

  private static async start(options: RigOptions): Promise<DemoRig> {
    const { directory, progress = () => undefined } = options;
    await labDown({ directory, wipe: true });
    const lab = await labUp({
      directory,
      ...(options.shape ? { shape: options.shape } : {}),
      workload: { ...SHOP_WORKLOAD, segments: options.segments ?? {} },
      progress,
    });
    options.signal?.throwIfAborted();
    const { topology } = await loadTopology(lab.topology);
    await interlockCli(['replicate', 'start', '--all', '--from', 'now'], lab.env, signalOf(options));
    progress('links stream in both directions');
    const journal = path.join(directory, 'journal.jsonl');
    await rm(journal, { force: true });
    const load = new LoadProcess({
      gateways: gatewaysOf(topology),
      regions: Object.keys(topology.regions),
      journal,
      rate: options.rate,
      ...(options.clients === undefined ? {} : { clients: options.clients }),
      visits: lab.shape.redis > 0,
      readRate: options.readRate ?? options.rate / 10,
    });
    const router = new Router(initialRules(topology));
    const checker = new Checker({
      datacenters: DATACENTERS.map((dc) => ({ dc, address: rootOf(topology, dc, lab.env) })),
      journal,
      redis: redisOf(topology, lab.env),
      events: lab.shape.kafka > 0,
      unitOf: (region, userId) => router.unitOf({ region, userId })!,
    });
    return new DemoRig(options, lab, topology, journal, load, checker);
  }

  /** Starts a switchover and returns when its soak has begun, or when it has ended without. */
  async switchover(
    scope: string,
    from: string,
    to: string,
    more: readonly string[] = [],
  ): Promise<SwitchoverCost> {
    const startedAt = Date.now();
    const { document } = await this.cli<SwitchStatus>(
      ['switch', 'start', '--scope', scope, '--from', from, '--to', to, '--reason', 'demo', ...more],
      [0, 1, 3],
    );
    return this.cost(document.runId, startedAt, 'move');
  }

  /** Moves back what the running switchover has moved; returns when it has ended. */
  async rollback(): Promise<SwitchoverCost> {
    const startedAt = Date.now();
    const { document } = await this.cli<SwitchStatus>(['switch', 'rollback'], [0, 1, 3]);
    return this.cost(document.runId, startedAt, 'rollback');
  }

  /** Ends the soak; returns when the switchover has ended. */
  async finish(): Promise<void> {
    await this.cli<SwitchStatus>(['switch', 'finish'], [0, 1, 3]);
  }

  async cli<T>(args: readonly string[], expected: readonly number[] = [0]): Promise<CliResult<T>> {
    return interlockCli<T>(args, this.lab.env, { ...signalOf(this.options), expected });
  }

  /** Pauses the load, checks everything so far, and leaves the load paused. */
  async check(): Promise<{ report: CheckReport; counts: LoadCounts }> {
    const counts = await this.load.pause();
    return { report: await this.checker.check(), counts };
  }

  /** Leaves everything running, the load too, until `interlock lab down`. */
  async keep(): Promise<void> {
    const files = new LabFiles(this.options.directory);
    const [directory, logFile, pidFile] = [files.part('load'), files.log('load'), files.pid('load')];
    await this.load.handOver({ directory, logFile, pidFile });
  }

  /** Ends the load and everything else; with `wipe` forgets it. */
  async down(wipe = true): Promise<void> {
    await this.load.kill();
    await labDown({ directory: this.options.directory, wipe });
  }

  /** What clients saw from when the switchover was asked for until now. */
  private async cost(runId: string, startedAt: number, flow: FlowReport['flow']): Promise<SwitchoverCost> {
    const endedAt = Date.now();
    const { document: report } = await this.cli<SwitchReport>(['switch', 'report', runId]);
    await this.load.settle();
    const clients = windowStats(await readJournal(this.journal, { live: true }), startedAt, endedAt);
    const flowReport = report.flows.find((candidate) => candidate.flow === flow);
    return {
      scope: flow === 'rollback' ? `${report.request.scope} (rollback)` : report.request.scope,
      // The run goes on until its soak ends; what was asked for is done when every target store is open.
      outcome: report.outcome === 'running' && flowReport?.fencedMs != null ? 'done' : report.outcome,
      summary: report.summary,
      fencedMs: flowReport?.fencedMs ?? null,
      slowestClientWriteMs: clients.slowestWriteMs === null ? null : Math.round(clients.slowestWriteMs),
      failedRequests: clients.failed,
      heldRequests: report.clients?.heldRequests ?? 0,
      clients,
      runId: report.runId,
      flow: flowReport,
    };
  }
}

/** The Redis of each data center, if there is one, for Interlock's account. */
function redisOf(topology: Topology, env: Record<string, string>): { dc: string; address: RedisAddress }[] {
  return Object.entries(topology.datacenters).flatMap(([dc, { stores }]) => {
    const { cache } = stores.redis;
    if (cache === undefined) return [];
    const password = env['INTERLOCK_LAB_REDIS_PASSWORD'] ?? '';
    return [{ dc, address: { host: cache.host, port: cache.port, user: 'interlock', password } }];
  });
}

function signalOf(options: RigOptions): { signal?: AbortSignal } {
  return options.signal ? { signal: options.signal } : {};
}

function gatewaysOf(topology: Topology): { name: string; url: string }[] {
  return Object.entries(topology.datacenters).flatMap(([dc, { gateways }]) =>
    Object.entries(gateways).map(([name, { url }]) => ({ name: `${dc}/${name}`, url })),
  );
}

/** The account of the checker and of tests, of one store or the control store: they must see what the parts under test cannot hide. */
export function rootOf(
  topology: Topology,
  dc: string,
  env: Record<string, string>,
  name?: string,
): ServerAddress {
  const stores = Object.entries(topology.datacenters[dc]!.stores.mysql);
  const [, store] = stores.find(([known, { control }]) => (name === undefined ? control : known === name))!;
  return {
    host: store.host,
    port: store.port,
    user: 'root',
    password: env['INTERLOCK_LAB_MYSQL_ROOT_PASSWORD'] ?? '',
  };
}
