import { InterlockError } from '../../src/errors.js';
import { LINK_KEY_PREFIX } from './checkpoint.js';
import type { RedisConnection } from './connection.js';
import { isControl } from './judge.js';
import { conflictLogKey, conflictsKey, quarantineKey } from './quarantine.js';
import type { QuarantineRecord } from './quarantine.js';
import { CommandReader } from './resp/command-reader.js';
import type { StreamCommand } from './resp/command-reader.js';
import { ReplyError } from './resp/reply-reader.js';

/** What a link has kept of commands that it did not carry, and what a person decides of it. */
export type RecordKind = 'quarantine' | 'conflicts';

/** `applied`: on the target, by a person's word; `discarded`: left out for good. */
export type Decision = 'applied' | 'discarded';

export interface RedisRecord extends QuarantineRecord {
  link: string;
  /** `by-policy`: a conflict that the link's policy has decided. */
  state: 'open' | Decision | 'by-policy';
  /** ISO 8601; null: of the link itself, or open. */
  decidedAt: string | null;
}

const LOG_LENGTH = 1000;
/** Lua takes no more arguments of one command. */
const MOST_ARGUMENTS = 7_000;

/** The latest that were decided, the newest first. */
function logKey(link: string, kind: RecordKind): string {
  return kind === 'conflicts' ? conflictLogKey(link) : `interlock:quarantine-log:${link}`;
}

function openKey(link: string, kind: RecordKind): string {
  return kind === 'conflicts' ? conflictsKey(link) : quarantineKey(link);
}

/** A link's records in the order of its stream: the open ones, or `all`. */
export async function readRecords(
  target: RedisConnection,
  link: string,
  kind: RecordKind,
  all: boolean,
): Promise<RedisRecord[]> {
  const open = (await target.call('HVALS', openKey(link, kind))) as Buffer[];
  const records = open.map((text) => recordOf(link, text, 'open'));
  const decided = all ? ((await target.call('LRANGE', logKey(link, kind), 0, -1)) as Buffer[]) : [];
  records.push(...decided.map((text) => recordOf(link, text, 'by-policy')));
  return records.sort((a, b) => parseInt(a.id) - parseInt(b.id) || (a.id < b.id ? -1 : 1));
}

function recordOf(link: string, text: Buffer, state: RedisRecord['state']): RedisRecord {
  return { state, decidedAt: null, ...(JSON.parse(text.toString()) as QuarantineRecord), link };
}

/** The command as it was at the source; undefined: it was too long to be kept, or is a key of a copy. */
export function commandOf({ bytes }: QuarantineRecord): StreamCommand | undefined {
  if (bytes === null) return undefined;
  return new CommandReader().push(Buffer.from(bytes, 'base64'))[0];
}

/**
 * Carries the decision out in one step: the record (as it was read) is no longer open, and with `applied` its command is done. What the script writes
 * begins with a link's key: the other link never sends it back. ARGV: id, record, what the log keeps, database and words of the command, or none.
 */
const DECIDE = `
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[3], ARGV[1])
if ARGV[4] then
  redis.call('SELECT', ARGV[4])
  local reply = redis.pcall(unpack(ARGV, 5))
  redis.call('SELECT', '0')
  if type(reply) == 'table' and reply.err then
    redis.call('DEL', KEYS[3])
    return {err = reply.err}
  end
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('LPUSH', KEYS[2], ARGV[3])
redis.call('LTRIM', KEYS[2], 0, ${LOG_LENGTH - 1})
redis.call('DEL', KEYS[3])
return 1`;

/**
 * Decides an open record. With `applied`, its command is carried out on the target as it is now.
 * @returns the record as it is then: open, with the target's words as its `detail`, when the target refuses the command; undefined: it is not open
 * @throws InterlockError Refused: its command cannot be carried out so
 */
export async function decide(
  target: RedisConnection,
  link: string,
  kind: RecordKind,
  id: string,
  decision: Decision,
): Promise<RedisRecord | undefined> {
  const text = await target.call('HGET', openKey(link, kind), id);
  if (!Buffer.isBuffer(text)) return undefined;
  const record = recordOf(link, text, 'open');
  const command = decision === 'applied' ? applicable(record) : undefined;
  const decided: RedisRecord = { ...record, state: decision, decidedAt: new Date().toISOString() };
  const answer = await target.ask(
    ...['EVAL', DECIDE, 3, openKey(link, kind), logKey(link, kind), `${LINK_KEY_PREFIX}${link}:decision`],
    ...[id, text, JSON.stringify(decided)],
    ...(command === undefined ? [] : [record.db, ...command.args]),
  );
  if (answer === 0) return undefined;
  return answer instanceof ReplyError ? { ...record, detail: answer.message } : decided;
}

/** @throws InterlockError Refused */
function applicable(record: RedisRecord): StreamCommand {
  const { link, id, reason } = record;
  const refused = (why: string): InterlockError =>
    new InterlockError(
      'Refused',
      `${id} of ${link}: ${why}. Write on the target what it should have, or have its owner write the key anew (interlock verify redis --repair); then leave the record out`,
      { details: { link, id, reason } },
    );
  if (reason === 'whole-database')
    throw refused(
      `${record.command.toUpperCase()} would also take what the source does not own, and Interlock's own keys`,
    );
  // It may have been applied: a second time would be one too many.
  if (reason === 'unread') throw refused('nobody knows whether the target has taken it');
  const command = commandOf(record);
  if (command === undefined) throw refused('its bytes were not kept');
  if (command.argc > MOST_ARGUMENTS)
    throw refused(`it has ${command.argc} words; at most ${MOST_ARGUMENTS} can be sent so`);
  if (command.args.some(isControl)) throw refused("it also names Interlock's own keys");
  return command;
}
