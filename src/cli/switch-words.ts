import type {
  PlanLink,
  StepReport,
  SwitchPlan,
  SwitchReport,
  SwitchStatus,
} from '../../workflows/contract.js';
import { table } from './output.js';

/** A plan for people: what moves, over which links, what was checked, what it would take. */
export function renderPlan(plan: SwitchPlan): string {
  const links = [...plan.links, ...plan.reverseLinks].map((l: PlanLink) => [
    `  ${l.link}`,
    l.state,
    `${l.lagMs} ms behind`,
    `generation ${l.generation}`,
  ]);
  const bad = plan.checks.filter((c) => !c.ok);
  return [
    `Plan ${plan.hash}`,
    `  ${plan.units.length} units, ${plan.from} → ${plan.to}, on the rules of epoch ${plan.baseEpoch}`,
    ...plan.diff.map((line) => `  ${line}`),
    'Stores',
    `  ${plan.stores.map((s) => (s === plan.controlStore ? `${s} (control)` : s)).join(', ')}`,
    'Links',
    links.length === 0 ? '  none' : table(links),
    'Checks',
    ...plan.checks.map((c) => `  ${c.ok ? 'ok ' : 'NOT'} ${c.name}: ${c.detail}`),
    `Predicted fence: ${plan.predictedFenceMs} ms`,
    bad.length === 0
      ? `Start it: interlock switch start --scope ${plan.scope} --from ${plan.from} --to ${plan.to} --plan ${plan.hash}`
      : `It would be refused: ${bad.length} of ${plan.checks.length} checks are not met.`,
  ].join('\n');
}

const AWAITING: Record<SwitchStatus['awaiting'], string> = {
  nothing: '',
  drain: 'Waiting for the links. `interlock switch abort` gives up.',
  'extend-or-abort':
    'Waiting for you: `interlock switch extend` waits on, `interlock switch abort` gives up.',
  'rollback-or-finish': '`interlock switch rollback` moves back, `interlock switch finish` ends the soak.',
  operator: 'Waiting for what is named above.',
};

/** The state of a run for people. */
export function renderStatus(status: SwitchStatus): string {
  const lines = [
    `${status.scope}: ${status.from} → ${status.to} (${status.outcome}, run ${status.runId})`,
    `  ${status.summary}`,
    ...status.steps.map((s) => `  ${stepLine(s)}`),
  ];
  if (status.awaiting === 'drain' || status.awaiting === 'extend-or-abort') {
    lines.push(...status.links.map((l) => `    ${l.reached ? 'reached' : 'waiting'} ${l.link}`));
  }
  if (status.fencedMs !== null) lines.push(`  Fenced for ${status.fencedMs} ms.`);
  if (status.soakEndsAt !== null) lines.push(`  The soak ends by itself at ${status.soakEndsAt}.`);
  if (status.needs !== null) lines.push(`  NEEDS AN OPERATOR: ${status.needs}`);
  if (AWAITING[status.awaiting] !== '') lines.push(`  ${AWAITING[status.awaiting]}`);
  return lines.join('\n');
}

function stepLine(step: StepReport): string {
  const mark = step.ok === null ? '…' : step.ok ? '✓' : '✗';
  const tookMs = step.endedAt === null ? null : Date.parse(step.endedAt) - Date.parse(step.startedAt);
  const flow = step.flow === 'rollback' ? 'rollback: ' : '';
  return `${mark} ${flow}${step.step}${tookMs === null ? '' : ` (${tookMs} ms)`}${step.detail === '' ? '' : `: ${step.detail}`}`;
}

/** The steps that have ended since `seen`, one line each, for progress on a pipe. */
export function newSteps(status: SwitchStatus, seen: number): { lines: string[]; seen: number } {
  const ended = status.steps.filter((s) => s.endedAt !== null);
  return { lines: ended.slice(seen).map(stepLine), seen: Math.max(seen, ended.length) };
}

/** The report for people. */
export function renderReport(report: SwitchReport): string {
  const { request } = report;
  const lines = [
    `Switchover ${report.runId}: ${report.outcome}`,
    `  ${request.scope}: ${request.from} → ${request.to}, started by ${request.startedBy} at ${report.startedAt}`,
    `  Reason: ${request.reason || 'none given'}`,
    `  ${report.summary}`,
    ...report.diff.map((line) => `  ${line}`),
    'Steps',
    ...report.steps.map((s) => `  ${stepLine(s)}`),
  ];
  for (const flow of report.flows) {
    lines.push(
      `${flow.flow === 'move' ? 'Move' : 'Rollback'} ${flow.from} → ${flow.to}`,
      `  epochs: fence ${flow.fenceEpoch ?? '–'}, switch ${flow.switchEpoch ?? '–'}${flow.reopenEpoch === null ? '' : `, re-opened ${flow.reopenEpoch}`}`,
      `  fenced for: ${flow.fencedMs === null ? 'not measured' : `${flow.fencedMs} ms`}`,
      ...flow.baselines.map(
        (b) =>
          `  ${b.link}: drained in ${b.drainMs === null ? '–' : `${b.drainMs} ms`}, baseline ${b.position}`,
      ),
      ...flow.blockers.map(
        (b) =>
          `  transaction in the way: ${b.user}@${b.host} since ${b.since}${b.killed ? ', killed' : ''}: ${b.statement ?? 'idle'}`,
      ),
      ...flow.unconfirmed.map((g) => `  not confirmed: ${g.gateway} of ${g.dc}: ${g.detail}`),
    );
  }
  if (report.clients) {
    const { heldRequests, refusedRequests, failedRequests, unavailableMs } = report.clients;
    lines.push(
      `Clients: writes unavailable for ${unavailableMs} ms; ${heldRequests} requests held, ${refusedRequests} refused, ${failedRequests} failed`,
    );
  }
  if (report.needs !== null) lines.push(`NEEDS AN OPERATOR: ${report.needs}`);
  return lines.join('\n');
}
