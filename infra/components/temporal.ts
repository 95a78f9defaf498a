import { existsSync, readdirSync } from 'node:fs';
import { chmod, mkdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { InterlockError, messageOf } from '../../src/errors.js';
import { interlockHome } from '../mysql-server.js';
import { projectRoot } from '../project.js';
import type { Component } from './component.js';
import { onPath } from './search-path.js';
import { runStep } from './step.js';
import type { Progress } from './step.js';

const VERSION = '1.5.1';
const MODULE = `github.com/temporalio/cli/cmd/temporal@v${VERSION}`;
const DOWNLOAD_MS = 90_000;
const BUILD_MS = 30 * 60_000;

function home(): string {
  return path.join(interlockHome(), `temporal-${VERSION}`);
}

/** Temporal's CLI, which holds the dev server and its Web UI: on PATH, our own copy, or the one that the SDK has downloaded before. */
export const temporalComponent: Component<{ binary: string }> = {
  name: `Temporal ${VERSION}`,
  find: async () => {
    const found = onPath('temporal');
    if (found !== null) return { binary: found };
    const own = path.join(home(), 'temporal');
    if (existsSync(own)) return { binary: own };
    const downloaded = downloadedBySdk(tmpdir());
    return downloaded === null ? null : { binary: downloaded };
  },
  packages: () => [],
  install: async (progress) => {
    await mkdir(interlockHome(), { recursive: true });
    const partial = `${home()}.${process.pid}.partial`;
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true });
    try {
      try {
        await download(partial, progress);
      } catch (error) {
        progress(`no download of Temporal (${firstLine(messageOf(error))}); building it`);
        await build(partial, progress);
      }
      await rename(partial, home());
    } finally {
      await rm(partial, { recursive: true, force: true });
    }
  },
};

/** The SDK names it `temporal-<version>` or `temporal-sdk-typescript-<version of the SDK>`. */
function downloadedBySdk(directory: string): string | null {
  const names = existsSync(directory) ? readdirSync(directory) : [];
  const name = names.find((entry) => /^temporal-(sdk-typescript-|v?)\d[\w.-]*$/.test(entry));
  return name === undefined ? null : path.join(directory, name);
}

/** By the SDK's own downloader, in a process of its own: it cannot be interrupted from inside. */
async function download(directory: string, progress: Progress): Promise<void> {
  const program = `
    import { TestWorkflowEnvironment } from '@temporalio/testing';
    const environment = await TestWorkflowEnvironment.createLocal({ server: { executable: {
      type: 'cached-download', version: 'v${VERSION}', downloadDir: process.argv[1] } } });
    await environment.teardown();`;
  await runStep(
    process.execPath,
    ['--input-type=module', '-e', program, directory],
    { title: `downloading Temporal ${VERSION}`, timeoutMs: DOWNLOAD_MS, cwd: projectRoot },
    progress,
  );
  const found = downloadedBySdk(directory);
  if (found === null)
    throw new InterlockError('Internal', 'the SDK’s download is not where it was asked for');
  await rename(found, path.join(directory, 'temporal'));
  await chmod(path.join(directory, 'temporal'), 0o755);
}

/** From source, by Go. Its caches (2 GB) are thrown away when it is done, and kept over an interruption. */
async function build(directory: string, progress: Progress): Promise<void> {
  const go = onPath('go') ?? (existsSync('/usr/local/go/bin/go') ? '/usr/local/go/bin/go' : null);
  if (go === null) {
    throw new InterlockError(
      'NeedsOperator',
      'Temporal can neither be downloaded nor built here. Put its CLI `temporal` on PATH, or give the address of a running ' +
        'Temporal in TEMPORAL_ADDRESS, or install Go 1.23 or later, and run this again',
    );
  }
  const caches = path.join(interlockHome(), 'go-build');
  const env = {
    ...process.env,
    GOBIN: directory,
    GOPATH: path.join(caches, 'path'),
    GOCACHE: path.join(caches, 'cache'),
    GOFLAGS: '-modcacherw',
    CGO_ENABLED: '0',
  };
  const title = `building Temporal ${VERSION} from source (about 4 minutes, once)`;
  await runStep(go, ['install', MODULE], { title, timeoutMs: BUILD_MS, env }, progress);
  await rm(caches, { recursive: true, force: true });
}

function firstLine(text: string): string {
  return text.split('\n')[0] ?? text;
}
