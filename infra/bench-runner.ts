import { become } from './become.js';
import { BENCHMARKS } from './components/bench.js';

/** `npm run bench -- NAME [flags]`. */
await become({
  kind: 'bench',
  usage: `usage: npm run bench -- NAME [--json]\nbenchmarks: ${Object.keys(BENCHMARKS).join(', ')}\n`,
  programs: BENCHMARKS,
});
