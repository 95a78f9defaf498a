import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { Connection } from 'mysql2/promise';
import { formatLinkId } from '../../replicators/core/contract.js';
import { wantedLink } from '../../replicators/host/configure.js';
import { linkConfigOf } from '../../replicators/mysql/configure.js';
import { MOST_RECORDS, changed } from '../../replicators/mysql/records.js';
import { connect } from '../../replicators/mysql/session.js';
import { InterlockError } from '../errors.js';
import { wantedLinks } from '../topology/derive.js';
import { loadTopology, resolveSecret } from '../topology/load.js';
import type { Topology } from '../topology/schema.js';
import { print, printJson, progress, table, topologyFile, topologyOption } from './output.js';

export interface Options {
  topology?: string;
  json?: boolean;
  all?: boolean;
}

const WAIT_MS = 30_000;
const POLL_MS = 200;

/** A command over the records of one link, in its target's store: works without Temporal. */
export function recordCommand(parent: Command, signature: string, description: string): Command {
  return topologyOption(parent.command(signature))
    .description(description)
    .option('--json', 'print one JSON document');
}

/** The links of whose records a command line speaks, by id. */
export interface RecordLinks {
  mysql: string[];
  redis: string[];
}

/** @throws InterlockError BadInput: no link of the topology, or one that keeps no records */
export async function links(options: Options, link: string | undefined): Promise<[Topology, RecordLinks]> {
  const { topology } = await loadTopology(topologyFile(options));
  const wanted = link === undefined ? wantedLinks(topology) : [wantedLink(topology, link)];
  if (link !== undefined && wanted[0]!.kind === 'kafka')
    throw new InterlockError(
      'BadInput',
      `${link}: a Kafka link copies every record or stops; it keeps none aside: interlock replicate status '${link}'`,
      { details: { field: 'link', value: link } },
    );
  const of = (kind: keyof RecordLinks): string[] =>
    wanted.filter((one) => one.kind === kind).map((one) => formatLinkId(one));
  return [topology, { mysql: of('mysql'), redis: of('redis') }];
}

/** Works with the store that a link writes into. */
export async function inTarget<T>(
  topology: Topology,
  link: string,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  const connection = await connect(linkConfigOf(topology, link, resolveSecret).target);
  try {
    return await work(connection);
  } finally {
    connection.destroy();
  }
}

/** The records of all these links, those to be decided or all. */
export async function recordsOf<T>(
  topology: Topology,
  wanted: readonly string[],
  read: (connection: Connection, filter: { link: string }) => Promise<T[]>,
): Promise<T[]> {
  const all = await Promise.all(
    wanted.map((link) => inTarget(topology, link, (connection) => read(connection, { link }))),
  );
  const records = all.flat();
  if (records.length >= MOST_RECORDS) progress(`Only the latest ${MOST_RECORDS} of each link are read.`);
  return records;
}

/** Gives the first order that the record's state takes. @throws InterlockError Refused: none */
export async function order(
  connection: Connection,
  orders: readonly string[],
  what: string,
  stateOf: () => Promise<string>,
): Promise<void> {
  for (const one of orders) if (await changed(connection, one)) return;
  throw new InterlockError('Refused', `${what} is ${await stateOf()}, not open`);
}

/** @throws InterlockError BadInput */
export function recordId(text: string): number {
  if (/^[1-9]\d{0,15}$/.test(text)) return Number(text);
  throw new InterlockError(
    'BadInput',
    `id: ${JSON.stringify(text)}: expected the number that \`list\` shows`,
    { details: { field: 'id', value: text } },
  );
}

/** @throws InterlockError BadInput */
export function found<T>(kind: string, link: string, id: number | string, records: readonly T[]): T {
  const [record] = records;
  if (record !== undefined) return record;
  throw new InterlockError(
    'BadInput',
    `${link} has no ${kind} ${id}: interlock ${kind} list '${link}' --all`,
    {
      details: { field: 'id', value: id },
    },
  );
}

/** Waits until the link has carried out what was decided. */
export async function carriedOut<T>(read: () => Promise<T>, done: (record: T) => boolean): Promise<T> {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const record = await read();
    if (done(record) || Date.now() > deadline) return record;
    await sleep(POLL_MS);
  }
}

export function show(
  options: Options,
  document: Record<string, unknown>,
  rows: string[][],
  nothing: string,
): void {
  if (options.json) printJson(document);
  else print(rows.length > 1 ? table(rows) : nothing);
}

const MOST_SHOWN = 60;

/** A row's images beside each other, a line per column. */
export function imageRows(
  columns: readonly string[],
  images: Record<string, readonly string[] | null>,
): string[][] {
  const names = Object.keys(images);
  return [
    ['column', ...names],
    ...columns.map((column, i) => [
      column,
      ...names.map((name) => {
        const value = images[name]?.[i] ?? '–';
        return value.length > MOST_SHOWN ? `${value.slice(0, MOST_SHOWN)}… (${value.length})` : value;
      }),
    ]),
  ];
}
