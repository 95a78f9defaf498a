import type { Command } from 'commander';
import { changed, quarantineUpdate, readQuarantine } from '../../replicators/mysql/records.js';
import type { QuarantineRecord } from '../../replicators/mysql/records.js';
import { InterlockError } from '../errors.js';
import { EXIT, print, printJson, table } from './output.js';
import { tellLink } from './replicate.js';
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

/** `interlock quarantine list | show | retry | discard`: transactions (Redis: commands) that a link could not apply. */
export function register(program: Command): void {
  const quarantine = program
    .command('quarantine')
    .description('transactions (Redis: commands) that a link could not apply and has kept aside, whole');
  recordCommand(quarantine, 'list [link]', 'those to be decided')
    .option('--all', 'those too that are decided')
    .addHelpText('after', "\nExample:\n  $ interlock quarantine list 'redis/cache:dc-a>dc-b' --all")
    .action(list);
  recordCommand(quarantine, 'show <link> <id>', 'its reason and its rows, or its command')
    .addHelpText('after', example('show'))
    .action(one);
  recordCommand(
    quarantine,
    'retry <link> <id>',
    'apply it now; a MySQL link that stands before it goes on (needs Temporal)',
  )
    .addHelpText('after', example('retry'))
    .action(retry);
  recordCommand(quarantine, 'discard <link> <id>', 'leave it out for ever')
    .option('--yes', 'its changes are lost on the target')
    .addHelpText('after', `${example('discard')} --yes`)
    .action(discard);
}

function example(command: string): string {
  return `\nExample:\n  $ interlock quarantine ${command} 'redis/cache:dc-a>dc-b' 48213`;
}

async function list(link: string | undefined, options: Options): Promise<void> {
  const [topology, wanted] = await links(options, link);
  const states = options.all === true ? {} : { states: ['open', 'retry'] };
  const records = await recordsOf(topology, wanted.mysql, (connection, filter) =>
    readQuarantine(connection, { ...filter, ...states }),
  );
  const commands = await redisRecords(topology, wanted.redis, 'quarantine', options.all === true);
  const rows = [['link', 'id', 'transaction', 'rows', 'units', 'tries', 'link is', 'state', 'reason']];
  for (const record of records) {
    const {
      link: of,
      id,
      gtid,
      changes,
      largeBytes,
      largeRows,
      units,
      tries,
      passed,
      state,
      reason,
    } = record;
    const shown = units.length > 3 ? `${units.slice(0, 3).join(',')},…` : units.join(',');
    rows.push([
      ...[
        of,
        String(id),
        gtid,
        largeBytes === null ? String(changes.length) : `${largeRows ?? `${changes.length}+`}`,
        shown || '–',
        String(tries),
      ],
      ...[passed ? 'behind it' : 'before it', state, reason.slice(0, 120)],
    ]);
  }
  for (const record of commands) {
    const { link: of, id, unit, state } = record;
    rows.push([of, id, '–', '–', unit ?? '–', '–', 'behind it', state, reasonOf(record).slice(0, 120)]);
  }
  const all = [...records, ...commands];
  show(options, { quarantine: all }, rows, 'Nothing is kept aside.');
  if (all.some(({ state }) => state === 'open')) process.exitCode = EXIT.needsOperator;
}

async function one(link: string, text: string, options: Options): Promise<void> {
  const [topology, { redis }] = await links(options, link);
  if (redis.length > 0) return showRedisRecord(topology, link, 'quarantine', text, options);
  const id = recordId(text);
  const record = await inTarget(topology, link, async (connection) =>
    found('quarantine', link, id, await readQuarantine(connection, { link, id })),
  );
  if (options.json) {
    printJson(record);
    return;
  }
  const { gtid, reason, tries, passed, state, createdAt, changes, largeBytes, largeRows } = record;
  print(
    `${link} quarantine ${id} (${state}), ${createdAt}, transaction ${gtid}, tried ${tries} times; the link is ${passed ? 'behind' : 'before'} it`,
  );
  print(`reason: ${reason}`);
  if (largeBytes !== null)
    print(
      `Its first ${changes.length} rows${largeRows === null ? '' : ` of ${largeRows}`}; with ${largeBytes} bytes of binlog it is too large to be shown whole. ${
        largeRows === null
          ? 'It is read again from the source when the link goes on.'
          : 'The target keeps all of it; retry applies it in one transaction.'
      }`,
    );
  if (record.overtaken)
    print(
      `Later transactions have changed ${record.tables.join(', ')}: it is not tried again. Mend these tables (interlock replicate resync '${link}' --tables ${record.tables.join(',')}), then discard it.`,
    );
  for (const { table: of, before, after } of changes) {
    const what = before === null ? 'insert' : after === null ? 'delete' : 'update';
    print(`\n${what} of ${of.schema}.${of.table}\n${table(imageRows(of.columns, { before, after }))}`);
  }
  if (state === 'open') print(`\nnext: interlock quarantine retry|discard '${link}' ${id}`);
}

async function retry(link: string, text: string, options: Options): Promise<void> {
  const [topology, { redis }] = await links(options, link);
  if (redis.length > 0) return decideRedisRecord(topology, link, 'quarantine', text, 'applied', options);
  const id = recordId(text);
  const read = (): Promise<QuarantineRecord> =>
    inTarget(topology, link, async (connection) =>
      found('quarantine', link, id, await readQuarantine(connection, { link, id })),
    );
  const { passed, state, tries } = await read();
  if (state !== 'open')
    throw new InterlockError('Refused', `quarantine ${id} of ${link} is ${state}, not open`);
  if (passed)
    await inTarget(topology, link, (connection) =>
      changed(connection, quarantineUpdate(id, 'open', 'retry')),
    );
  else await tellLink(topology, link, 'resume');
  const decided = await carriedOut(read, (record) =>
    passed ? record.state !== 'retry' : record.state !== 'open' || record.tries > tries,
  );
  report(link, decided, options);
}

async function discard(link: string, text: string, options: Options & { yes?: boolean }): Promise<void> {
  const [topology, { redis }] = await links(options, link);
  if (options.yes !== true)
    throw new InterlockError(
      'BadInput',
      `--yes: its changes are lost on the target: look at them (interlock quarantine show '${link}' ${text}), then say --yes`,
      { details: { field: 'yes' } },
    );
  if (redis.length > 0) return decideRedisRecord(topology, link, 'quarantine', text, 'discarded', options);
  const id = recordId(text);
  const record = await inTarget(topology, link, async (connection) => {
    const read = async (): Promise<QuarantineRecord> =>
      found('quarantine', link, id, await readQuarantine(connection, { link, id }));
    await read();
    const orders = [quarantineUpdate(id, 'open', 'discarded'), quarantineUpdate(id, 'retry', 'discarded')];
    await order(connection, orders, `quarantine ${id} of ${link}`, async () => (await read()).state);
    return read();
  });
  report(link, record, options);
}

function report(link: string, record: QuarantineRecord, options: Options): void {
  const { id, state, reason, passed } = record;
  if (options.json) printJson(record);
  else if (state === 'applied') print(`Quarantine ${id}: applied.`);
  else if (state === 'retry')
    print(`Ordered; ${link} tries it as soon as it runs: interlock replicate status '${link}'`);
  else if (state === 'discarded')
    print(
      `Quarantine ${id}: discarded.${passed ? '' : ` Go on without it: interlock replicate resume '${link}'`}`,
    );
  else print(`It still cannot be applied: ${reason}`);
  if (state === 'open') process.exitCode = EXIT.needsOperator;
}
