import { textOf } from './connection.js';
import { ReplyError } from './resp/reply-reader.js';
import type { Reply } from './resp/reply-reader.js';
import type { StreamCommand } from './resp/command-reader.js';

/** What a command does, as far as a link has to know. */
export type CommandKind =
  /** Writes keys. */
  | 'write'
  /** Writes keys, maybe in another database than is selected: MOVE, COPY. */
  | 'across'
  /** DEL, UNLINK: an expiry and an eviction look like them. HDEL, where fields of a hash can expire. */
  | 'delete'
  /** Has no keys: PUBLISH, FUNCTION. */
  | 'keyless'
  /** Empties or exchanges whole databases. */
  | 'whole'
  /** Changes what a value caches, and nothing that it says: PFCOUNT, which is a read. */
  | 'cache'
  /** Nobody knows its keys. */
  | 'unknown';

export interface CommandSpec {
  kind: CommandKind;
  /** Numbers of the arguments that are keys. */
  keysOf: (command: StreamCommand) => number[];
  /** Number of the key when there is just one, always the same; 0: `keysOf` says it. */
  onlyKey: number;
  /** It gives a key that is there another end of its life. */
  prolongs: boolean;
}

/** As COMMAND says it: the first key, the last (negative: from the end), the step. */
type Positions = readonly [first: number, last: number, step: number];

const ONE: Positions = [1, 1, 1];
const TWO: Positions = [1, 2, 1];
const ALL: Positions = [1, -1, 1];

/** Write commands up to Redis 7.4: the floor, when the source's COMMAND is refused. */
const BY_POSITION: readonly (readonly [Positions, string])[] = [
  [
    ONE,
    `set setex psetex setnx getset getex getdel append setrange setbit bitfield incr decr incrby decrby incrbyfloat
     lpush rpush lpushx rpushx linsert lset ltrim lrem lpop rpop sadd srem spop
     zadd zincrby zrem zremrangebyscore zremrangebyrank zremrangebylex zpopmin zpopmax
     hset hmset hsetnx hincrby hincrbyfloat hdel hexpire hpexpire hexpireat hpexpireat hpersist hsetex hgetex hgetdel
     geoadd pfadd xadd xtrim xdel xack xclaim xautoclaim xsetid
     expire pexpire expireat pexpireat persist restore restore-asking`,
  ],
  [TWO, 'rename renamenx rpoplpush lmove smove zrangestore geosearchstore'],
  [ALL, 'pfmerge sinterstore sunionstore sdiffstore'],
  [[1, -1, 2], 'mset msetnx'],
  [[2, 2, 1], 'xgroup'],
  [[2, -1, 1], 'bitop'],
];

/** Keys that are elsewhere than positions can say. */
const BY_FORM: Record<string, CommandSpec['keysOf']> = {
  zunionstore: destinationAndNumbered,
  zinterstore: destinationAndNumbered,
  zdiffstore: destinationAndNumbered,
  sort: firstAndStored,
  georadius: firstAndStored,
  georadiusbymember: firstAndStored,
};

/** In a source's stream, GETEX is one of these. */
const PROLONGING = [
  'expire', 'pexpire', 'expireat', 'pexpireat', 'persist', 'getex',
  'hexpire', 'hpexpire', 'hexpireat', 'hpexpireat', 'hpersist', 'hgetex',
]; // prettier-ignore

const KEYLESS = ['publish', 'spublish', 'function', 'script'];
const WHOLE = ['flushall', 'flushdb', 'swapdb'];

const UNKNOWN = keyless('unknown');

/** The commands that a source may send, by name in lower case. */
export class CommandTable {
  private readonly specs = new Map<string, CommandSpec>();

  /** @param reply to COMMAND of the source, for what its modules add; an error is no answer */
  constructor(reply: Reply = []) {
    if (Array.isArray(reply)) for (const entry of reply) this.learn(entry);
    for (const [positions, names] of BY_POSITION)
      for (const name of names.trim().split(/\s+/)) this.specs.set(name, positioned('write', positions));
    for (const name of PROLONGING) this.specs.get(name)!.prolongs = true;
    for (const name of ['del', 'unlink']) this.specs.set(name, positioned('delete', ALL));
    this.specs.set('move', positioned('across', ONE));
    this.specs.set('copy', positioned('across', TWO));
    for (const [name, keysOf] of Object.entries(BY_FORM))
      this.specs.set(name, { kind: 'write', keysOf, onlyKey: 0, prolongs: false });
    // Fields of a hash that expire are deleted like that; a server that knows no such expiry has people delete them.
    if (knows(reply, 'hpexpireat')) this.specs.set('hdel', positioned('delete', ONE));
    for (const name of KEYLESS) this.specs.set(name, keyless('keyless'));
    for (const name of WHOLE) this.specs.set(name, keyless('whole'));
    this.specs.set('pfcount', keyless('cache'));
  }

  get names(): string[] {
    return [...this.specs.keys()];
  }

  of(name: string): CommandSpec {
    return this.specs.get(name) ?? UNKNOWN;
  }

  private learn(entry: Reply): void {
    if (!Array.isArray(entry)) return;
    const [name, , flags, first, last, step] = entry;
    if (!Buffer.isBuffer(name) || !Array.isArray(flags)) return;
    const has = (flag: string): boolean => flags.some((one) => flagText(one) === flag);
    if (!has('write') || has('movablekeys')) return;
    if (typeof first !== 'number' || typeof last !== 'number' || typeof step !== 'number' || first < 1)
      return;
    this.specs.set(
      name.toString('latin1').toLowerCase(),
      positioned('write', [first, last, Math.max(step, 1)]),
    );
  }
}

/** @param reply to COMMAND */
function knows(reply: Reply, name: string): boolean {
  return (
    Array.isArray(reply) &&
    reply.some((entry) => Array.isArray(entry) && textOf(entry[0]).toLowerCase() === name)
  );
}

function flagText(flag: Reply): string {
  if (Buffer.isBuffer(flag)) return flag.toString('latin1');
  return typeof flag === 'string' ? flag : flag instanceof ReplyError ? flag.message : '';
}

function keyless(kind: CommandKind): CommandSpec {
  return { kind, keysOf: () => [], onlyKey: 0, prolongs: false };
}

function positioned(kind: CommandKind, [first, last, step]: Positions): CommandSpec {
  return {
    kind,
    onlyKey: first === last ? first : 0,
    prolongs: false,
    keysOf: ({ argc }) => {
      const keys: number[] = [];
      const end = last < 0 ? argc + last : Math.min(last, argc - 1);
      for (let i = first; i <= end; i += step) keys.push(i);
      return keys;
    },
  };
}

function destinationAndNumbered(command: StreamCommand): number[] {
  const count = Number(command.arg(2).toString('latin1'));
  return [1, ...Array.from({ length: Math.min(count, command.argc - 3) }, (_, i) => i + 3)];
}

/** MOVE key database, COPY key destination … DB database. @returns null: the one that is selected */
export function otherDatabase(command: StreamCommand): number | null {
  const at = command.name === 'move' ? 2 : command.argc;
  const number = (index: number): number => Number(command.arg(index).toString('latin1'));
  if (at < command.argc) return number(at);
  for (let i = 3; i + 1 < command.argc; i++)
    if (command.arg(i).toString('latin1').toLowerCase() === 'db') return number(i + 1);
  return null;
}

/** SORT key … STORE destination, GEORADIUS key … STORE|STOREDIST destination; the last one counts. */
function firstAndStored(command: StreamCommand): number[] {
  const keys = [1];
  for (let i = command.name === 'sort' ? 2 : command.name === 'georadius' ? 6 : 5; i < command.argc; i++) {
    const word = command.arg(i).toString('latin1').toLowerCase();
    // An argument may be one of these words itself.
    if (word === 'limit') i += 2;
    else if (word === 'by' || word === 'get' || word === 'count') i += 1;
    else if ((word === 'store' || word === 'storedist') && i + 1 < command.argc) keys[1] = ++i;
  }
  return keys;
}

/** Whether a SORT reads keys that it does not name: BY and GET with a `*`. */
export function readsOthers(command: StreamCommand): boolean {
  for (let i = 2; i + 1 < command.argc; i++) {
    const word = command.arg(i).toString('latin1').toLowerCase();
    if (word === 'limit') i += 2;
    else if (word === 'store') i += 1;
    else if ((word === 'by' || word === 'get') && command.arg(++i).includes('*')) return true;
  }
  return false;
}

/** What a command names first: of XGROUP, the key is behind its subcommand. */
export function firstKeyOf(command: StreamCommand): Buffer | null {
  const at = command.name === 'xgroup' ? 2 : 1;
  return command.argc > at ? command.arg(at) : null;
}
