import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Folders where servers are installed that an ordinary user's PATH leaves out. */
const SERVER_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

/** The first executable of that name on PATH (and in the folders of servers); null when there is none. */
export function onPath(name: string): string | null {
  for (const folder of [...(process.env['PATH'] ?? '').split(path.delimiter), ...SERVER_FOLDERS]) {
    if (folder === '') continue;
    const file = path.join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not here.
    }
  }
  return null;
}

/** What `program --version` prints; empty when it does not run. */
export async function versionOf(program: string, flag = '--version'): Promise<string> {
  try {
    const { stdout, stderr } = await run(program, [flag], { timeout: 10_000 });
    return stdout + stderr;
  } catch {
    return '';
  }
}
