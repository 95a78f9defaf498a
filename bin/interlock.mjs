#!/usr/bin/env node
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../dist/src/cli/main.js', import.meta.url));
if (!existsSync(main)) {
  process.stderr.write('interlock: not built yet; run `npm run build` first\n');
  process.exit(1);
}
process.argv[1] = main;
await import(main);
