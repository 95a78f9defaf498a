import type { Difference } from '../../replicators/core/verification.js';
import type { KeyDifference } from '../../replicators/redis/verify/verification.js';
import type { VerifiedTable, VerifyReport } from '../../workflows/verification-contract.js';
import { isTable, nameOf } from '../../workflows/verification-figures.js';
import type { Verified } from '../../workflows/verification-figures.js';
import { table } from './output.js';

/** Where a verification is: one line, and one per table or store. */
export function renderProgress(report: VerifyReport): string {
  const { tables, stores = [] } = report;
  const counts = ({ progress }: Verified): string[] =>
    [progress.differing, progress.repaired, progress.undecided].map(String);
  const ofTables = tables.map((one) => [
    one.table,
    `mysql/${one.store}`,
    compared(one),
    ...counts(one),
    stateOf(one),
  ]);
  const ofStores = stores.map((one) => [
    `redis/${one.store}`,
    String(one.progress.compared),
    ...counts(one),
    String(one.progress.shortLived),
    stateOf(one),
  ]);
  const header = ['compared', 'differ', 'repaired', 'undecided'];
  const parts = [
    ...(ofTables.length > 0 ? [table([['table', 'store', ...header, 'state'], ...ofTables])] : []),
    ...(ofStores.length > 0 ? [table([['store', ...header, 'short-lived', 'state'], ...ofStores])] : []),
  ];
  const eta =
    report.outcome === 'running' && report.etaMs !== null ? `, about ${seconds(report.etaMs)} left` : '';
  const what = stores.length > 0 ? 'keys' : 'rows';
  const rate = report.rowsPerSecond > 0 ? ` ${report.rowsPerSecond} ${what}/s${eta}.` : '';
  return [`${report.summary}${rate}`, ...parts].join('\n\n');
}

/** The same, and what differs: of rows, both images. */
export function renderReport(report: VerifyReport): string {
  const parts = [renderProgress(report)];
  for (const one of [...report.tables, ...(report.stores ?? [])]) {
    const { progress } = one;
    const [name, what, of] = isTable(one) ? [one.table, 'rows', 'table'] : [nameOf(one), 'keys', 'store'];
    if (progress.notComparable !== null)
      parts.push(`${nameOf(one)} was not compared: ${progress.notComparable}`);
    if (progress.undecided > 0) {
      const why = isTable(one) ? one.progress.undecidedReason : 'they are written all the while';
      parts.push(
        `${name}: ${progress.undecided} ${what} could not be decided (${why ?? 'unknown'}); verify again`,
      );
    }
    if (isTable(one))
      for (const difference of one.progress.differences) parts.push(renderDifference(name, difference));
    else parts.push(...one.progress.differences.map((difference) => renderKey(name, difference)));
    const more = progress.differing - progress.differences.length;
    if (more > 0) parts.push(`${name}: ${more} more ${what} differ`);
    if (progress.cut) parts.push(`${name}: too many ${what} differ; the rest of the ${of} was not compared`);
  }
  return parts.join('\n\n');
}

function renderKey(
  name: string,
  { db, key, what, detail, unit, owner, repaired, notRepaired }: KeyDifference,
): string {
  return `${name} database ${db} ${key} (${whose(unit, owner)}${mended(repaired, notRepaired)})\n  ${what}: ${detail}`;
}

function whose(unit: string | null, owner: string | null): string {
  if (owner === null) return 'unowned';
  return unit === null ? `owner ${owner}` : `unit ${unit}, owner ${owner}`;
}

function mended(repaired: boolean, notRepaired: string | undefined): string {
  return repaired ? '; repaired' : notRepaired === undefined ? '' : `; not repaired: ${notRepaired}`;
}

function renderDifference(
  name: string,
  { key, unit, owner, images, repaired, notRepaired }: Difference,
): string {
  const lines = [`${name} ${pairs(key)} (${whose(unit, owner)}${mended(repaired, notRepaired)})`];
  const [one, other] = Object.values(images);
  // Columns that are equal say nothing; a row that one side does not have is shown whole.
  const shown =
    one && other
      ? Object.keys(one).filter((column) => one[column] !== other[column])
      : Object.keys(one ?? other ?? {});
  for (const [dc, image] of Object.entries(images)) {
    const picked =
      image === null ? null : Object.fromEntries(shown.map((column) => [column, image[column] ?? null]));
    lines.push(`  ${dc}: ${picked === null ? 'no such row' : pairs(picked)}`);
  }
  return lines.join('\n');
}

/** Quoted, so that a trailing space and an empty text are seen; NULL is not. */
function pairs(image: Record<string, string | null>): string {
  const text = (value: string | null): string => (value === null ? 'NULL' : JSON.stringify(value));
  return Object.entries(image)
    .map(([column, value]) => `${column}=${text(value)}`)
    .join(' ');
}

function compared({ progress, estimatedRows }: VerifiedTable): string {
  return progress.done
    ? String(progress.rows)
    : `${progress.rows} of ~${Math.max(progress.rows, estimatedRows)}`;
}

function stateOf({ progress }: Verified): string {
  if (progress.notComparable !== null) return 'not comparable';
  if (progress.cut) return 'cut';
  if (!progress.done) return progress.activeMs === 0 ? 'waiting' : 'under way';
  if (progress.differing > 0) return 'different';
  return progress.undecided > 0 ? 'undecided' : 'equal';
}

function seconds(ms: number): string {
  return ms < 120_000 ? `${Math.ceil(ms / 1000)} s` : `${Math.ceil(ms / 60_000)} min`;
}
