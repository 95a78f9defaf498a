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
    .option('--metrics <host:port>', 'serve Prometheus metrics there')
    .action(run);
}

async function run(options: Options): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  datacenter(topology, options.dc);
  if (options.metrics !== undefined && !/^[^:\s]+:\d+$/.test(options.metrics)) {
    throw new InterlockError(
      'BadInput',
      `--metrics: ${JSON.stringify(options.metrics)}: expected host:port`,
      {
        details: { field: '--metrics', value: options.metrics },
      },
    );
  }
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
