import type { DdlReport } from '../../workflows/ddl-contract.js';
import { table } from './output.js';

/** A change of definitions: one line, and one per execution in the order in which they run. */
export function renderDdl(report: DdlReport): string {
  const rows = [['', 'phase', 'where', 'state', 'how', 'statement']];
  for (const step of report.steps) {
    for (const { dc, state, algorithm } of step.targets) {
      rows.push([
        ...[String(step.number), step.phase, `${dc} mysql/${step.store}`, state, algorithm ?? '-'],
        step.statement.replace(/\s+/g, ' ').slice(0, 100),
      ]);
    }
  }
  return [
    report.summary,
    ...(rows.length > 1 ? ['', table(rows)] : []),
    ...report.warnings.map((warning) => `\nWarning: ${warning}`),
  ].join('\n');
}
