import { beforeEach, expect, test } from 'vitest';
import { silentLogger } from '../../src/observability/logger.js';
import { rulesHash } from '../../src/routing/hash.js';
import type { Rules } from '../../src/routing/rules.js';
import { unitsOf } from '../../src/routing/rules.js';
import { Reassertion } from '../../src/rule-center/reassertion.js';
import type { StatesPort } from '../../src/rule-center/reassertion.js';
import { RuleBook } from '../../src/rule-center/rule-book.js';
import { rules1, rules2, rules3 } from './fakes.js';

const all = unitsOf(rules1).length;

/** A store whose server was replaced: its rows were asserted on `old`, and `new` answers. */
class FakeStates implements StatesPort {
  readonly name = 'dc-a mysql/main';
  readonly dc = 'dc-a';
  server = 'new';
  asserted = [{ server: 'old', rows: all, writeDisabled: 0 }];
  reasserted: Rules[] = [];
  down = false;
  async look(): ReturnType<StatesPort['look']> {
    if (this.down) throw new Error('connect ECONNREFUSED');
    return { server: this.server, asserted: this.asserted };
  }
  readOnly: 'turned on' | 'turned off' | 'blocked' | undefined;
  mended: string[] = [];
  async mendReadOnly(): Promise<'turned on' | 'turned off' | undefined> {
    if (this.readOnly === 'blocked') throw new Error('read_only could not be set');
    if (this.readOnly !== undefined) this.mended.push(this.readOnly);
    return this.readOnly;
  }
  async reassert(rules: Rules): Promise<{ written: string[]; server: string }> {
    this.reasserted.push(rules);
    this.asserted = [{ server: this.server, rows: all, writeDisabled: 0 }];
    return { written: unitsOf(rules), server: this.server };
  }
}

interface World {
  states: FakeStates;
  storeEpoch: number | null;
  peer: { epoch: number | null; hash: string | null; storeEpoch: number | null } | undefined;
  rules: Rules | undefined;
}
let world: World;
beforeEach(() => {
  world = {
    states: new FakeStates(),
    storeEpoch: 3,
    peer: { epoch: 3, hash: rulesHash(rules3), storeEpoch: 3 },
    rules: rules3,
  };
});

async function look(): Promise<Reassertion> {
  const book = new RuleBook();
  if (world.rules !== undefined) book.offer({ rules: world.rules, hash: rulesHash(world.rules) });
  const reassertion = new Reassertion(
    [world.states],
    {
      dc: 'dc-b',
      health: async () => {
        if (world.peer === undefined) throw new Error('connect ECONNREFUSED');
        return world.peer;
      },
    },
    book,
    async () => world.storeEpoch,
    silentLogger(),
  );
  await reassertion.look();
  return reassertion;
}

test('a store on the server that it was asserted on is left alone', async () => {
  world.states.server = 'old';
  const reassertion = await look();
  expect(world.states.reasserted).toEqual([]);
  expect(reassertion.problems).toEqual([]);
});

test('states are asserted again when both data centers agree and nobody holds units', async () => {
  const reassertion = await look();
  expect(world.states.reasserted).toEqual([rules3]);
  expect(reassertion.problems).toEqual([]);
  expect(reassertion.reasserted).toBe(1);
  await reassertion.look();
  expect(world.states.reasserted).toHaveLength(1);
});

test.each<[string, () => void, RegExp]>([
  ['the other DC does not answer', () => (world.peer = undefined), /rule center of dc-b does not answer/],
  ['the other DC is behind', () => (world.peer!.epoch = 2), /dc-b has epoch 2, here it is 3/],
  ['the other DC is ahead', () => (world.peer!.epoch = 4), /dc-b has epoch 4/],
  ['the other DC has no rules', () => (world.peer!.epoch = null), /dc-b has epoch none/],
  ['the other DC has other content', () => (world.peer!.hash = 'x'), /epoch 3 with other content/],
  ["the other DC's store is behind", () => (world.peer!.storeEpoch = 2), /control store of dc-b has epoch 2/],
  ['the own store has lost epochs', () => (world.storeEpoch = 2), /control store has epoch 2/],
  ['the own store does not answer', () => (world.storeEpoch = null), /control store has epoch unknown/],
  ['no rules are known', () => (world.rules = undefined), /no rules are known here/],
  [
    'a switchover holds units',
    () => {
      world.rules = rules2;
      world.storeEpoch = 2;
      world.peer = { epoch: 2, hash: rulesHash(rules2), storeEpoch: 2 };
    },
    /write-disabled by switchover run run-1/,
  ],
  [
    'a fence stands in the store',
    () => (world.states.asserted[0]!.writeDisabled = 1),
    /write-disabled in this store/,
  ],
  [
    'rows are missing',
    () => (world.states.asserted[0]!.rows = all - 1),
    new RegExp(`${all - 1} unit states of ${all}`),
  ],
])('an operator decides when %s', async (_name, change, message) => {
  change();
  const reassertion = await look();
  expect(world.states.reasserted).toEqual([]);
  const problem = reassertion.problems.find((p) => p.code === 'ServerIdentityChanged');
  expect(problem?.message).toMatch(message);
  expect(problem?.message).toMatch(/asserted on old, and new answers.*interlock rules reassert --dc dc-a/s);
  expect(reassertion.reasserted).toBe(0);
});

test('a store that does not answer, and one that refuses, are named', async () => {
  world.states.down = true;
  expect((await look()).problems).toEqual([
    { code: 'StoreUnavailable', message: 'dc-a mysql/main: connect ECONNREFUSED' },
  ]);
  world.states.down = false;
  world.states.reassert = async () => Promise.reject(new Error('a row is newer'));
  expect((await look()).problems).toEqual([
    { code: 'StoreUnavailable', message: 'dc-a mysql/main: a row is newer' },
  ]);
});

test('other content of the same epoch in the other DC is an alarm', async () => {
  world.states.server = 'old';
  world.peer!.hash = 'x';
  expect((await look()).problems).toMatchObject([{ code: 'EpochConflict' }]);
});

test('read_only is mended at each look, and what is in its way is a problem that keeps nothing else', async () => {
  world.states.readOnly = 'turned on';
  expect((await look()).problems).toEqual([]);
  expect(world.states.mended).toEqual(['turned on']);
  world.states.readOnly = 'blocked';
  world.states.asserted = [{ server: 'old', rows: all, writeDisabled: 0 }];
  const blocked = await look();
  expect(blocked.problems).toMatchObject([{ code: 'ReadOnly' }]);
  expect(world.states.reasserted).toHaveLength(2);
});
