import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { projectRoot } from '../../infra/project.js';

interface Entry {
  resolved?: string;
  optionalDependencies?: Record<string, string>;
}

const packages = (
  JSON.parse(readFileSync(path.join(projectRoot, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, Entry>;
  }
).packages;

// A lock file that was made where a registry lacks some platforms leaves them out, and then `npm ci` refuses it.
test('package-lock.json has an entry for every optional package of every platform', () => {
  const missing: string[] = [];
  for (const [folder, { optionalDependencies }] of Object.entries(packages)) {
    for (const name of Object.keys(optionalDependencies ?? {})) {
      if (!resolves(folder, name)) missing.push(`${folder} → ${name}`);
    }
  }
  expect(missing).toEqual([]);
});

test('package-lock.json names no registry', () => {
  expect(Object.entries(packages).filter(([, entry]) => entry.resolved !== undefined)).toEqual([]);
});

/** As Node looks for a package: in the folder's own node_modules, then upwards. */
function resolves(folder: string, name: string): boolean {
  for (let at = folder; ;) {
    if (Object.hasOwn(packages, path.posix.join(at, 'node_modules', name))) return true;
    if (at === '') return false;
    const above = at.lastIndexOf('/node_modules/');
    at = above < 0 ? '' : at.slice(0, above);
  }
}
