import { setTimeout as pause } from 'node:timers/promises';
import mysql from 'mysql2/promise';
import type { Connection, Pool, RowDataPacket } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { InterlockError } from '../../src/errors.js';
import { FenceStore } from '../../src/fence/fence-store.js';
import { checkReadOnly } from '../../src/fence/preflight.js';
import type { UnitChange } from '../../src/fence/types.js';
import { withAssignments } from '../../src/routing/rules.js';
import { FenceStates } from '../../src/rule-center/fence-states.js';
import { createInterlock, FixedRules, isInterlockError } from '../../src/sdk/index.js';
import { userIn } from '../sdk/support.js';
import { RUN_1, buckets, openChange, remoteChange, startFence, testRules } from './fence-fixture.js';
import type { FenceFixture } from './fence-fixture.js';

/** Interlock's account and an application's, with the rights that they have in the lab; neither is SUPER. */
const RIGHTS = {
  mysql:
    'SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, PROCESS, REPLICATION CLIENT, CONNECTION_ADMIN, SYSTEM_VARIABLES_ADMIN, XA_RECOVER_ADMIN',
  mariadb:
    'SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, PROCESS, BINLOG MONITOR, CONNECTION ADMIN, READ_ONLY ADMIN',
};
/** All that dc-a owns by the rules of the fixture. */
const ALL = [...buckets(1000), 'segment:vip'];
const ER_READ_ONLY = 1290;

async function failure(promise: Promise<unknown>): Promise<InterlockError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (!isInterlockError(error)) throw new Error(`expected an InterlockError, got ${String(error)}`);
  return error;
}

describe.each(['mysql', 'mariadb'] as const)('read_only of a whole data center on %s', (flavour) => {
  let f: FenceFixture;
  /** As Interlock's own account. */
  let fence: FenceStore;
  let pool: Pool;
  const clients: Connection[] = [];

  beforeAll(async () => {
    f = await startFence(flavour);
    for (const [user, rights] of [
      ['interlock', `${RIGHTS[flavour]} ON *.*`],
      ['app', 'SELECT, INSERT, UPDATE, DELETE, LOCK TABLES ON app.*'],
    ] as const) {
      await f.pool.query(`CREATE USER '${user}'@'127.0.0.1' IDENTIFIED BY 'x'`);
      await f.pool.query(`GRANT ${rights} TO '${user}'@'127.0.0.1'`);
    }
    await f.pool.query(`GRANT SELECT ON interlock.unit_state TO 'app'@'127.0.0.1'`);
    connectAgain();
  });
  afterAll(async () => {
    await pool.end();
    await f.stop();
  });
  beforeEach(async () => {
    await f.pool.query('SET GLOBAL read_only = OFF');
    await f.pool.query('DELETE FROM interlock.dc_read_only');
    await f.reset();
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.destroy();
  });

  function connectAgain(): void {
    pool = mysql.createPool({
      host: f.server.host,
      port: f.server.port,
      user: 'interlock',
      password: 'x',
      connectionLimit: 6,
      multipleStatements: true,
      timezone: 'Z',
    });
    fence = new FenceStore({ dc: 'dc-a', store: 'main', pool, flavour });
  }
  /** A writer that knows nothing of Interlock. */
  const stranger = async (): Promise<Connection> => {
    const client = await mysql.createConnection({
      host: f.server.host,
      port: f.server.port,
      user: 'app',
      password: 'x',
      multipleStatements: true,
    });
    client.on('error', () => undefined);
    clients.push(client);
    return client;
  };
  const fenceAll = (epoch = 2, more: Partial<UnitChange> = {}): UnitChange => ({
    units: ALL,
    to: 'write_disabled',
    owner: 'dc-a',
    epoch,
    holder: RUN_1,
    readOnly: true,
    ...more,
  });
  const isOn = async (): Promise<boolean> => {
    const [rows] = await f.pool.query<RowDataPacket[]>('SELECT @@global.read_only AS value');
    return Number(rows[0]!['value']) === 1;
  };
  const entries = async (): Promise<number> => {
    const [rows] = await f.pool.query<RowDataPacket[]>('SELECT COUNT(*) AS n FROM app.entry');
    return Number(rows[0]!['n']);
  };
  const errno = (promise: Promise<unknown>): Promise<number> =>
    promise.then(
      () => 0,
      (error: { errno?: number }) => error.errno ?? -1,
    );
  const INSERT = "INSERT INTO app.entry (unit, note) VALUES ('x', 'stranger')";

  it('stops writers without the SDK before the marker, and lets them in again when the units re-open', async () => {
    const writers = await Promise.all(Array.from({ length: 4 }, stranger));
    let acknowledged = 0;
    const refusals: number[] = [];
    let fenced = false;
    const loads = writers.map(async (writer, i) => {
      for (;;) {
        // One more attempt after the fence, which has to be refused.
        const last = fenced;
        const sql = i % 2 === 0 ? INSERT : `START TRANSACTION; ${INSERT}; COMMIT`;
        const refused = await errno(writer.query(sql));
        if (refused !== 0 || last) return refusals.push(refused);
        acknowledged++;
      }
    });
    // A transaction that has written and is not committed when the fence comes.
    const halfDone = await stranger();
    await halfDone.query(`START TRANSACTION; ${INSERT}`);
    await pause(300);
    const marker = { id: 'm1', workflowId: 'w', runId: 'r', epoch: 2 };
    await fence.change(fenceAll(2, { marker }));
    fenced = true;
    await Promise.all(loads);
    expect(refusals).toEqual(writers.map(() => ER_READ_ONLY));
    expect(await errno(halfDone.query('COMMIT'))).toBe(ER_READ_ONLY);
    expect(acknowledged).toBeGreaterThan(20);
    expect(await entries()).toBe(acknowledged);
    expect(await tablesInBinlog(f.pool)).toMatchObject({ behindMarker: [], beforeMarker: acknowledged });

    await fence.reopen(openChange(ALL, 3));
    expect(await isOn()).toBe(false);
    expect(await errno(halfDone.query(INSERT))).toBe(0);
  });

  it('stays on while the units are away, and goes off when some are opened here', async () => {
    await fence.change(fenceAll());
    await fence.change(remoteChange(ALL, 3));
    expect(await fence.readOnly.view()).toMatchObject({ on: true, wanted: true, epoch: 2 });
    expect(await errno((await stranger()).query(INSERT))).toBe(ER_READ_ONLY);
    for (let i = 0; i < 2; i++) {
      await fence.change(openChange(buckets(10), 4));
      expect(await fence.readOnly.view()).toMatchObject({ on: false, wanted: false, epoch: 4 });
    }
    expect(await errno((await stranger()).query(INSERT))).toBe(0);
  });

  it('leaves a read_only alone that somebody else has set', async () => {
    await f.pool.query('SET GLOBAL read_only = ON');
    await fence.change(openChange(ALL, 2));
    await fence.readOnly.mend();
    expect(await fence.readOnly.view()).toMatchObject({ on: true, wanted: false, settled: true });
  });

  it('a late fence fails before it sets anything', async () => {
    await fence.change(fenceAll());
    await fence.reopen(openChange(ALL, 3));
    expect((await failure(fence.change(fenceAll()))).code).toBe('StaleEpoch');
    // Already behind its locks when its session was lost.
    await fence.readOnly
      .turnOn({ epoch: 2, holder: RUN_1 }, await fence.identity(), 'kill', performance.now() + 1_000)
      .catch(() => undefined);
    expect(await isOn()).toBe(false);
  });

  it('a fence that was paused between its locks and its record changes nothing behind a re-opening', async () => {
    const server = await fence.identity();
    await fence.reopen(openChange(ALL, 3));
    const late = fence.readOnly.turnOn(
      { epoch: 2, holder: RUN_1 },
      server,
      'kill',
      performance.now() + 1_000,
    );
    await expect(late).rejects.toThrow(/read_only/);
    expect(await fence.readOnly.view()).toMatchObject({ on: false, wanted: false, epoch: 3 });
  });

  it('a repeat of a fence that stands turns it on again, and takes nothing back when it cannot', async () => {
    await fence.change(fenceAll());
    const blocker = await stranger();
    await f.pool.query('SET GLOBAL read_only = OFF');
    await blocker.query('LOCK TABLES app.entry WRITE');
    const spare = { budgetMs: 300, blockers: 'give-up' as const };
    expect((await failure(fence.change(fenceAll(), spare))).code).toBe('FenceBudgetExceeded');
    expect(await fence.readOnly.view()).toMatchObject({ wanted: true });
    expect((await fence.evidence(ALL)).readOnlyForgotten).toBe(true);
    await blocker.query('UNLOCK TABLES');
    await fence.change(fenceAll());
    expect(await fence.readOnly.view()).toMatchObject({ on: true, wanted: true });
    expect((await fence.evidence(ALL)).readOnlyForgotten).toBe(false);
  });

  it('another server of the same data gets it with the states, when they are asserted anew', async () => {
    await fence.change(fenceAll());
    await fence.change(remoteChange(ALL, 3));
    await f.pool.query("UPDATE interlock.unit_state SET server = 'before'");
    await f.pool.query("UPDATE interlock.dc_read_only SET server = 'before'");
    await f.pool.query('SET GLOBAL read_only = OFF');
    expect(await fence.mendReadOnly()).toBeUndefined();
    const away = withAssignments(
      testRules(),
      new Map(ALL.map((unit) => [unit, { owner: 'dc-b', state: 'open' }])),
      {
        epoch: 3,
        reason: 'test',
        holder: null,
      },
    );
    await fence.reassert(away);
    expect(await fence.readOnly.view()).toMatchObject({ on: true, wanted: true, epoch: 2 });
  });

  it('a store that was set up without the record gets it, and nothing is written when it has it', async () => {
    await f.pool.query('DROP TABLE interlock.dc_read_only');
    await fence.upgradeSchema();
    expect(await fence.readOnly.view()).toMatchObject({ on: false, wanted: false, epoch: null });
    const before = await fence.position();
    await fence.upgradeSchema();
    await fence.ensureSchema();
    expect(await fence.position()).toBe(before);
  });

  it('preflight says whose it is, and what is wrong', async () => {
    const said = async (opening = false): Promise<string> => {
      const seen = await checkReadOnly(fence, opening);
      return typeof seen === 'string' ? seen : `wrong: ${seen.wrong}`;
    };
    expect(await said()).toBe('off');
    await f.pool.query('SET GLOBAL read_only = ON');
    expect(await said()).toMatch(/^wrong: ON, and not by Interlock/);
    await f.pool.query('SET GLOBAL read_only = OFF');
    await fence.change(fenceAll());
    await fence.change(remoteChange(ALL, 3));
    expect(await said()).toMatch(/^ON by Interlock for the whole data center since epoch 2/);
    await f.pool.query('SET GLOBAL read_only = OFF');
    expect(await said()).toMatch(/^wrong: OFF, though wanted/);
    expect(await said(true)).toMatch(/^OFF by Interlock/);
    await f.pool.query(
      "UPDATE interlock.unit_state SET state = 'open', owner = 'dc-a' WHERE unit = 'cn-east/0'",
    );
    expect(await said()).toMatch(/^wrong: .*1 units are open in it/);
    if (flavour !== 'mysql') return;
    await f.pool.query('SET GLOBAL super_read_only = ON');
    expect(await said()).toMatch(/^wrong: super_read_only/);
    await f.pool.query('SET GLOBAL super_read_only = OFF');
  });

  it('a SET that was held up carries out what is wanted when its turn comes', async () => {
    const inFront = await f.connect();
    await inFront.query("DO GET_LOCK('interlock.read_only', 10)");
    const late = fence.readOnly.turnOn(
      { epoch: 2, holder: RUN_1 },
      await fence.identity(),
      'kill',
      performance.now() + 10_000,
    );
    late.catch(() => undefined);
    await expect
      .poll(async () => (await fence.readOnly.view()).wanted, { timeout: 10_000, interval: 20 })
      .toBe(true);
    await f.pool.query('UPDATE interlock.dc_read_only SET wanted = 0, epoch = 3');
    await inFront.query("DO RELEASE_LOCK('interlock.read_only')");
    await expect(late).rejects.toThrow(/read_only/);
    expect(await isOn()).toBe(false);
  });

  it.each(['a statement', 'a table lock'])(
    'names %s that keeps it waiting, and changes nothing',
    async (what) => {
      const client = await stranger();
      await client.query(INSERT);
      let over: Promise<unknown> = Promise.resolve();
      if (what === 'a statement') {
        over = client.query('UPDATE app.entry SET note = SLEEP(6)');
        await pause(300);
      } else await client.query('LOCK TABLES app.entry WRITE');
      const budget = { budgetMs: 500, blockers: 'give-up' as const };
      const error = await failure(fence.change(fenceAll(), budget));
      expect(error.code).toBe('FenceBudgetExceeded');
      expect(error.message).toMatch(/read_only/);
      // MariaDB shows no owners of table locks without a plugin.
      if (what === 'a statement' || flavour === 'mysql')
        expect(error.message).toMatch(/app@.*(SLEEP|LOCK TABLES)/);
      expect(await fence.readOnly.view()).toMatchObject({ on: false, wanted: false });
      expect(new Set((await fence.states(ALL)).map(({ state }) => state))).toEqual(new Set(['open']));
      if (what === 'a table lock') await client.query('UNLOCK TABLES');
      await over;
      expect(await errno(client.query(INSERT))).toBe(0);
    },
  );

  it('kills the statement that keeps it waiting, by policy', async () => {
    const client = await stranger();
    await client.query(INSERT);
    const slow = errno(client.query('UPDATE app.entry SET note = SLEEP(60)'));
    await pause(300);
    const { blockers } = await fence.change(fenceAll(), { budgetMs: 500, blockers: 'kill' });
    expect(blockers).toMatchObject([{ user: 'app', killed: true }]);
    expect(await slow).not.toBe(0);
    expect(await isOn()).toBe(true);
  });

  it('a restarted server has forgotten it, and gets it back from its rule center', async () => {
    await fence.change(fenceAll());
    await fence.change(remoteChange(ALL, 3));
    await f.server.kill('SIGKILL');
    await f.server.restart();
    expect(await isOn()).toBe(false);
    expect(await new FenceStates(fence).mendReadOnly()).toBe('turned on');
    expect(await isOn()).toBe(true);
    expect(await fence.readOnly.mend()).toBeUndefined();
  });

  it('a fence that died before its commit leaves it on until somebody looks; one that is under way is left alone', async () => {
    const server = await fence.identity();
    const busy = await f.connect();
    await busy.query('START TRANSACTION');
    await busy.query('SELECT unit FROM interlock.unit_state FOR UPDATE');
    await fence.readOnly.turnOn({ epoch: 2, holder: RUN_1 }, server, 'kill', performance.now() + 1_000);
    expect(await fence.readOnly.mend()).toBeUndefined();
    expect(await isOn()).toBe(true);
    await busy.query('ROLLBACK');
    expect(await fence.readOnly.mend()).toBe('turned off');
    expect(await isOn()).toBe(false);
  });

  it('the SDK says WriteDisabled and nothing of the transaction is kept, whatever meets the read_only', async () => {
    const appPool = mysql.createPool({
      host: f.server.host,
      port: f.server.port,
      user: 'app',
      password: 'x',
    });
    const interlock = createInterlock({
      dc: 'dc-a',
      application: 'test',
      rules: new FixedRules(testRules()),
    });
    const store = interlock.mysql(appPool);
    const key = { userId: userIn(7), region: 'cn-east' };
    const readOnly = (on: boolean) => f.pool.query(`SET GLOBAL read_only = ${on ? 'ON' : 'OFF'}`);
    try {
      const atStatement = await failure(
        store.transaction(key, async (tx) => {
          await tx.query(INSERT);
          await readOnly(true);
          await tx.query(INSERT).catch(() => undefined);
          await readOnly(false);
        }),
      );
      expect(atStatement).toMatchObject({ code: 'WriteDisabled', details: { reason: 'read_only' } });
      const atCommit = await failure(
        store.transaction(key, async (tx) => {
          await tx.query(INSERT);
          await readOnly(true);
        }),
      );
      expect(atCommit).toMatchObject({ code: 'WriteDisabled', details: { reason: 'read_only' } });
      const first = await failure(store.transaction(key, (tx) => tx.query(INSERT)));
      expect(first.code).toBe('WriteDisabled');
      expect(await entries()).toBe(0);
      await readOnly(false);
      await store.transaction(key, (tx) => tx.query(INSERT));
      expect(await entries()).toBe(1);
    } finally {
      await appPool.end();
      await interlock.close();
    }
  });
});

/** Changes of `app.entry` in the newest binlog, before and behind the marker. */
async function tablesInBinlog(pool: Pool): Promise<{ beforeMarker: number; behindMarker: number[] }> {
  const [logs] = await pool.query<RowDataPacket[]>('SHOW BINARY LOGS');
  const [events] = await pool.query<RowDataPacket[]>(
    `SHOW BINLOG EVENTS IN '${String(logs.at(-1)!['Log_name'])}'`,
  );
  const info = events.map((row) => String(row['Info']));
  const marker = info.findLastIndex((text) => /table_id: .*interlock.*marker/.test(text));
  if (marker < 0) throw new Error('there is no marker in the binlog');
  const of = (list: string[]): number[] =>
    list.flatMap((text, i) => (/table_id: .*app.*entry/.test(text) ? [i] : []));
  // The fixture empties the table before each test; what was written since is counted.
  const emptied = events.findLastIndex(
    (row, i) => i < marker && /Delete_rows/i.test(String(row['Event_type'])) && i < marker,
  );
  return { beforeMarker: of(info.slice(emptied + 1, marker)).length, behindMarker: of(info.slice(marker)) };
}
