import type { Difference } from '../../replicators/core/verification.js';
import type { VerifiedTable, VerifyReport } from '../../workflows/verification-contract.js';
import { table } from './output.js';

/** Where a verification is: one line, and one per table. */
export function renderProgress(report: VerifyReport): string {
  const rows = [['table', 'store', 'compared', 'differ', 'repaired', 'undecided', 'state']];
  for (const one of report.tables) {
    const { progress } = one;
    rows.push([
      one.table,
      `mysql/${one.store}`,
      compared(one),
      String(progress.differing),
      String(progress.repaired),
      String(progress.undecided),
      stateOf(one),
    ]);
  }
  const eta =
    report.outcome === 'running' && report.etaMs !== null ? `, about ${seconds(report.etaMs)} left` : '';
  const rate = report.rowsPerSecond > 0 ? ` ${report.rowsPerSecond} rows/s${eta}.` : '';
  return [`${report.summary}${rate}`, ...(report.tables.length > 0 ? ['', table(rows)] : [])].join('\n');
}

/** The same, and the rows that differ with both images. */
export function renderReport(report: VerifyReport): string {
  const parts = [renderProgress(report)];
  for (const { table: name, store, progress } of report.tables) {
    if (progress.notComparable !== null)
      parts.push(`${name} (mysql/${store}) was not compared: ${progress.notComparable}`);
    if (progress.undecidedReason !== null)
      parts.push(
        `${name}: ${progress.undecided} rows could not be decided (${progress.undecidedReason}); verify again`,
      );
    for (const difference of progress.differences) parts.push(renderDifference(name, difference));
    const more = progress.differing - progress.differences.length;
    if (more > 0) parts.push(`${name}: ${more} more rows differ`);
    if (progress.cut) parts.push(`${name}: too many rows differ; the rest of the table was not compared`);
  }
  return parts.join('\n\n');
}

function renderDifference(
  name: string,
  { key, unit, owner, images, repaired, notRepaired }: Difference,
): string {
  const whose = owner === null ? 'unowned' : `unit ${unit}, owner ${owner}`;
  const end = repaired ? '; repaired' : notRepaired === undefined ? '' : `; not repaired: ${notRepaired}`;
  const lines = [`${name} ${pairs(key)} (${whose}${end})`];
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

function stateOf({ progress }: VerifiedTable): string {
  if (progress.notComparable !== null) return 'not comparable';
  if (progress.cut) return 'cut';
  if (!progress.done) return progress.chunks === 0 ? 'waiting' : 'under way';
  if (progress.differing > 0) return 'different';
  return progress.undecided > 0 ? 'undecided' : 'equal';
}

function seconds(ms: number): string {
  return ms < 120_000 ? `${Math.ceil(ms / 1000)} s` : `${Math.ceil(ms / 60_000)} min`;
}
