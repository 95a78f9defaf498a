import { existsSync } from 'node:fs';
import path from 'node:path';
import { interlockHome } from '../mysql-server.js';
import type { Flavour } from '../mysql-server.js';
import type { Component } from './component.js';
import { onPath, versionOf } from './search-path.js';

export interface MysqlBinary {
  binary: string;
  /** Of a distribution that is not installed system-wide. */
  basedir?: string;
}

const VERSION = '8.0.31';

export function mysqlComponent(flavour: Flavour): Component<MysqlBinary> {
  return flavour === 'mysql' ? mysql : mariadb;
}

/** $MYSQLD, a mysqld 8 on PATH, or our own copy. */
const mysql: Component<MysqlBinary> = {
  name: 'MySQL 8.0',
  find: async () => {
    const given = process.env['MYSQLD'];
    if (given !== undefined && given !== '') return { binary: given };
    const found = onPath('mysqld');
    // MariaDB installs a mysqld too.
    if (
      found !== null &&
      / 8\.\d+\.\d+/.test(await versionOf(found)) &&
      !/mariadb/i.test(await versionOf(found))
    ) {
      return { binary: found };
    }
    const basedir = path.join(interlockHome(), `mysql-${VERSION}`);
    const binary = path.join(basedir, 'bin', 'mysqld');
    return existsSync(binary) ? { binary, basedir } : null;
  },
  install: async () => undefined,
};

const mariadb: Component<MysqlBinary> = {
  name: 'MariaDB 10.11',
  find: async () => {
    const binary = onPath('mariadbd');
    return binary !== null && onPath('mariadb-install-db') !== null ? { binary } : null;
  },
  install: async () => undefined,
};
