import { cpus, release, totalmem, type } from 'node:os';

/** One line of a benchmark's JSON. `ours` and `peer` are medians of the same work in the same run. */
export interface BenchResult {
  work: string;
  unit: string;
  ours: number;
  peer: number;
  peerName: string;
  /** ours / peer as a speed: above 1, ours is faster. */
  ratio: number;
  /** What was measured, pair by pair. */
  runs: { ours: number; peer: number }[];
}

export interface BenchReport {
  bench: string;
  machine: { cpu: string; cores: number; memoryGb: number; os: string; node: string };
  /** How it was run: concurrency, durations, versions. */
  settings?: Record<string, unknown>;
  results: BenchResult[];
}

export function machine(): BenchReport['machine'] {
  const cores = cpus();
  return {
    cpu: cores[0]?.model ?? 'unknown',
    cores: cores.length,
    memoryGb: Math.round(totalmem() / 2 ** 30),
    os: `${type()} ${release()}`,
    node: process.version,
  };
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value below which the share `q` of the values lies (linear between neighbours). */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) return Number.NaN;
  const sorted = Float64Array.from(values).sort();
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)]!;
  return low + (sorted[Math.ceil(at)]! - low) * (at - Math.floor(at));
}

/** A result from pairs of runs; `higherIsBetter: false` for times. */
export function compare(
  work: string,
  unit: string,
  peerName: string,
  runs: { ours: number; peer: number }[],
  higherIsBetter = true,
): BenchResult {
  const ours = median(runs.map((run) => run.ours));
  const peer = median(runs.map((run) => run.peer));
  return {
    work,
    unit,
    ours,
    peer,
    peerName,
    ratio: higherIsBetter ? ours / peer : peer / ours,
    runs: runs.map(({ ours: mine, peer: its }) => ({ ours: mine, peer: its })),
  };
}

/** The report in words; with `json`, the document alone on stdout and the words on stderr. */
export function printReport(report: BenchReport, json: boolean): void {
  const out = json ? process.stderr : process.stdout;
  const { cpu, cores, memoryGb, os, node } = report.machine;
  out.write(`${report.bench}: ${cores} × ${cpu}, ${memoryGb} GB, ${os}, node ${node}\n`);
  if (report.settings !== undefined) out.write(`  ${JSON.stringify(report.settings)}\n`);
  for (const { work, unit, ours, peer, peerName, ratio, runs } of report.results) {
    const spread = runs.map((run) => `${round(run.ours)}/${round(run.peer)}`).join(' ');
    out.write(
      `  ${work}: ${round(ours)} ${unit}, ${peerName} ${round(peer)} ${unit}, ratio ${ratio.toFixed(3)}  [${spread}]\n`,
    );
  }
  if (json) process.stdout.write(`${JSON.stringify(report)}\n`);
}

function round(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
