import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { openAllStores } from '../../src/fence/connect.js';
import type { DcStores } from '../../src/fence/connect.js';
import { initialise } from '../../src/fence/init.js';
import { preflightPair, preflightStore, preflightTables } from '../../src/fence/preflight.js';
import type { Check } from '../../src/fence/preflight.js';
import { initialRules } from '../../src/topology/derive.js';
import { validateTopology } from '../../src/topology/load.js';
import type { Topology } from '../../src/topology/schema.js';
import { freePort, startTestMysql } from '../support/mysql.js';
import type { TestMysql } from '../support/mysql.js';
import { interlock, startProgram } from '../support/programs.js';
import { exampleDocument } from '../support/topology.js';

/* eslint-disable @typescript-eslint/no-explicit-any, @typescript-eslint/no-unsafe-member-access, @typescript-eslint/no-unsafe-assignment */

const DCS = ['dc-a', 'dc-b'] as const;
const PASSWORD = 'of interlock';
const RIGHTS = {
  mysql:
    'SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REPLICATION SLAVE, REPLICATION CLIENT, PROCESS, CONNECTION_ADMIN, SYSTEM_VARIABLES_ADMIN, XA_RECOVER_ADMIN',
  mariadb:
    'SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REPLICATION SLAVE, BINLOG MONITOR, PROCESS, CONNECTION ADMIN, READ_ONLY ADMIN',
};
const TABLES = [
  'CREATE TABLE shop.wallet (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id VARCHAR(64), region VARCHAR(32)) ENGINE=InnoDB',
  'CREATE TABLE shop.coupon (id BIGINT AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB',
  'CREATE TABLE shop.country (code CHAR(2) PRIMARY KEY) ENGINE=InnoDB',
];

describe.each(['mysql', 'mariadb'] as const)('%s', (flavour) => {
  const servers = {} as Record<(typeof DCS)[number], TestMysql>;
  let document: any;
  let topology: Topology;
  let stores: Map<string, DcStores>;
  let directory: string;
  let file: string;
  const env = { MYSQL_PASSWORD: PASSWORD, GATEWAY_TOKEN: 'g', RULE_CENTER_TOKEN: 'r' };

  const root = async (dc: (typeof DCS)[number], ...statements: string[]): Promise<void> => {
    const pool = servers[dc].pool();
    for (const statement of statements) await pool.query(statement);
    await pool.end();
  };

  beforeAll(async () => {
    [servers['dc-a'], servers['dc-b']] = await Promise.all([
      startTestMysql(flavour, { offset: 1 }),
      startTestMysql(flavour, { offset: 2 }),
    ]);
    document = exampleDocument();
    for (const dc of DCS) {
      Object.assign(document.datacenters[dc].stores.mysql.main, { port: servers[dc].port, flavour });
      const [center, gateway, admin] = [await freePort(), await freePort(), await freePort()];
      document.datacenters[dc].ruleCenter.url = `http://127.0.0.1:${center}`;
      Object.assign(document.datacenters[dc].gateways['gw-1'], {
        url: `http://127.0.0.1:${gateway}`,
        admin: `http://127.0.0.1:${admin}`,
      });
      const plugin = flavour === 'mysql' ? 'WITH mysql_native_password ' : '';
      await root(
        dc,
        `CREATE USER interlock@'127.0.0.1' IDENTIFIED ${plugin}BY '${PASSWORD}'`,
        'CREATE DATABASE shop',
        ...TABLES,
      );
    }
    document.temporal.address = `127.0.0.1:${await freePort()}`;
    topology = validateTopology(document);
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-check-'));
    file = path.join(directory, 'topology.yaml');
    await writeFile(file, stringify(document));
    stores = openAllStores(topology, () => PASSWORD);
    for (const dc of DCS) await root(dc, `GRANT ${RIGHTS[flavour]} ON *.* TO interlock@'127.0.0.1'`);
    await initialise(stores, initialRules(topology), () => {});
  });

  afterAll(async () => {
    for (const dc of stores?.values() ?? []) await dc.close();
    await Promise.all(Object.values(servers).map((server) => server.stop()));
    if (directory) await rm(directory, { recursive: true });
  });

  const store = (dc: (typeof DCS)[number]): DcStores['control'] => stores.get(dc)!.control;
  const wrong = (checks: Check[]): Check[] => checks.filter((check) => !check.ok);
  const both = async (): Promise<Check[]> => [
    ...(await preflightStore(store('dc-a'), topology)),
    ...(await preflightPair(store('dc-a'), store('dc-b'), topology)),
    ...(await preflightTables('dc-a', [store('dc-a')], topology)),
  ];

  test('stores that are fit pass every check, with an account that has only the rights it needs', async () => {
    const checks = await both();
    expect(wrong(checks)).toEqual([]);
    expect(checks.map((check) => check.name)).toContain('dc-a mysql/main: binlog');
    expect(checks.length).toBeGreaterThan(11);
  });

  describe('each check fails for its reason', () => {
    beforeEach(async () => {
      expect(wrong(await both())).toEqual([]);
    });
    const cases: [string, string[], string[], RegExp, RegExp][] = [
      [
        'row metadata',
        ['SET GLOBAL binlog_row_metadata = MINIMAL'],
        ['SET GLOBAL binlog_row_metadata = FULL'],
        /main: binlog$/,
        /binlog_row_metadata is (MINIMAL|NO_LOG), expected FULL/,
      ],
      [
        'row image',
        ['SET GLOBAL binlog_row_image = MINIMAL'],
        ['SET GLOBAL binlog_row_image = FULL'],
        /main: binlog$/,
        /binlog_row_image is MINIMAL/,
      ],
      [
        'format',
        ['SET GLOBAL binlog_format = STATEMENT'],
        ['SET GLOBAL binlog_format = ROW'],
        /main: binlog$/,
        /binlog_format is STATEMENT, expected ROW/,
      ],
      [
        'read_only',
        ['SET GLOBAL read_only = ON'],
        ['SET GLOBAL read_only = OFF'],
        /read_only$/,
        /applications cannot write/,
      ],
      [
        'largest values',
        ['SET GLOBAL max_allowed_packet = 16777216'],
        ['SET GLOBAL max_allowed_packet = 67108864'],
        /largest values$/,
        /max_allowed_packet is 16777216 in dc-a, 67108864 in dc-b/,
      ],
      [
        'auto-increment',
        ['SET GLOBAL auto_increment_offset = 2'],
        ['SET GLOBAL auto_increment_offset = 1'],
        /auto-increment$/,
        /can collide/,
      ],
      ['server id', [], [], /server ids$/, /both are/],
      [
        'primary key',
        ['ALTER TABLE shop.country DROP PRIMARY KEY'],
        ['ALTER TABLE shop.country ADD PRIMARY KEY (code)'],
        /dc-a mysql\/main: declared tables$/,
        /shop.country has no primary key/,
      ],
      [
        'engine',
        ['ALTER TABLE shop.country ENGINE=MyISAM'],
        ['ALTER TABLE shop.country ENGINE=InnoDB'],
        /dc-a mysql\/main: declared tables$/,
        /shop.country is MyISAM/,
      ],
      [
        'routing column',
        ['ALTER TABLE shop.wallet CHANGE region zone VARCHAR(32)'],
        ['ALTER TABLE shop.wallet CHANGE zone region VARCHAR(32)'],
        /dc-a mysql\/main: declared tables$/,
        /shop.wallet has no column region \(declared as region\)/,
      ],
      [
        'table in one DC',
        ['RENAME TABLE shop.coupon TO shop.gone'],
        ['RENAME TABLE shop.gone TO shop.coupon'],
        /dc-a and dc-b: declared tables$/,
        /shop.coupon is only in dc-b/,
      ],
      [
        'identity',
        ["UPDATE interlock.unit_state SET server = 'other' WHERE unit = 'cn-east/0'"],
        [],
        /unit states$/,
        /1 were asserted on other.*rules reassert --dc dc-/,
      ],
      [
        'XA',
        ["XA START 'x'", 'INSERT INTO shop.coupon VALUES ()', "XA END 'x'", "XA PREPARE 'x'"],
        ["XA ROLLBACK 'x'"],
        /prepared XA/,
        /XA COMMIT or XA ROLLBACK/,
      ],
    ];
    if (flavour === 'mysql') {
      cases.push(
        [
          'value options',
          ["SET GLOBAL binlog_row_value_options = 'PARTIAL_JSON'"],
          ["SET GLOBAL binlog_row_value_options = ''"],
          /main: binlog$/,
          /binlog_row_value_options is PARTIAL_JSON, expected ''/,
        ],
        [
          'compression',
          ['SET GLOBAL binlog_transaction_compression = ON'],
          ['SET GLOBAL binlog_transaction_compression = OFF'],
          /main: binlog$/,
          /binlog_transaction_compression is ON/,
        ],
      );
    }
    test.each(cases)('%s', async (name, spoil, mend, check, detail) => {
      let mended = mend;
      if (name === 'server id') {
        const id = async (dc: (typeof DCS)[number]): Promise<number> => {
          const [rows] = await store(dc).pool.query<any[]>('SELECT @@global.server_id AS id');
          return Number(rows[0].id);
        };
        spoil = [`SET GLOBAL server_id = ${await id('dc-b')}`];
        mended = [`SET GLOBAL server_id = ${await id('dc-a')}`];
      }
      if (name === 'identity') {
        mended = [`UPDATE interlock.unit_state SET server = '${await store('dc-a').identity()}'`];
      }
      // One connection for XA, whose transaction belongs to it until it is prepared.
      const pool = servers['dc-a'].pool({ connectionLimit: 1 });
      try {
        for (const statement of spoil) await pool.query(statement);
        const found = wrong(await both());
        expect(found.length, JSON.stringify(found)).toBeGreaterThan(0);
        const hit = found.find((one) => check.test(one.name));
        expect(hit?.detail, JSON.stringify(found)).toMatch(detail);
      } finally {
        for (const statement of mended) await pool.query(statement);
        await pool.end();
      }
    });

    test('grants', async () => {
      const right = flavour === 'mysql' ? 'CONNECTION_ADMIN' : 'READ_ONLY ADMIN';
      await root('dc-a', `REVOKE ${right}, UPDATE ON *.* FROM interlock@'127.0.0.1'`);
      try {
        const check = wrong(await both()).find((one) => one.name.endsWith('grants'));
        expect(check?.detail).toContain(right);
        expect(check?.detail).toContain('UPDATE on interlock.*');
        expect(check?.detail).toContain('UPDATE on shop.*');
        await root(
          'dc-a',
          `GRANT UPDATE ON shop.* TO interlock@'127.0.0.1'`,
          `GRANT UPDATE ON interlock.* TO interlock@'127.0.0.1'`,
          `GRANT ${right} ON *.* TO interlock@'127.0.0.1'`,
        );
        expect(wrong(await both())).toEqual([]);
      } finally {
        await root('dc-a', `GRANT ${right}, UPDATE ON *.* TO interlock@'127.0.0.1'`);
      }
    });

    test('clock', async () => {
      const tight = { ...topology, limits: { ...topology.limits, clockSkewMs: -10_000 } };
      expect(wrong(await preflightStore(store('dc-a'), tight)).map((check) => check.name)).toEqual([
        'dc-a mysql/main: clock',
      ]);
    });

    test('flavour', async () => {
      const other = flavour === 'mysql' ? 'mariadb' : 'mysql';
      const mistaken = openAllStores(
        {
          ...topology,
          datacenters: JSON.parse(
            JSON.stringify(topology.datacenters).replaceAll(`"flavour":"${flavour}"`, `"flavour":"${other}"`),
          ),
        },
        () => PASSWORD,
      );
      try {
        const checks = await preflightStore(mistaken.get('dc-a')!.control, topology);
        expect(checks[0]).toMatchObject({
          name: 'dc-a mysql/main: version',
          ok: false,
          detail: expect.stringMatching(
            other === 'mysql' ? /expected MySQL 8.0/ : /expected MariaDB 10.11/,
          ) as string,
        });
      } finally {
        for (const dc of mistaken.values()) await dc.close();
      }
    });
  });

  test('the command: valid file 0, wrong parts 1 and named, bad file 2; with --json one document', async () => {
    const plain = await interlock(['topology', 'check', '--topology', file], env);
    expect(plain).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/topology example is valid/) as string,
    });

    const live = await interlock(['topology', 'check', '--live', '--json', '--topology', file], env);
    const report = JSON.parse(live.stdout) as { ok: boolean; checks: Check[] };
    expect(live.code).toBe(1);
    expect(wrong(report.checks).map((check) => check.name)).toEqual([
      'dc-a rule center',
      'dc-a gateway gw-1',
      'dc-b rule center',
      'dc-b gateway gw-1',
      'Temporal',
    ]);

    const table = await interlock(['topology', 'check', '--live', '--topology', file], env);
    expect(table.code).toBe(1);
    expect(table.stdout).toMatch(/^ok +dc-a mysql\/main: binlog +log_bin=ON/m);
    expect(table.stdout).toMatch(/^WRONG +dc-b gateway gw-1 +.*does not answer/m);
    expect(table.stdout).toMatch(/5 of \d+ checks are wrong/);

    const missing = await interlock(['topology', 'check', '--live', '--json', '--topology', file], {
      ...env,
      MYSQL_PASSWORD: '',
    });
    expect(missing.code).toBe(2);
    expect(JSON.parse(missing.stdout)).toMatchObject({ error: { code: 'BadInput' } });
    expect(missing.stderr).toMatch(/environment variable MYSQL_PASSWORD is empty/);

    const bad = path.join(directory, 'bad.yaml');
    await writeFile(bad, stringify({ ...document, defaultRegion: 'us', colour: 'red' }));
    const refused = await interlock(['topology', 'check', '--topology', bad], env);
    expect(refused).toMatchObject({ code: 2, stdout: '' });
    expect(refused.stderr).toMatch(/colour: "red": expected no such key/);
    for (const words of [
      ['topology', 'check', '--live', 'more'],
      ['topology', 'chekc'],
      ['topologie'],
      ['topology', 'check', '--alive'],
    ]) {
      expect((await interlock(words, env)).code, words.join(' ')).toBe(2);
    }
  });

  test('a rule center as a program: serves, watches its store, stops at SIGTERM', async () => {
    const { url } = topology.datacenters['dc-a']!.ruleCenter;
    const args = [
      'rule-center',
      '--dc',
      'dc-a',
      '--topology',
      file,
      '--state',
      path.join(directory, 'state'),
    ];
    const program = startProgram('src/cli/main.js', args, env);
    try {
      await program.prints('the rule center serves', 60_000);
      expect(await (await fetch(`${url}/v1/rules`)).json()).toMatchObject({ rules: { epoch: 1 } });
      const watch = await fetch(`${url}/v1/rules/watch?since=1`);
      const second = await interlock(args, env);
      expect(second.code).toBe(1);
      expect(second.stderr).toMatch(/cannot listen on 127.0.0.1:\d+/);
      const started = performance.now();
      await program.kill('SIGTERM');
      await watch.text().catch(() => undefined);
      expect(await program.ended).toBe(0);
      expect(performance.now() - started).toBeLessThan(5_000);
    } finally {
      await program.kill('SIGKILL');
    }
    const nowhere = await interlock(['rule-center', '--dc', 'dc-x', '--topology', file], env);
    expect(nowhere.code).toBe(2);
    expect(nowhere.stderr).toMatch(/"dc-x" is not in topology example; expected one of dc-a, dc-b/);
  });
});
