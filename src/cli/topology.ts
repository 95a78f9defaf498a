import type { Command } from 'commander';
import { loadTopology } from '../topology/load.js';
import { dcIds, wantedLinks } from '../topology/derive.js';
import { print, printJson, topologyFile, topologyOption } from './output.js';

interface CheckOptions {
  topology?: string;
  json?: boolean;
}

export function register(program: Command): void {
  const topology = program
    .command('topology')
    .description('the topology file: data centers, stores, applications');
  topologyOption(topology.command('check'))
    .description('validates the topology file')
    .option('--json', 'print one JSON document')
    .action(async (options: CheckOptions) => {
      const loaded = await loadTopology(topologyFile(options));
      if (options.json) {
        printJson({ topology: loaded.topology.name, hash: loaded.hash, ok: true, checks: [] });
        return;
      }
      print(
        `${loaded.file}: topology ${loaded.topology.name} is valid (${dcIds(loaded.topology).join(', ')}; ${wantedLinks(loaded.topology).length} links; hash ${loaded.hash.slice(0, 12)})`,
      );
    });
}
