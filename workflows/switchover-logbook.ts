import { setCurrentDetails } from '@temporalio/workflow';
import type {
  FlowReport,
  StepName,
  SwitchOutcome,
  SwitchReport,
  SwitchRequest,
  SwitchStatus,
} from './contract.js';
import type { Holder } from '../src/routing/rules.js';
import type { DcId } from '../src/routing/units.js';
import type { Phase } from './switchover-machine.js';
import type { StepError } from './switchover-errors.js';

const now = () => new Date(Date.now()).toISOString();

/** What operators see of a run: report, status, and the details in Temporal's Web UI. It decides nothing. */
export class Logbook {
  readonly report: SwitchReport;
  phase: Phase = 'planning';
  flow: 'move' | 'rollback' = 'move';
  links: SwitchStatus['links'] = [];
  soakEndsAt: string | null = null;
  private readonly needs = new Map<string, string>();

  constructor(request: SwitchRequest, holder: Holder) {
    this.report = {
      ...holder,
      request,
      planHash: null,
      diff: [],
      unitCount: 0,
      outcome: 'running',
      summary: 'Planning.',
      needs: null,
      error: null,
      steps: [],
      flows: [],
      clients: null,
      startedAt: now(),
      endedAt: null,
    };
  }

  say(summary: string): void {
    this.report.summary = summary;
    this.show();
  }

  /** Runs one step and keeps its times and how it ended. `words` becomes the summary. */
  async step<T>(
    step: StepName,
    words: string,
    run: (detail: (text: string) => void) => Promise<T>,
  ): Promise<T> {
    const entry = this.begin(step, words);
    try {
      const result = await run((text) => (entry.detail = text));
      this.close(entry, true);
      return result;
    } catch (error) {
      entry.detail = error instanceof Error ? messageChain(error) : String(error);
      this.close(entry, false);
      throw error;
    }
  }

  begin(step: StepName, words: string): SwitchReport['steps'][number] {
    const entry = { step, flow: this.flow, startedAt: now(), endedAt: null, ok: null, detail: '' };
    this.report.steps.push(entry);
    this.say(words);
    return entry;
  }

  close(entry: SwitchReport['steps'][number], ok: boolean, detail?: string): void {
    entry.endedAt = now();
    entry.ok = ok;
    if (detail !== undefined) entry.detail = detail;
    this.show();
  }

  last(): SwitchReport['steps'][number] {
    return this.report.steps.at(-1)!;
  }

  /** The step was carried out between these times (ms since the epoch), before the workflow heard of it. */
  took(entry: SwitchReport['steps'][number], fromMs: number, toMs: number): void {
    // Hazard: a time that cannot be read (another version's worker) would fail the workflow's task, for ever, over a figure.
    if (!Number.isFinite(fromMs) || !Number.isFinite(toMs)) return;
    entry.startedAt = new Date(fromMs).toISOString();
    entry.endedAt = new Date(Math.max(fromMs, toMs)).toISOString();
  }

  /** A mend is not a flow of this switchover: it is kept as a step only. */
  beginFlow(from: DcId, to: DcId, kept = true): FlowReport {
    const flow: FlowReport = {
      flow: this.flow,
      from,
      to,
      fenceEpoch: null,
      switchEpoch: null,
      reopenEpoch: null,
      fencedMs: null,
      baselines: [],
      blockers: [],
      unconfirmed: [],
    };
    if (kept) this.report.flows.push(flow);
    return flow;
  }

  /** Something an operator must see, under a key so that it can be taken back; a second one does not hide the first. */
  need(key: string, text: string): void {
    this.needs.set(key, text);
    this.showNeeds();
  }

  met(key: string): void {
    if (this.needs.delete(key)) this.showNeeds();
  }

  fail(error: StepError): void {
    this.report.error = { code: error.code, message: error.message };
  }

  end(outcome: SwitchOutcome, summary: string): void {
    this.phase = 'ended';
    this.report.outcome = outcome;
    this.report.endedAt = now();
    this.soakEndsAt = null;
    this.say(summary);
  }

  status(): SwitchStatus {
    const { report } = this;
    const direction = report.flows.at(-1) ?? report.request;
    return {
      runId: report.runId,
      step: report.steps.at(-1)?.step ?? 'plan',
      flow: this.flow,
      outcome: report.outcome,
      summary: report.summary,
      links: this.links,
      awaiting: this.awaiting(),
      needs: report.needs,
      scope: report.request.scope,
      from: direction.from,
      to: direction.to,
      diff: report.diff,
      steps: report.steps,
      fencedMs: report.flows.at(-1)?.fencedMs ?? null,
      soakEndsAt: this.soakEndsAt,
    };
  }

  /** Nothing more happens by itself soon: what a client waits for that started the switchover. */
  settled(): boolean {
    return this.phase === 'soaking' || this.report.outcome !== 'running' || this.report.needs !== null;
  }

  private awaiting(): SwitchStatus['awaiting'] {
    if (this.phase === 'drain-expired') return 'extend-or-abort';
    if (this.phase === 'soaking') return 'rollback-or-finish';
    if (this.report.needs !== null) return 'operator';
    return this.phase === 'draining' ? 'drain' : 'nothing';
  }

  private showNeeds(): void {
    this.report.needs = this.needs.size === 0 ? null : [...this.needs.values()].join(' ');
    this.show();
  }

  /** The run in words for Temporal's Web UI (Markdown). */
  private show(): void {
    const { report } = this;
    const lines = [
      `**${report.request.scope}: ${report.request.from} → ${report.request.to}**`,
      '',
      report.summary,
    ];
    if (report.needs !== null) lines.push('', `⚠ **Needs an operator:** ${report.needs}`);
    if (this.links.length > 0 && this.phase === 'draining') {
      lines.push('', ...this.links.map((l) => `- ${l.reached ? '✓' : '…'} ${l.link}`));
    }
    lines.push('');
    for (const { step, flow, ok, detail, startedAt, endedAt } of report.steps) {
      const mark = ok === null ? '…' : ok ? '✓' : '✗';
      const took = endedAt === null ? '' : ` (${Date.parse(endedAt) - Date.parse(startedAt)} ms)`;
      const words = `${step}${took}${detail ? `: ${detail}` : ''}`;
      lines.push(`- ${mark} ${flow === 'rollback' ? 'rollback: ' : ''}${words}`);
    }
    setCurrentDetails(lines.join('\n'));
  }
}

function messageChain(error: Error): string {
  let last = error;
  while (last.cause instanceof Error) last = last.cause;
  return last.message;
}
