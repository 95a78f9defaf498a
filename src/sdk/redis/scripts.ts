import { createHash } from 'node:crypto';
import type { UnitId } from '../../routing/units.js';
import { SERVER_FIELD, UNITS_KEY } from '../../fence/redis-units.js';
import type { WantedUnit } from '../target.js';

/**
 * The check: ARGV is the database, how many units, each with the mapping version by which it was found ('' for none), and then what is to be
 * done. Refuses, as {0, run_id, '#server', states…}, unless every unit is open and the states were asserted on this very server. The states are in
 * database 0.
 */
const CHECK = `
local count = tonumber(ARGV[2])
local fields = {'${SERVER_FIELD}'}
for i = 1, count do fields[i + 1] = ARGV[2 * i + 1] end
if ARGV[1] ~= '0' then redis.call('SELECT', '0') end
local found = redis.call('HMGET', '${UNITS_KEY}', unpack(fields))
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local open = found[1] == server
for i = 1, count do
  local version = found[i + 1] and string.match(found[i + 1], '^open:[^:]*:%d+:(%d+)')
  if not version or (ARGV[2 * i + 2] ~= '' and ARGV[2 * i + 2] ~= version) then open = false end
end
if not open then return {0, server, unpack(found)} end
if ARGV[1] ~= '0' then redis.call('SELECT', ARGV[1]) end
local at = 2 * count + 3
`;

/** Each command by itself, as in a pipeline: one that fails does not stop the others. */
const COMMANDS = `${CHECK}
local replies = {1}
local commands = tonumber(ARGV[at])
for i = 1, commands do
  local length = tonumber(ARGV[at + 1])
  replies[i + 1] = redis.pcall(unpack(ARGV, at + 2, at + 1 + length))
  at = at + 1 + length
end
return replies`;

/** The application's own script, behind the check: it sees its own KEYS and ARGV. */
function applicationScript(text: string): string {
  return `${CHECK}
local keys, arguments = {}, {}
for i = 1, tonumber(ARGV[at]) do keys[i] = ARGV[at + i] end
at = at + #keys
for i = at + 1, #ARGV do arguments[i - at] = ARGV[i] end
local function application(KEYS, ARGV)
${text}
end
return {1, application(keys, arguments)}`;
}

export interface FencedScript {
  text: string;
  sha: string;
}

function scriptOf(text: string): FencedScript {
  return { text, sha: sha1(text) };
}

export function sha1(text: string): string {
  return createHash('sha1').update(text).digest('hex');
}

export const COMMANDS_SCRIPT = scriptOf(COMMANDS);

export function fencedScript(text: string): FencedScript {
  return scriptOf(applicationScript(text));
}

export type Argument = string | Buffer | number;

/** The first arguments of every fenced script. */
export function checkArguments(db: number, wanted: readonly WantedUnit[]): Argument[] {
  const given: Argument[] = [db, wanted.length];
  for (const { unit, mappingVersion } of wanted) given.push(unit, mappingVersion ?? '');
  return given;
}

/** The states that a refusal names, as `checkRows` reads them. */
export function refusedRows(reply: readonly unknown[], units: readonly UnitId[]): string[] {
  const text = (value: unknown): string | null => (Buffer.isBuffer(value) ? value.toString() : null);
  const [, server, asserted, ...states] = reply;
  return units.flatMap((unit, i) => {
    const state = text(states[i]);
    if (state === null) return [];
    const [name, owner, epoch, version] = state.split(':');
    return [[unit, name, owner, epoch, version, text(asserted) ?? 'no server', text(server)].join('|')];
  });
}
