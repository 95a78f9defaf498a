import { Option } from 'commander';
import type { Command } from 'commander';
import { conflictUpdate, readConflicts } from '../../replicators/mysql/records.js';
import type { ConflictRecord } from '../../replicators/mysql/records.js';
import { InterlockError } from '../errors.js';
import { EXIT, print, printJson, table } from './output.js';
import {
  carriedOut,
  found,
  imageRows,
  inTarget,
  links,
  order,
  recordCommand,
  recordId,
  recordsOf,
  show,
} from './undecided.js';
import type { Options } from './undecided.js';
import { decideRedisRecord, reasonOf, redisRecords, showRedisRecord } from './undecided-redis.js';

/** `interlock conflicts list | show | resolve`: rows that a link did not find as its source had them, commands of units that it did not own. */
export function register(program: Command): void {
  const conflicts = program
    .command('conflicts')
    .description(
      'rows that were not the same on both sides when a change came; Redis: writes of units that the source did not own (works without Temporal)',
    );
  recordCommand(conflicts, 'list [link]', 'open ones: a person has to say which side is right')
    .option('--all', 'those too that a policy has decided')
    .action(list);
  recordCommand(conflicts, 'show <link> <id>', 'the images of both sides, or the command').action(one);
  recordCommand(conflicts, 'resolve <link> <id>', 'close an open one')
    .addOption(
      new Option(
        '--keep <side>',
        "target: what it has stays; source: the link writes the record's image of the source, while the target's row is still the record's; Redis: the command is carried out on the target as it is now",
      )
        .choices(['source', 'target'])
        .makeOptionMandatory(),
    )
    .action(resolve);
}

async function list(link: string | undefined, options: Options): Promise<void> {
  const [topology, wanted] = await links(options, link);
  const states = options.all === true ? {} : { states: ['open', 'wanted'] };
  const records = await recordsOf(topology, wanted.mysql, (connection, filter) =>
    readConflicts(connection, { ...filter, ...states }),
  );
  const commands = await redisRecords(topology, wanted.redis, 'conflicts', options.all === true);
  const rows = [['link', 'id', 'table', 'key', 'what', 'policy', 'kept', 'state', 'at']];
  for (const { link: of, id, table: name, key, kind, policy, kept, state, createdAt } of records)
    rows.push([of, String(id), name, key, kind, policy, kept, state, createdAt]);
  for (const record of commands) {
    const { link: of, id, key, state } = record;
    rows.push([of, id, '–', key ?? '–', reasonOf(record), '–', '–', state, record.decidedAt ?? '–']);
  }
  const all = [...records, ...commands];
  show(options, { conflicts: all }, rows, options.all === true ? 'No conflicts.' : 'No open conflicts.');
  if (all.some(({ state }) => state === 'open')) process.exitCode = EXIT.needsOperator;
}

async function one(link: string, text: string, options: Options): Promise<void> {
  const [topology, { redis }] = await links(options, link);
  if (redis.length > 0) return showRedisRecord(topology, link, 'conflicts', text, options);
  const id = recordId(text);
  const record = await inTarget(topology, link, async (connection) =>
    found('conflicts', link, id, await readConflicts(connection, { link, id })),
  );
  if (options.json) printJson(record);
  else print(words(record));
}

async function resolve(
  link: string,
  text: string,
  options: Options & { keep: 'source' | 'target' },
): Promise<void> {
  const [topology, { redis }] = await links(options, link);
  if (redis.length > 0) {
    const decision = options.keep === 'source' ? 'applied' : 'discarded';
    return decideRedisRecord(topology, link, 'conflicts', text, decision, options);
  }
  const id = recordId(text);
  const record = await inTarget(topology, link, async (connection) => {
    const read = async (): Promise<ConflictRecord> =>
      found('conflicts', link, id, await readConflicts(connection, { link, id }));
    const before = await read();
    if (before.images.shortened !== undefined && options.keep === 'source')
      throw new InterlockError(
        'Refused',
        `conflict ${id}: its values of ${before.images.shortened.join(', ')} were too large to be kept; mend the row (interlock verify mysql --repair), then resolve it with --keep target`,
      );
    const orders =
      options.keep === 'target'
        ? [
            conflictUpdate(id, 'open', 'resolved', 'target'),
            conflictUpdate(id, 'wanted', 'resolved', 'target'),
          ]
        : [conflictUpdate(id, 'open', 'wanted')];
    await order(connection, orders, `conflict ${id} of ${link}`, async () => (await read()).state);
    return carriedOut(read, ({ state }) => state !== 'wanted');
  });
  if (options.json) printJson(record);
  else if (record.state === 'resolved') print(`Resolved: the ${record.kept}'s row stays.`);
  else if (record.state === 'wanted')
    print(`Ordered; ${link} writes it as soon as it runs: interlock replicate status '${link}'`);
  else print(`${link} could not write it: interlock replicate status '${link}'`);
  if (record.state !== 'resolved') process.exitCode = EXIT.needsOperator;
}

function words(record: ConflictRecord): string {
  const { link, id, gtid, table: name, key, unit, kind, policy, kept, state, createdAt, images } = record;
  const what = {
    exists: 'was to be inserted and was there already',
    missing:
      images.before === null
        ? 'was to be inserted again and was deleted later'
        : 'was to be changed and was not there',
    differs: 'was another one than at the source before the change',
    'not-owned': 'was changed at the source, which did not own it (a write past the fence)',
  }[kind];
  const lines = [
    `${link} conflict ${id} (${state}), ${createdAt}, transaction ${gtid}`,
    `${name} key (${key})${unit === null ? '' : `, unit ${unit}`} ${what}; policy ${policy} kept the ${kept}'s row.`,
    table(
      imageRows(images.columns, {
        'source before': images.before,
        'source after': images.after,
        target: images.current,
      }),
    ),
  ];
  if (state === 'open')
    lines.push(
      `next: interlock conflicts resolve '${link}' ${id} --keep source|target; where the source's row is to be mended: interlock verify mysql --tables ${name} --repair`,
    );
  return lines.join('\n');
}
