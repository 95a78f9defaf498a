import { tombstoneTrigger } from '../../replicators/mysql/tombstones.js';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Connection } from 'mysql2/promise';
import { definitionOf } from '../../replicators/mysql/ddl-apply/attempts.js';
import { rehearse } from '../../replicators/mysql/ddl-apply/rehearsal.js';
import type { Rehearsed } from '../../replicators/mysql/ddl-apply/rehearsal.js';
import { announceSteps, runStep, settleSteps } from '../../replicators/mysql/ddl-apply/run.js';
import type { StepInput } from '../../replicators/mysql/ddl-apply/run.js';
import { readStatement } from '../../replicators/mysql/ddl-apply/statement.js';
import { preflightLink } from '../../replicators/mysql/initialise.js';
import { connect } from '../../replicators/mysql/session.js';
import {
  createOnBoth,
  dump,
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  unlogged,
  until,
} from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';

describe.each(['mysql', 'mariadb'] as const)('a change of definitions on %s', (flavour) => {
  let pair: Pair;
  let a: Connection;
  let b: Connection;
  const running: RunningLink[] = [];
  const server = ({ server: { host, port, user, password } }: Side): Parameters<typeof runStep>[0] => ({
    ...{ host, port, user, password, flavour },
  });
  const never = new AbortController().signal;

  beforeAll(async () => {
    pair = await startPair(flavour);
    a = await connect(server(pair.a));
    b = await connect(server(pair.b));
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    a.destroy();
    b.destroy();
    await pair.stop();
  });

  const rehearsed = async (texts: string[], routing = {}): Promise<Rehearsed[]> =>
    rehearse(
      a,
      flavour,
      texts.map((text, i) => readStatement(text, i + 1)),
      routing,
    );

  it('says of each statement what it does, by rehearsing it', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE d_plan',
      `CREATE TABLE d_plan.parent (id INT PRIMARY KEY)`,
      `CREATE TABLE d_plan.item (id INT AUTO_INCREMENT PRIMARY KEY, user_id VARCHAR(20), n INT NOT NULL DEFAULT 1, t VARCHAR(20), p INT,
         KEY by_n (n, p), UNIQUE KEY one (t), CHECK (n > 0), CONSTRAINT up FOREIGN KEY (p) REFERENCES d_plan.parent (id))`,
      'INSERT INTO d_plan.item (n) VALUES (5)',
    ]);
    const before = await definitionOf(a, 'd_plan.item');
    const phase = async (text: string): Promise<string> => {
      const [one] = await rehearsed([text], { 'd_plan.item': { userId: 'user_id' } });
      const { already, phase: kind, dropped, refusals } = one!;
      return refusals.length > 0
        ? `refused: ${refusals.join('; ')}`
        : [already ? 'already' : kind, ...dropped].join(' ');
    };
    const alter = (clauses: string): Promise<string> => phase(`ALTER TABLE d_plan.item ${clauses}`);
    expect(
      await alter("ADD COLUMN x VARCHAR(9) NOT NULL DEFAULT 'd' FIRST, ADD y INT NULL AFTER n -- why"),
    ).toBe('expand');
    expect(await alter('ADD COLUMN g INT AS (n * 2)')).toBe('expand');
    expect(await alter('MODIFY n BIGINT NOT NULL DEFAULT 3')).toBe('expand');
    expect(await alter('MODIFY t VARCHAR(200), ADD INDEX by_t (t)')).toBe('expand');
    expect(await phase('CREATE INDEX by_t ON d_plan.item (t)')).toBe('expand');
    expect(await phase('CREATE TABLE d_plan.fresh (id INT PRIMARY KEY)')).toBe('expand');
    expect(await alter('DROP COLUMN n')).toBe('contract d_plan.item.n');
    expect(await phase('DROP INDEX by_n ON d_plan.item')).toBe('contract');
    expect(await phase('DROP TABLE d_plan.item')).toBe('contract d_plan.item');
    expect(await alter('ADD COLUMN n INT NOT NULL DEFAULT 1')).toBe('already');
    expect(await alter('DROP COLUMN nothing')).toBe('already');
    expect(await alter('MODIFY n INT NOT NULL DEFAULT 1')).toBe('already');
    expect(await phase('CREATE TABLE d_plan.parent (id INT PRIMARY KEY)')).toBe('already');
    expect(await phase('DROP TABLE IF EXISTS d_plan.nothing')).toBe('already');
    expect(await alter('ADD COLUMN x INT NOT NULL')).toContain('NOT NULL without a default');
    expect(await alter('ADD COLUMN x DATETIME DEFAULT CURRENT_TIMESTAMP')).toContain(
      'compute its own default',
    );
    expect(await alter('MODIFY n SMALLINT NOT NULL DEFAULT 1')).toContain('does not hold all that');
    expect(await alter('MODIFY n VARCHAR(20) NOT NULL')).toContain('does not hold all that');
    expect(await alter('MODIFY t VARCHAR(20) NOT NULL')).toContain('does not hold all that');
    expect(await alter('CONVERT TO CHARACTER SET latin1')).toContain('another character set');
    expect(await alter('DROP COLUMN user_id')).toContain('the topology routes d_plan.item by user_id');
    await unlogged(pair.a, [
      `CREATE TRIGGER d_plan.${tombstoneTrigger('d_plan.item', 'T')} AFTER DELETE ON d_plan.item FOR EACH ROW SET @t = OLD.t`,
    ]);
    expect(await alter('DROP COLUMN t')).toContain('conflicts of d_plan.item are decided by t');
    expect(await alter('DROP COLUMN n')).toBe('contract d_plan.item.n');
    await unlogged(pair.a, [`DROP TRIGGER d_plan.${tombstoneTrigger('d_plan.item', 't')}`]);
    expect(await alter('DROP COLUMN n, ADD COLUMN m INT')).toContain('write two statements');
    expect(await alter('ENGINE=MyISAM')).toContain('engine MyISAM');
    expect(await alter('ADD COLUMN x INTT')).toContain('refused: ');
    expect(await phase('ALTER TABLE d_plan.nothing ADD COLUMN x INT')).toContain(
      'd_plan.nothing does not exist',
    );
    expect(await phase('CREATE TABLE d_plan.parent (id BIGINT PRIMARY KEY)')).toContain(
      'in another definition',
    );
    expect(await phase('CREATE TABLE d_plan.fresh (id INT)')).toContain('without a primary key');
    // One after the other, on one copy: the third is of a column that the first has made.
    const chain = await rehearsed([
      'ALTER TABLE d_plan.item ADD COLUMN x INT NULL',
      'ALTER TABLE d_plan.item ADD COLUMN y INT NULL',
      'ALTER TABLE d_plan.item MODIFY x BIGINT NULL',
    ]);
    expect(chain.map(({ phase: kind, refusals }) => [kind, refusals])).toEqual([
      ['expand', []],
      ['expand', []],
      ['expand', []],
    ]);
    expect(chain[0]!.before).toBe(before);
    expect(chain[2]!.before).toBe(chain[1]!.after);
    expect(chain[0]!.algorithm).toBe('instant');
    // Nothing of it is left.
    expect(await definitionOf(a, 'd_plan.item')).toBe(before);
    expect(await rows(pair.a, `SHOW TABLES FROM interlock LIKE 'ddl_rehearsal%'`)).toEqual([]);
  });

  const step = async (connection: Connection, changeId: string, text: string): Promise<StepInput> => {
    const statement = readStatement(text);
    const [{ before, after, dropped }] = (await rehearse(connection, flavour, [statement], {})) as [
      Rehearsed,
    ];
    return { ...{ changeId, seq: 1, name: statement.name, text, before, after, dropped } };
  };

  it('runs a statement once, whatever happened to the attempt before', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE d_once',
      'CREATE TABLE d_once.item (id INT PRIMARY KEY, n INT)',
    ]);
    const input = await step(a, 'once', 'ALTER TABLE d_once.item ADD COLUMN x INT NULL');
    await announceSteps(server(pair.a), 'once', [input]);
    expect(await runStep(server(pair.a), input, never)).toMatchObject({
      found: false,
      algorithm: 'instant',
      waits: 0,
    });
    // The answer was lost: the definition says that it has run.
    expect(await runStep(server(pair.a), input, never)).toMatchObject({ found: true });
    await settleSteps(server(pair.a), 'once', 1, 'done');
    expect(
      await rows(
        pair.a,
        `SELECT seq, name, state, algorithm FROM interlock.ddl_step WHERE change_id = 'once'`,
      ),
    ).toEqual([{ seq: 1, name: 'd_once.item', state: 'done', algorithm: 'instant' }]);
    // Something else than either: nobody knows what it would do.
    const other = await step(a, 'other', 'ALTER TABLE d_once.item ADD COLUMN y INT NULL');
    await pair.a.pool.query('ALTER TABLE d_once.item ADD COLUMN z INT NULL');
    await expect(runStep(server(pair.a), other, never)).rejects.toThrow('something else has changed it');
  });

  it('waits for a session of before that still runs it', async () => {
    await createOnBoth(pair, ['CREATE DATABASE d_late', 'CREATE TABLE d_late.item (id INT PRIMARY KEY)']);
    const input = await step(a, 'late', 'ALTER TABLE d_late.item ADD COLUMN x INT NULL');
    await announceSteps(server(pair.a), 'late', [input]);
    const zombie = await connect(server(pair.a));
    await zombie.query(`SELECT GET_LOCK('interlock:ddl', 0)`);
    let ended = false;
    const run = runStep(server(pair.a), input, never).finally(() => (ended = true));
    await until(
      async () =>
        (
          await rows(
            pair.a,
            `SELECT 1 FROM information_schema.processlist WHERE info LIKE 'SELECT GET_LOCK%1)%'`,
          )
        ).length > 0 || ended,
      'it waits',
    );
    expect(ended).toBe(false);
    await zombie.query('ALTER TABLE d_late.item ADD COLUMN x INT NULL');
    zombie.destroy();
    expect(await run).toMatchObject({ found: true });
  });

  it('does not let a table that is in use hold up everything behind the statement', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE d_busy',
      'CREATE TABLE d_busy.item (id INT PRIMARY KEY, n INT)',
    ]);
    const input = await step(a, 'busy', 'ALTER TABLE d_busy.item ADD COLUMN x INT NULL');
    await announceSteps(server(pair.a), 'busy', [input]);
    const holder = await pair.a.pool.getConnection();
    await holder.beginTransaction();
    await holder.query('INSERT INTO d_busy.item VALUES (1, 1)');
    const run = runStep(server(pair.a), input, never);
    // Others write all the while: each waits for at most one try.
    for (let id = 10; id < 14; id++) {
      await pair.a.pool.query('INSERT INTO d_busy.item (id, n) VALUES (?, 1)', [id]);
      await until(
        async () =>
          (
            await rows(
              pair.a,
              `SELECT 1 FROM information_schema.processlist WHERE info LIKE 'ALTER TABLE d_busy%'`,
            )
          ).length > 0,
        'it tries again',
      );
    }
    await holder.commit();
    holder.release();
    const result = await run;
    expect(result.found).toBe(false);
    expect(result.waits).toBeGreaterThan(0);
    expect((await dump(pair.a, 'd_busy.item')).length).toBe(5);
  });

  it('links wait for what a change brings to the other side, and do not miss what it drops', async () => {
    const schema = 'd_links';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.item (id INT PRIMARY KEY, n INT, old VARCHAR(9) NOT NULL)`,
    ]);
    const tables = { [`${schema}.item`]: { unrouted: true as const } };
    const ab = await runLink(linkConfig(pair, 'a', schema, tables));
    running.push(ab);
    const ba = await runLink(linkConfig(pair, 'b', schema, tables));
    running.push(ba);
    const insert = (
      side: Side,
      id: number,
      columns = 'id, n, old',
      values = `${id}, ${id}, 'x'`,
    ): Promise<unknown> => side.pool.query(`INSERT INTO ${schema}.item (${columns}) VALUES (${values})`);
    await insert(pair.a, 1);
    await insert(pair.b, 2);
    const both = async (changeId: string, text: string, between: () => Promise<void>): Promise<void> => {
      const [here, there] = [await step(a, changeId, text), await step(b, changeId, text)];
      for (const [side, input] of [
        [pair.a, here],
        [pair.b, there],
      ] as const)
        await announceSteps(server(side), changeId, [input]);
      await runStep(server(pair.a), here, never);
      await between();
      await runStep(server(pair.b), there, never);
      for (const side of [pair.a, pair.b]) await settleSteps(server(side), changeId, 1, 'done');
    };
    // A value that the other side has no place for yet: the link waits, where it would stop.
    await both('add', `ALTER TABLE ${schema}.item ADD COLUMN x INT NOT NULL DEFAULT 5`, async () => {
      await insert(pair.a, 3, 'id, n, old, x', "3, 3, 'x', 6");
      await until(() => String(ab.status().lastError?.message).includes('waits for'), 'the link waits');
      await insert(pair.b, 4);
      await settled(ba, pair.b);
    });
    await settled(ab, pair.a);
    expect(await dump(pair.b, `${schema}.item`)).toEqual(await dump(pair.a, `${schema}.item`));
    // A unique key: neither row by row, nor at all until both have it; and a link that begins anew waits, too.
    await both('key', `ALTER TABLE ${schema}.item ADD UNIQUE KEY one (n)`, async () => {
      await insert(pair.a, 5);
      await until(() => String(ab.status().lastError?.message).includes('waits for'), 'the link waits');
      expect(await rows(pair.b, `SELECT id FROM ${schema}.item WHERE id = 5`)).toEqual([]);
      // Over some attempts, each of which compares both sides at its start.
      const ended = ab.ended.then(() => 'ended');
      expect(await Promise.race([ended, sleep(1_500).then(() => 'waits')])).toBe('waits');
    });
    await settled(ab, pair.a);
    // A column that goes: what the other side still writes there is missed by nobody.
    await both('drop', `ALTER TABLE ${schema}.item DROP COLUMN old`, async () => {
      await insert(pair.b, 6, 'id, n, old', "6, 6, 'gone'");
      await settled(ba, pair.b);
      expect(await rows(pair.a, `SELECT id, n FROM ${schema}.item WHERE id = 6`)).toEqual([{ id: 6, n: 6 }]);
      // Without a default the other side cannot take a row that lacks it.
      await insert(pair.a, 7, 'id, n', '7, 7');
      await until(() => String(ab.status().lastError?.message).includes('waits for'), 'the link waits');
    });
    await settled(ab, pair.a);
    await settled(ba, pair.b);
    expect(await dump(pair.b, `${schema}.item`)).toEqual(await dump(pair.a, `${schema}.item`));
    // A table that goes, with rows on their way.
    await both('table', `DROP TABLE ${schema}.item`, async () => {
      await insert(pair.b, 8, 'id, n', '8, 8');
      await settled(ba, pair.b);
    });
    await settled(ab, pair.a);
    await settled(ba, pair.b);
  });

  it('a link that reads definitions while a change ends takes both as they are behind it', async () => {
    const schema = 'd_while';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.item (id INT PRIMARY KEY, n INT)`,
    ]);
    const config = linkConfig(pair, 'a', schema, { [`${schema}.item`]: { unrouted: true } });
    const text = `ALTER TABLE ${schema}.item ADD UNIQUE KEY one (n)`;
    const [here, there] = [await step(a, 'while', text), await step(b, 'while', text)];
    await announceSteps(server(pair.a), 'while', [here]);
    await announceSteps(server(pair.b), 'while', [there]);
    await runStep(server(pair.b), there, never);
    // Between the first reading of the catalogs and what is read of the steps behind it.
    let catalogs = 0;
    let ended = false;
    const target = new Proxy(b, {
      get: (connection, name) =>
        name !== 'query'
          ? (Reflect.get(connection, name) as unknown)
          : async (sql: string, ...values: unknown[]) => {
              if (sql.includes('information_schema')) catalogs++;
              if (sql.includes('interlock.ddl_step') && catalogs > 0 && !ended) {
                ended = true;
                await runStep(server(pair.a), here, never);
                for (const side of [pair.a, pair.b]) await settleSteps(server(side), 'while', 1, 'done');
              }
              return connection.query(sql, ...(values as []));
            },
    });
    await preflightLink(config, a, target, 'goes on');
    expect(ended).toBe(true);
  });
});
