import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readFile, readdir, rename, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode } from '@temporalio/worker';
import { interlockHome } from '../infra/mysql-server.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const EXTENSION = path.extname(fileURLToPath(import.meta.url));
/** All that workflow code may import: the layer rule of eslint.config.js. */
const SOURCES = ['workflows', 'src/routing', 'src/errors', 'replicators/core'];

/**
 * The workflows' code as one file, built once per content: webpack takes seconds, and a worker that comes back must be fast.
 * @param say is told when it has to be built.
 */
export async function workflowBundle(say: (line: string) => void): Promise<{ codePath: string }> {
  const directory = path.join(interlockHome(), 'workflow-bundles');
  const codePath = path.join(directory, `${await contentHash()}.js`);
  if (await exists(codePath)) return { codePath };
  say('building the workflow bundle (once per version)');
  const { code } = await bundleWorkflowCode({
    workflowsPath: path.join(ROOT, 'workflows', `index${EXTENSION}`),
    logger: { trace() {}, debug() {}, info() {}, warn: say, error: say, log() {} },
  });
  await mkdir(directory, { recursive: true });
  // Two workers may build at once: each writes its own file, and the last rename wins with the same content.
  const partial = `${codePath}.${randomUUID()}`;
  await writeFile(partial, code);
  await rename(partial, codePath);
  return { codePath };
}

async function contentHash(): Promise<string> {
  const hash = createHash('sha256');
  const require = createRequire(import.meta.url);
  hash.update(await readFile(require.resolve('@temporalio/workflow/package.json')));
  for (const source of SOURCES) {
    const at = path.join(ROOT, source);
    const files = (await exists(at)) ? await filesUnder(at) : [`${at}${EXTENSION}`];
    for (const file of files.sort()) {
      hash.update(path.relative(ROOT, file));
      hash.update(await readFile(file));
    }
  }
  return hash.digest('hex').slice(0, 32);
}

async function filesUnder(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(EXTENSION))
    .map((entry) => path.join(entry.parentPath, entry.name));
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
