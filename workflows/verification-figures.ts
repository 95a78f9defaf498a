import type { VerifiedStore, VerifiedTable, VerifyOutcome, VerifyReport } from './verification-contract.js';

/** What is compared: a table, or a store of Redis. */
export type Verified = VerifiedTable | VerifiedStore;

type Figures = Pick<
  VerifyReport,
  'rows' | 'differing' | 'repaired' | 'undecided' | 'rowsPerSecond' | 'etaMs'
>;

export function isTable(one: Verified): one is VerifiedTable {
  return 'table' in one;
}

export function nameOf(one: Verified): string {
  return isTable(one) ? `${one.table} (mysql/${one.store})` : `redis/${one.store}`;
}

/** Rows or keys that were compared. */
export function comparedOf(one: Verified): number {
  return isTable(one) ? one.progress.rows : one.progress.compared;
}

/** What was gone through, and what the servers have in all by their own word. Of Redis, the keys of both sides, also those that are not compared. */
function wayOf(one: Verified): { gone: number; estimated: number } {
  return isTable(one)
    ? { gone: one.progress.rows, estimated: one.estimatedRows }
    : { gone: one.progress.scanned, estimated: one.progress.estimated };
}

export function figuresOf(all: readonly Verified[]): Figures {
  const sum = (of: (one: Verified) => number): number => all.reduce((total, one) => total + of(one), 0);
  const rows = sum(comparedOf);
  const activeMs = sum(({ progress }) => progress.activeMs);
  const gonePerMs = activeMs > 0 ? sum((one) => wayOf(one).gone) / activeMs : 0;
  // An estimate may be below what was counted already: what is left is never less than nothing.
  const left = sum((one) => {
    const { gone, estimated } = wayOf(one);
    return one.progress.done ? 0 : Math.max(0, estimated - gone);
  });
  return {
    rows,
    differing: sum(({ progress }) => progress.differing),
    repaired: sum(({ progress }) => progress.repaired),
    undecided: sum(({ progress }) => progress.undecided),
    rowsPerSecond: activeMs > 0 ? Math.round((rows / activeMs) * 1000) : 0,
    etaMs: gonePerMs > 0 ? Math.round(left / gonePerMs) : null,
  };
}

export function outcomeOf(
  all: readonly Verified[],
  error: VerifyReport['error'],
  stopped: boolean,
): Exclude<VerifyOutcome, 'running'> {
  if (all.some(({ progress }) => progress.differing > 0)) return 'different';
  if (stopped) return 'stopped';
  const whole = all.every(({ progress }) => progress.notComparable === null && progress.undecided === 0);
  return error === null && whole ? 'equal' : 'failed';
}

export function summaryOf(
  outcome: VerifyOutcome,
  state: VerifyReport['state'],
  all: readonly Verified[],
  error: VerifyReport['error'],
): string {
  if (error !== null) return `Could not compare: ${error.message}`;
  const { rows, differing, repaired, undecided } = figuresOf(all);
  const done = all.filter(({ progress }) => progress.done).length;
  const skipped = all.filter(({ progress }) => progress.notComparable !== null).length;
  const [what, one] = all.every(isTable) ? ['rows', 'table'] : ['keys', 'store'];
  const parts = [
    `${rows} ${what} of ${done} of ${all.length} ${one}s compared`,
    differing === 0 ? 'none differ' : `${differing} differ`,
    ...(repaired > 0 ? [`${repaired} of them repaired`] : []),
    ...(undecided > 0 ? [`${undecided} undecided`] : []),
    ...(skipped > 0 ? [`${skipped} ${skipped === 1 ? one : `${one}s`} not comparable`] : []),
  ];
  const word =
    outcome === 'running' ? (state === 'planning' ? 'Finds what to compare.' : `It is ${state}`) : outcome;
  return all.length === 0 ? word : `${word[0]!.toUpperCase()}${word.slice(1)}: ${parts.join(', ')}.`;
}

/** Where a table or a store is, for the Web UI. */
export function inWords(one: Verified): string {
  const { differing, repaired, undecided, done, notComparable } = one.progress;
  const { gone, estimated } = wayOf(one);
  const seen = isTable(one)
    ? `${gone}${done ? '' : ` of about ${Math.max(gone, estimated)}`} rows in ${one.progress.chunks} chunks`
    : `${one.progress.compared} keys${done ? '' : `, ${gone} of about ${Math.max(gone, estimated)} looked at on both sides`}`;
  const counts = [
    seen,
    `${differing} differ`,
    ...(repaired > 0 ? [`${repaired} repaired`] : []),
    ...(undecided > 0 ? [`${undecided} undecided`] : []),
  ].join(', ');
  return notComparable === null ? counts : `not comparable: ${notComparable} (${counts})`;
}
