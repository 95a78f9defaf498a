import mysql from 'mysql2/promise';
import { ensure } from '../../components/component.js';
import { mysqlComponent } from '../../components/mysql.js';
import { mysqlArguments, prepareDataDirectory, waitForMysql } from '../../mysql-server.js';
import type { MysqlServerOptions } from '../../mysql-server.js';
import { isAlive, readPidFile } from '../../processes.js';
import { DATACENTERS, STORES } from '../options.js';
import type { LabDc } from '../options.js';
import { processPart } from '../part.js';
import type { LabContext, Part } from '../part.js';

function mysqlPartName(dc: LabDc, store: string): string {
  return `${dc}-mysql-${store}`;
}

export function mysqlPort(dc: LabDc, store: string): string {
  return `${dc}.mysql.${store}`;
}

/** The MySQL or MariaDB server of one store. */
export function mysqlPart(lab: LabContext, dc: LabDc, store: string): Part {
  const name = mysqlPartName(dc, store);
  const port = lab.port(mysqlPort(dc, store));
  const dcNumber = DATACENTERS.indexOf(dc) + 1;
  const flavour = lab.state.shape.mysql;
  const options = async (): Promise<MysqlServerOptions> => ({
    flavour,
    ...(await ensure(mysqlComponent(flavour), lab.progress)),
    directory: lab.files.part(name),
    port,
    serverId: dcNumber * 100 + STORES.findIndex((known) => known === store) + 1,
    autoIncrement: { increment: DATACENTERS.length, offset: dcNumber },
    rootPassword: lab.secret('mysql-root'),
  });
  return processPart(lab, {
    name,
    kind: flavour,
    dc,
    dependsOn: [],
    address: `127.0.0.1:${port}`,
    ports: [mysqlPort(dc, store)],
    command: async () => {
      const server = await options();
      await prepareDataDirectory(server);
      return { program: server.binary, args: mysqlArguments(server) };
    },
    probe: async () => {
      const server = await options();
      await waitForMysql(server, () => {
        const identity = readPidFile(lab.files.pid(name));
        return identity !== null && isAlive(identity);
      });
      return true;
    },
    afterReady: async () => setUpAccounts(lab, port),
  });
}

/** What Interlock's account needs. Not SUPER: each right has a reason. */
const INTERLOCK_GRANTS = {
  mysql: [
    // Schema `interlock`, applying of replicated rows, preflight's look at tables and settings.
    'SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE TEMPORARY TABLES',
    // The binlog stream; blockers of a fence (who, since when, which statement).
    'REPLICATION SLAVE, REPLICATION CLIENT, PROCESS',
    // Kill blockers and write under read_only; set read_only; see XA transactions in doubt.
    'CONNECTION_ADMIN, SYSTEM_VARIABLES_ADMIN, XA_RECOVER_ADMIN',
  ],
  mariadb: [
    'SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, LOCK TABLES, CREATE TEMPORARY TABLES',
    'REPLICATION SLAVE, BINLOG MONITOR, PROCESS',
    'CONNECTION ADMIN, READ_ONLY ADMIN',
  ],
} as const;

/** Accounts, schemas and tables of the workload. Idempotent. */
async function setUpAccounts(lab: LabContext, port: number): Promise<void> {
  const { shape, workload } = lab.state;
  await asRoot(lab, port, async (connection) => {
    const plugin = shape.mysql === 'mysql' ? 'WITH mysql_native_password ' : '';
    for (const user of ['interlock', 'app']) {
      const password = connection.escape(lab.secret(`mysql-${user}`));
      await connection.query(
        `CREATE USER IF NOT EXISTS '${user}'@'127.0.0.1' IDENTIFIED ${plugin}BY ${password}`,
      );
    }
    for (const grant of INTERLOCK_GRANTS[shape.mysql]) {
      await connection.query(`GRANT ${grant} ON *.* TO 'interlock'@'127.0.0.1'`);
    }
    for (const schema of workload.schemas) {
      const name = connection.escapeId(schema);
      await connection.query(`CREATE DATABASE IF NOT EXISTS ${name}`);
      await connection.query(`GRANT SELECT, INSERT, UPDATE, DELETE ON ${name}.* TO 'app'@'127.0.0.1'`);
    }
    for (const statement of workload.ddl) await connection.query(statement);
  });
}

/** An application looks at its units' rows under a lock, and at nothing else of Interlock's. Once the schema is there. */
export async function grantFenceCheck(lab: LabContext): Promise<void> {
  for (const dc of DATACENTERS) {
    for (const store of STORES.slice(0, lab.state.shape.stores)) {
      await asRoot(lab, lab.port(mysqlPort(dc, store)), async (connection) => {
        await connection.query(`GRANT SELECT ON interlock.unit_state TO 'app'@'127.0.0.1'`);
      });
    }
  }
}

/** Outside the binlog: each store is set up by itself, and nothing of this is for a link. */
async function asRoot(
  lab: LabContext,
  port: number,
  work: (connection: mysql.Connection) => Promise<void>,
): Promise<void> {
  const password = lab.secret('mysql-root');
  const connection = await mysql.createConnection({ host: '127.0.0.1', port, user: 'root', password });
  try {
    await connection.query('SET sql_log_bin = 0');
    await work(connection);
  } finally {
    await connection.end();
  }
}
