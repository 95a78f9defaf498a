import { readFileSync } from 'node:fs';
import type { LinkKind } from '../../../replicators/core/contract.js';
import { LinkHost } from '../../../replicators/host/link-host.js';
import type { LinkConfig } from '../../../replicators/host/configure.js';
import { messageOf } from '../../../src/errors.js';

/** What the benchmark says to the process of a link, and what that answers. */
export type LinkOrder = { type: 'start'; config: LinkConfig } | { type: 'stop' };
export type LinkAnswer = { type: 'ready' } | ({ type: 'ended'; error: string | null } & LinkUsage);

export interface LinkUsage {
  /** User and system time of the whole process, from the order to start. */
  cpuSeconds: number;
  peakRssMb: number;
  /** Every SAMPLE_MS from the order to start. */
  rssMb: number[];
  /** From the order to start until the link streamed; null when it never did. */
  startMs: number | null;
}

const SAMPLE_MS = 250;

/** `link-child KIND`: a process with one link, as a worker of the target's data center has it: in a thread of its own. */
const abort = new AbortController();
const host = new LinkHost();
const say = (answer: LinkAnswer): void => void process.send!(answer);

// Hazard: VmHWM is of this program; the kernel's `ru_maxrss` begins with what the parent had at the fork.
function peakRssMb(): number {
  const found = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(found?.[1] ?? Number.NaN) / 1024;
}

async function run(config: LinkConfig): Promise<void> {
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  let startMs: number | null = null;
  const rssMb: number[] = [];
  const sampling = setInterval(() => rssMb.push(process.memoryUsage.rss() / 2 ** 20), SAMPLE_MS);
  const onStatus = ({ state }: { state: string }): void => {
    if (state === 'streaming') startMs ??= performance.now() - startedAt;
  };
  let error: string | null = null;
  try {
    await host.run(config, { onStatus, onMarker: () => undefined }, abort.signal);
  } catch (failure) {
    error = messageOf(failure);
  }
  clearInterval(sampling);
  const { user, system } = process.cpuUsage(cpu);
  say({ type: 'ended', error, cpuSeconds: (user + system) / 1e6, peakRssMb: peakRssMb(), rssMb, startMs });
  process.disconnect();
}

process.on('message', (order: LinkOrder) => {
  if (order.type === 'start') void run(order.config);
  else abort.abort();
});
process.once('disconnect', () => process.exit());
// A worker has had it ready for long when a link starts there.
await host.keepSpare([process.argv[2] as LinkKind]);
say({ type: 'ready' });
