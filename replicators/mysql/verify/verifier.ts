import { setTimeout as sleep } from 'node:timers/promises';
import { InterlockError, messageOf } from '../../../src/errors.js';
import { Router } from '../../../src/routing/rules.js';
import type { Rules } from '../../../src/routing/rules.js';
import type { DcId, UnitId } from '../../../src/routing/units.js';
import type { LinkStatus } from '../../core/contract.js';
import { TableFilter } from '../../../src/topology/table-filter.js';
import type { Difference, TableProgress } from '../../core/verification.js';
import { readCatalog } from '../catalog.js';
import { without } from '../carried.js';
import type { LinkConfig } from '../link-config.js';
import type { Literal } from '../literal.js';
import { tableProblems } from '../preflight.js';
import { comparedScope } from './compared-scope.js';
import { isUnavailable } from '../target-errors.js';
import type { SqlError } from '../target-errors.js';
import { ComparedTable } from './compared-table.js';
import type { KeyRange } from './compared-table.js';
import { Owners } from './owners.js';
import { Passage } from './passage.js';
import { LinkBehind, Settlement } from './settlement.js';
import { Side, rowsOf, rowsOfEach } from './side.js';

export interface VerifierOptions {
  /** `schema.table`. */
  table: string;
  /** The links that carry its changes, one or two, of one store pair. */
  links: readonly LinkConfig[];
  rules: () => Promise<Rules>;
  linkStatus: (link: string) => Promise<LinkStatus | undefined>;
  /** Only rows of these units; all when absent. */
  units?: ReadonlySet<UnitId>;
  repairs: boolean;
  /** So many differences, of so many characters as JSON, are kept with their images; the rest is counted. */
  keep: number;
  keepLength: number;
  onProgress: (progress: TableProgress) => void;
  signal: AbortSignal;
  /** Rows of a chunk; when absent, they follow the time that chunks take. */
  chunkRows?: number;
}

const CHUNK = { first: 1_000, least: 100, most: 20_000, wantedMs: 250 };
/** A chunk in which one side has so many times the rows that were wanted is cut. */
const CROWDED = 4;
/** More rows than these are not decided in one chunk: a process that is lost would lose all of it. */
const KEYS_PER_CHUNK = 2_000;
/** A table that is other altogether is not proven row by row to its end. */
const MOST_DIFFERING = 10_000;
/** A link that comes back after its worker was lost is waited for. */
const LINK_WAIT_MS = 15_000;
const LINK_POLL_MS = 250;
/** Markers that are not removed by then are removed by a later verification. */
const CLEAR_MS = 5_000;
/** Without a chunk for so long, the sessions are given up. */
const STUCK_MS = 180_000;

/**
 * Compares one table from `from` on, until it is done, `untilMs` has passed or the signal is aborted; answers how far it is. Whatever ends it,
 * the last answer or `onProgress` is where another one goes on.
 * @throws InterlockError Unavailable (retryable) when a server does not answer
 */
export async function verifyTable(
  options: VerifierOptions,
  from: TableProgress,
  untilMs: number,
): Promise<TableProgress> {
  const verifier = new Verifier(options, from);
  try {
    return await verifier.run(Date.now() + untilMs);
  } finally {
    await verifier.close();
  }
}

class Verifier {
  private readonly sides: [Side, Side];
  private readonly passages = new Map<DcId, Passage>();
  private progress: TableProgress;
  private size: number;

  constructor(
    private readonly options: VerifierOptions,
    from: TableProgress,
  ) {
    const [link] = options.links;
    this.sides = [new Side(link!.from, link!.source), new Side(link!.to, link!.target)];
    for (const { link: id, from: source, to } of options.links)
      this.passages.set(source, new Passage(id, this.side(source), this.side(to), options.signal));
    this.progress = from;
    this.size = options.chunkRows ?? CHUNK.first;
  }

  async run(until: number): Promise<TableProgress> {
    const { options } = this;
    const stuck = new Watchdog(STUCK_MS, () => this.drop());
    try {
      return await Promise.race([this.compare(until, stuck), stuck.rejects]);
    } catch (error) {
      if (options.signal.aborted) return this.progress;
      if (error instanceof LinkBehind) return this.notComparable(await this.whyBehind(error));
      if (error instanceof InterlockError) throw error;
      if (isUnavailable(error as SqlError))
        throw new InterlockError('Unavailable', messageOf(error), { cause: error, retryable: true });
      return this.notComparable(`${options.table} cannot be read: ${messageOf(error)}`);
    } finally {
      stuck.end();
    }
  }

  async close(): Promise<void> {
    const cleared = [...this.passages.values()].map((passage) => passage.clear());
    const limit = new AbortController();
    await Promise.race([
      Promise.allSettled(cleared),
      sleep(CLEAR_MS, undefined, { signal: limit.signal }).catch(() => undefined),
    ]);
    limit.abort();
    this.drop();
  }

  private async compare(until: number, stuck: Watchdog): Promise<TableProgress> {
    const { options, sides } = this;
    const obstacle = await this.obstacle();
    if (obstacle !== undefined) return this.notComparable(obstacle);
    const definition = await this.definition();
    if (typeof definition === 'string') return this.notComparable(definition);
    const table = definition;
    const settlement = new Settlement({
      ...{ table, sides, passages: this.passages, repairs: options.repairs, signal: options.signal },
      owners: new Owners(table, options.links[0]!.tables, options.links[0]!.mapping),
      router: async () => new Router(await options.rules()),
      onRepaired: (difference) => this.advance(this.withFound([difference])),
      ...(options.units !== undefined && { units: options.units }),
    });
    while (!this.progress.done && Date.now() < until) {
      options.signal.throwIfAborted();
      const began = performance.now();
      await this.chunk(table, settlement);
      const tookMs = performance.now() - began;
      this.advance({ activeMs: this.progress.activeMs + tookMs });
      if (options.chunkRows === undefined) this.size = nextSize(this.size, tookMs);
      stuck.pat();
    }
    return this.progress;
  }

  private async chunk(table: ComparedTable, settlement: Settlement): Promise<void> {
    const { sides, progress, size } = this;
    const [left] = sides;
    const after = progress.cursor;
    let [bound] = await left.rows(table.boundary({ after, upTo: null }, size));
    let range: KeyRange = { after, upTo: bound === undefined ? null : table.keyOf(bound) };
    let sums = await this.checksums(table, range);
    // Rows that only the other side has, or that came meanwhile: a range of them all could be any number.
    const crowded = sides.find((_side, i) => sums[i]!.count > size * CROWDED);
    if (crowded !== undefined) {
      [bound] = await crowded.rows(table.boundary(range, size));
      if (bound !== undefined) {
        range = { after, upTo: table.keyOf(bound) };
        sums = await this.checksums(table, range);
      }
    }
    const [a, b] = sums;
    const end = {
      cursor: range.upTo === null ? progress.cursor : [...range.upTo],
      done: range.upTo === null,
    };
    const compared = {
      ...end,
      chunks: progress.chunks + 1,
      rows: progress.rows + Math.max(a!.count, b!.count),
    };
    if (a!.count === b!.count && a!.checksum === b!.checksum) {
      this.advance(compared);
      return;
    }
    const keys = await this.differingKeys(table, range);
    if (keys.length > KEYS_PER_CHUNK && size > CHUNK.least) {
      this.size = Math.max(CHUNK.least, Math.round(size / 4));
      return;
    }
    const { differences, undecided, vanished } = await settlement.settle(keys);
    const lost = vanished.length === 0 ? 0 : await this.lost(table, range, vanished);
    if (lost > 0) undecided.push({ count: lost, reason: 'the server does not find its row by its key' });
    const found = this.withFound(differences);
    const cut = !compared.done && !this.options.repairs && found.differing > MOST_DIFFERING;
    // In one: with what was found, but not how far it is, another attempt would count it twice.
    this.advance({
      ...found,
      ...compared,
      done: compared.done || cut,
      cut,
      reread: progress.reread + 1,
      undecided: progress.undecided + undecided.reduce((sum, { count }) => sum + count, 0),
      undecidedReason: progress.undecidedReason ?? undecided[0]?.reason ?? null,
    });
  }

  private withFound(
    differences: readonly Difference[],
  ): Pick<TableProgress, 'differing' | 'repaired' | 'unowned' | 'differences'> {
    const { progress } = this;
    const kept = [...progress.differences];
    let length = JSON.stringify(kept).length;
    for (const difference of differences) {
      length += JSON.stringify(difference).length;
      if (kept.length >= this.options.keep || length > this.options.keepLength) break;
      kept.push(difference);
    }
    return {
      differing: progress.differing + differences.length,
      repaired: progress.repaired + differences.filter(({ repaired }) => repaired).length,
      unowned: progress.unowned + differences.filter(({ owner }) => owner === null).length,
      differences: kept,
    };
  }

  private async checksums(
    table: ComparedTable,
    range: KeyRange,
  ): Promise<{ count: number; checksum: string }[]> {
    const sql = table.checksum(range);
    return Promise.all(
      this.sides.map(async (side) => {
        const [row] = await side.rows(sql);
        return { count: Number(row![0]), checksum: String(row![1]) };
      }),
    );
  }

  /** Keys whose rows have another hash, or are on one side only, as of two looks that are not of one moment. */
  private async differingKeys(table: ComparedTable, range: KeyRange): Promise<Literal[][]> {
    const sql = table.hashes(range);
    const [a, b] = await Promise.all(
      this.sides.map(async (side) => {
        const found = new Map<string, { key: Literal[]; hash: string }>();
        for (const cells of await side.rows(sql)) {
          const key = table.keyOf(cells);
          found.set(key.join(','), { key, hash: String(cells.at(-1)) });
        }
        return found;
      }),
    );
    const keys: Literal[][] = [];
    for (const [id, { key, hash }] of a!) if (b!.get(id)?.hash !== hash) keys.push(key);
    for (const [id, { key }] of b!) if (!a!.has(id)) keys.push(key);
    return keys;
  }

  /**
   * Hazard: a literal by which a server does not find the row that it came from would make every difference of such rows vanish. Guard: of keys
   * that had no row on either side, those that a server lists, but does not find in the same snapshot.
   */
  private async lost(table: ComparedTable, range: KeyRange, vanished: readonly Literal[][]): Promise<number> {
    const ids = new Set(vanished.map((key) => key.join(',')));
    const lost = new Set<string>();
    for (const side of this.sides) {
      const session = await side.reader();
      await session.query('START TRANSACTION WITH CONSISTENT SNAPSHOT');
      try {
        const listed = (await rowsOf(session, table.hashes(range))).map((cells) => table.keyOf(cells));
        const looked = listed.filter((key) => ids.has(key.join(',')));
        const found = await rowsOfEach(
          session,
          looked.map((key) => table.row(key, false)),
        );
        looked.forEach((key, i) => found[i]!.length === 0 && lost.add(key.join(',')));
      } finally {
        await session.query('COMMIT');
      }
    }
    return lost.size;
  }

  /** Why the table cannot be compared now; a link that is on its way back is waited for. */
  private async obstacle(): Promise<string | undefined> {
    const deadline = Date.now() + LINK_WAIT_MS;
    for (;;) {
      const states = await Promise.all(
        this.options.links.map(async ({ link }) => ({ link, status: await this.options.linkStatus(link) })),
      );
      const down = states.find(({ status }) => status?.state !== 'streaming');
      if (down === undefined) return undefined;
      const { link, status } = down;
      const final = status !== undefined && status.state !== 'starting';
      if (final || Date.now() > deadline)
        return `${link} is ${status?.state ?? 'not running'}: what it has not carried yet would look like a difference. See \`interlock replicate status ${link}\`; start or resume it, then verify again`;
      await sleep(LINK_POLL_MS, undefined, { signal: this.options.signal });
    }
  }

  private async whyBehind(error: LinkBehind): Promise<string> {
    const status = await this.options.linkStatus(error.link).catch(() => undefined);
    return `${error.message} (${status === undefined ? 'not running' : `${status.state}, lag ${status.lagMs} ms`}): see \`interlock replicate status ${error.link}\`; verify again when it has caught up`;
  }

  /** The table as both sides define it; or why it cannot be compared. */
  private async definition(): Promise<ComparedTable | string> {
    const { table, links } = this.options;
    const scope = comparedScope(links, table);
    if (typeof scope === 'string') return scope;
    const filter = new TableFilter([table], []);
    const [left, right] = await Promise.all(
      this.sides.map(async (side) => {
        const catalog = await readCatalog(await side.reader(), filter);
        return new Map([...catalog].map(([name, one]) => [name, without(one, scope.without)]));
      }),
    );
    const [{ source, target, tables }] = links as [LinkConfig];
    const mixed = source.flavour !== target.flavour;
    const problems = tableProblems(left!, right!, tables, mixed);
    if (problems.length > 0) return problems.join('; ');
    const found = left!.get(table);
    // Hazard: MariaDB keeps the text that came, MySQL the document, and prints it in its own way.
    const json = mixed
      ? [left!, right!]
          .flatMap((side) => [...side.get(table)!.columns.values()])
          .find(({ dataType }) => dataType === 'json')
      : undefined;
    if (json !== undefined)
      return `${table}.${json.name}: MySQL and MariaDB print JSON differently; the table cannot be compared between them`;
    if (found === undefined) return `${table}: on neither side`;
    const set = found.primaryKey
      .map((name) => found.columns.get(name))
      .find((column) => column !== undefined && members(column.type) === 64);
    if (set !== undefined)
      return `${table}.${set.name}: servers order a SET of 64 members otherwise than they compare it; as a key it cannot be walked`;
    return new ComparedTable(found, scope.rows);
  }

  private notComparable(reason: string): TableProgress {
    this.advance({ done: true, notComparable: reason });
    return this.progress;
  }

  private advance(change: Partial<TableProgress>): void {
    this.progress = { ...this.progress, ...change };
    this.options.onProgress(this.progress);
  }

  private side(dc: DcId): Side {
    return this.sides.find((side) => side.dc === dc)!;
  }

  private drop(): void {
    for (const side of this.sides) side.close();
  }
}

/** Of a SET. */
function members(type: string): number {
  return type.startsWith('set(') ? (type.match(/'(?:[^']|'')*'/g) ?? []).length : 0;
}

function nextSize(size: number, tookMs: number): number {
  const ideal = size * (CHUNK.wantedMs / Math.max(tookMs, 1));
  // By steps: one slow answer must not make tiny chunks of the rest.
  const step = Math.min(Math.max(ideal, size / 2), size * 2);
  return Math.round(Math.min(Math.max(step, CHUNK.least), CHUNK.most));
}

/** A server behind a dead network never answers: what is waited for is given up when nothing has moved for `limitMs`. */
class Watchdog {
  readonly rejects: Promise<never>;
  private timer: NodeJS.Timeout | undefined;
  private reject!: (error: Error) => void;

  constructor(
    private readonly limitMs: number,
    private readonly onStuck: () => void,
  ) {
    this.rejects = new Promise((_resolve, reject) => (this.reject = reject));
    this.rejects.catch(() => undefined);
    this.pat();
  }

  pat(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.onStuck();
      this.reject(
        new InterlockError('Unavailable', `nothing compared in ${this.limitMs / 1000} s`, {
          retryable: true,
        }),
      );
    }, this.limitMs);
  }

  end(): void {
    clearTimeout(this.timer);
  }
}
