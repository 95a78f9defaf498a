import { isIP } from 'node:net';
import type { Command } from 'commander';
import { runWorker } from '../../workers/worker.js';
import { InterlockError } from '../errors.js';
import { createLogger } from '../observability/logger.js';
import { datacenter } from '../topology/derive.js';
import { loadTopology } from '../topology/load.js';
import { progress, topologyFile, topologyOption } from './output.js';

interface Options {
  topology?: string;
  dc: string;
  metrics?: string;
}

/** `interlock worker --dc dc-a`: until SIGTERM or SIGINT. */
export function register(program: Command): void {
  topologyOption(program.command('worker'))
    .description("a data center's worker: its switchover steps, its links, and workflows")
    .requiredOption('--dc <dc>', 'the data center that this worker belongs to')
    .option('--metrics <host:port>', 'serve Prometheus metrics there, such as 127.0.0.1:9464', metricsAddress)
    .option(
      '--json',
      'accepted as everywhere: what a worker writes on stdout is its log, a JSON document per line',
    )
    .action(run);
}

/** Temporal's runtime binds to an address and resolves no names. @throws InterlockError BadInput */
function metricsAddress(text: string): string {
  const parts = /^(?:\[([^\]]+)\]|([^:\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(parts?.[3]);
  if (
    !parts ||
    isIP(parts[1] ?? parts[2]!) !== (parts[1] === undefined ? 4 : 6) ||
    port < 1 ||
    port > 65_535
  ) {
    throw new InterlockError(
      'BadInput',
      `--metrics: ${JSON.stringify(text)}: expected an IP address and a port from 1 to 65535, such as 127.0.0.1:9464`,
      { details: { field: '--metrics', value: text } },
    );
  }
  return text;
}

async function run(options: Options): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  datacenter(topology, options.dc);
  const stop = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    progress(`${name}: stopping`);
    stop.abort(new InterlockError('Unavailable', `stopped by ${name}`));
  };
  process.once('SIGTERM', onSignal);
  process.once('SIGINT', onSignal);
  try {
    await runWorker({
      topology,
      dc: options.dc,
      log: createLogger('worker', options.dc),
      say: progress,
      signal: stop.signal,
      ...(options.metrics === undefined ? {} : { metricsAddress: options.metrics }),
    });
  } catch (error) {
    // Stopped while it was still waiting for Temporal: that is no failure.
    if (!stop.signal.aborted) throw error;
  }
}
