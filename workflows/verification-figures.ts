import type { VerifiedTable, VerifyOutcome, VerifyReport } from './verification-contract.js';

type Figures = Pick<
  VerifyReport,
  'rows' | 'differing' | 'repaired' | 'undecided' | 'rowsPerSecond' | 'etaMs'
>;

export function figuresOf(tables: readonly VerifiedTable[]): Figures {
  const sum = (of: (table: VerifiedTable) => number): number =>
    tables.reduce((total, one) => total + of(one), 0);
  const rows = sum(({ progress }) => progress.rows);
  const activeMs = sum(({ progress }) => progress.activeMs);
  const perMs = activeMs > 0 ? rows / activeMs : 0;
  // An estimate may be below what was counted already: what is left is never less than nothing.
  const left = sum(({ progress, estimatedRows }) =>
    progress.done ? 0 : Math.max(0, estimatedRows - progress.rows),
  );
  return {
    rows,
    differing: sum(({ progress }) => progress.differing),
    repaired: sum(({ progress }) => progress.repaired),
    undecided: sum(({ progress }) => progress.undecided),
    rowsPerSecond: Math.round(perMs * 1000),
    etaMs: perMs > 0 ? Math.round(left / perMs) : null,
  };
}

export function outcomeOf(
  tables: readonly VerifiedTable[],
  error: VerifyReport['error'],
  stopped: boolean,
): Exclude<VerifyOutcome, 'running'> {
  if (tables.some(({ progress }) => progress.differing > 0)) return 'different';
  if (stopped) return 'stopped';
  const whole = tables.every(({ progress }) => progress.notComparable === null && progress.undecided === 0);
  return error === null && whole ? 'equal' : 'failed';
}

export function summaryOf(
  outcome: VerifyOutcome,
  state: VerifyReport['state'],
  tables: readonly VerifiedTable[],
  error: VerifyReport['error'],
): string {
  if (error !== null) return `Could not compare: ${error.message}`;
  const { rows, differing, repaired, undecided } = figuresOf(tables);
  const done = tables.filter(({ progress }) => progress.done).length;
  const skipped = tables.filter(({ progress }) => progress.notComparable !== null).length;
  const parts = [
    `${rows} rows of ${done} of ${tables.length} tables compared`,
    differing === 0 ? 'none differ' : `${differing} differ`,
    ...(repaired > 0 ? [`${repaired} of them repaired`] : []),
    ...(undecided > 0 ? [`${undecided} undecided`] : []),
    ...(skipped > 0 ? [`${skipped} ${skipped === 1 ? 'table' : 'tables'} not comparable`] : []),
  ];
  const word =
    outcome === 'running'
      ? state === 'planning'
        ? 'Finds the tables to compare.'
        : `It is ${state}`
      : outcome;
  return tables.length === 0 ? word : `${word[0]!.toUpperCase()}${word.slice(1)}: ${parts.join(', ')}.`;
}

/** Where a table is, for the Web UI. */
export function inWords({ progress, estimatedRows }: VerifiedTable): string {
  const { rows, differing, repaired, undecided, done, notComparable, chunks } = progress;
  const counts = [
    `${rows}${done ? '' : ` of about ${Math.max(rows, estimatedRows)}`} rows in ${chunks} chunks`,
    `${differing} differ`,
    ...(repaired > 0 ? [`${repaired} repaired`] : []),
    ...(undecided > 0 ? [`${undecided} undecided`] : []),
  ].join(', ');
  return notComparable === null ? counts : `not comparable: ${notComparable} (${counts})`;
}
