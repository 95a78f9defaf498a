import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of the project's package.json, wherever this file runs from (source or dist/). */
export const projectRoot = ((): string => {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, 'package.json'))) directory = path.dirname(directory);
  return directory;
})();

/** A compiled program of the project: processes and worker threads run from dist/. */
export function compiled(...segments: string[]): string {
  return path.join(projectRoot, 'dist', ...segments);
}
