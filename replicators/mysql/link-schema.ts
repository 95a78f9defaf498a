import type { Connection } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { Carried } from './carried.js';
import type { Catalog, CatalogTable } from './catalog.js';
import { differencesOf } from './drift.js';
import { flowsOver, isDropped, readDefinitions, waitsFor } from './ddl-steps.js';
import type { DdlSteps } from './ddl-steps.js';
import type { LinkConfig } from './link-config.js';
import { mendCommand } from './mend.js';
import { problemsByTable } from './preflight.js';
import { rowFitOf } from './row-fit.js';
import type { Misfit, RowFit } from './row-fit.js';
import type { SourceTable } from './source-table.js';
import type { ChangeRefused } from './target-errors.js';
import type { SourceTransaction } from './transaction.js';

const ER_DUP_ENTRY = 1062;

/**
 * What a link knows of the definitions on its two sides. The source's changes are announced by its stream, the target's by nothing: so
 * whenever a row does not fit, or the target refuses one, both are read again before the link stops.
 */
export class LinkSchema {
  target: Catalog = new Map();
  source: Catalog = new Map();
  /** Why no row of a table may be carried. */
  problems: ReadonlyMap<string, readonly string[]> = new Map();
  /** Of what the topology leaves out or filters: why that cannot be. */
  unlike: readonly string[] = [];
  private steps: DdlSteps = { dropped: new Map(), changing: new Map(), version: '' };
  private fits = new WeakMap<SourceTable, { fit: RowFit }>();
  private known = '';

  constructor(
    private readonly config: LinkConfig,
    private readonly carried: Carried,
    private readonly connections: { source: Connection; target: Connection },
  ) {}

  /** @returns whether anything is otherwise than it was known */
  async read(): Promise<boolean> {
    const { config, carried, connections } = this;
    const mixed = config.source.flavour !== config.target.flavour;
    const { source, target, problems, steps } = await readDefinitions(carried, connections);
    Object.assign(this, { source, target, unlike: problems, steps });
    const passes = flowsOver(this.steps, this.source, this.target);
    this.problems = problemsByTable(this.source, this.target, config.tables, mixed, passes);
    this.fits = new WeakMap();
    const now = JSON.stringify([this.source, this.target, this.steps.dropped], (_key, value: unknown) =>
      value instanceof Map || value instanceof Set ? [...(value as Iterable<unknown>)] : value,
    );
    const changed = now !== this.known;
    this.known = now;
    return changed;
  }

  tableOf(table: SourceTable): CatalogTable {
    return this.target.get(table.name)!;
  }

  /** The first row of a transaction that the target cannot take as it is defined. */
  misfitOf(transaction: SourceTransaction): Misfit | null {
    let last: SourceTable | undefined;
    let fit: RowFit = null;
    for (const change of transaction.changes) {
      if (change.table !== last) fit = this.fitOf((last = change.table));
      const misfit = fit === null ? null : fit(change);
      if (misfit !== null) return misfit;
    }
    return null;
  }

  private fitOf(table: SourceTable): RowFit {
    let known = this.fits.get(table);
    if (known === undefined) {
      const { source, target, problems, config } = this;
      const mixed = config.source.flavour !== config.target.flavour;
      const dropped = (name: string): boolean => this.isDropped(name);
      known = { fit: rowFitOf(table, { source, target, problems, mixed, dropped }) };
      this.fits.set(table, known);
    }
    return known.fit;
  }

  private isDropped(name: string): boolean {
    return isDropped(this.steps, this.source, name);
  }

  /**
   * A row does not fit: looks again at both sides, and returns when it does now. Rows of tables that are dropped everywhere are taken out.
   * @throws InterlockError LinkStopped; Unavailable while `ddl apply` changes the table
   */
  async settle(transaction: SourceTransaction): Promise<void> {
    await this.read();
    transaction.changes = transaction.changes.filter(
      ({ table }) => this.target.has(table.name) || !this.isDropped(table.name),
    );
    const misfit = this.misfitOf(transaction);
    if (misfit === null) return;
    const { config } = this;
    const change = this.changing([misfit.table]);
    if (change !== undefined) throw waitsFor(config.link, change);
    const { at, command } = await mendCommand(config, this.connections, misfit);
    const value = misfit.value === null ? '' : `, and a row has ${misfit.value.slice(0, 80)} there`;
    throw new InterlockError(
      'LinkStopped',
      `${config.link} stopped before ${transaction.gtid}: ${misfit.text}${value}. Run on ${at}: ${command}; then: interlock replicate resume ${config.link}`,
      {
        details: {
          ...{ link: config.link, position: transaction.gtid, kind: 'schema' },
          differing: [misfit.table],
          ...{ table: misfit.table, column: misfit.column, difference: misfit.text },
          ...{ value: misfit.value, at, command },
        },
      },
    );
  }

  /** A copy reads both sides by one definition. @throws InterlockError LinkStopped */
  requireEqual(tables: readonly string[]): void {
    const { config, source, target } = this;
    const mixed = config.source.flavour !== config.target.flavour;
    const found = tables.flatMap((table) => differencesOf(source, target, table, mixed));
    if (found.length === 0) return;
    throw new InterlockError(
      'LinkStopped',
      `${config.link} still copies, for which a table has to be the same on both sides: make it so, then: interlock replicate resume ${config.link}\n  ${found.map(({ text }) => text).join('\n  ')}`,
      { details: { link: config.link, table: found[0]!.table, kind: 'schema' } },
    );
  }

  /** The target has refused a change: whether one of the sides is defined otherwise than was known, so that it may be tried again. */
  async changedSince(error: ChangeRefused): Promise<boolean> {
    // A key that is there already says nothing of definitions, and comes often.
    return error.errno !== ER_DUP_ENTRY && (await this.read());
  }

  /** The run of `ddl apply` that changes one of these tables (all: null) now. */
  changing(tables: readonly string[] | null): string | undefined {
    for (const [table, change] of this.steps.changing) {
      if (tables === null || tables.includes(table)) return change;
    }
    return undefined;
  }
}
