// Copies what the compiler does not (Lua, templates, recorded data) from the sources into dist/.
import { cpSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const FOLDERS = ['src', 'workflows', 'activities', 'workers', 'replicators', 'infra', 'test'];
const COMPILED = /\.(ts|tsx|mts|cts)$/;

for (const folder of FOLDERS) {
  let entries = [];
  try {
    entries = readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true });
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  for (const entry of entries) {
    if (!entry.isFile() || COMPILED.test(entry.name)) continue;
    const source = path.join(entry.parentPath ?? entry.path, entry.name);
    cpSync(source, path.join(root, 'dist', path.relative(root, source)));
  }
}
