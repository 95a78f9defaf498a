import { table } from '../../src/cli/output.js';
import type { CheckReport } from './checker/checker.js';
import type { SwitchoverCost } from './rig.js';

/** What `npm run demo -- --json` prints, last on stdout. */
export interface DemoDocument {
  switchovers: {
    scope: string;
    outcome: string;
    fencedMs: number | null;
    slowestClientWriteMs: number | null;
    failedRequests: number;
    heldRequests: number;
  }[];
  ackedWrites: number;
  lostWrites: number;
  doubledWrites: number;
  dualOwnerWrites: number;
  /** There was a Kafka, so that each write had its event. */
  kafka: boolean;
  /** Times that an event was handled, each in order; and those of them that were repeats, and marked so. */
  handledEvents: number;
  redeliveredEvents: number;
  /** The tables of both data centers were equal at every check. */
  converged: boolean;
  wallSeconds: number;
  /** Every check passed, in words what did not. */
  findings: string[];
}

/** How each of the demo's switchovers must stand. */
const EXPECTED = ['done', 'done', 'rolled-back'];

export function demoDocument(
  costs: readonly SwitchoverCost[],
  checks: readonly CheckReport[],
  { kafka, wallSeconds }: Pick<DemoDocument, 'kafka' | 'wallSeconds'>,
): DemoDocument {
  const worst = (of: (report: CheckReport) => number): number => Math.max(0, ...checks.map(of));
  return {
    switchovers: costs.map(
      ({ scope, outcome, fencedMs, slowestClientWriteMs, failedRequests, heldRequests }) => ({
        ...{ scope, outcome, fencedMs, slowestClientWriteMs, failedRequests, heldRequests },
      }),
    ),
    ackedWrites: worst((report) => report.ackedWrites),
    lostWrites: worst((report) => report.lostWrites),
    doubledWrites: worst((report) => report.doubledWrites),
    dualOwnerWrites: worst((report) => report.dualOwnerWrites),
    kafka,
    handledEvents: worst((report) => report.handledEvents),
    redeliveredEvents: worst((report) => report.redeliveredEvents),
    converged: checks.length > 0 && checks.every((report) => report.converged),
    wallSeconds: Math.round(wallSeconds * 10) / 10,
    findings: checks.flatMap((report) => report.findings),
  };
}

/** The demo's promise: all switchovers as expected, over enough writes, and every check without a finding. */
export function passed(document: DemoDocument): boolean {
  return (
    EXPECTED.every((outcome, index) => document.switchovers[index]?.outcome === outcome) &&
    document.switchovers.every(({ fencedMs }) => fencedMs !== null) &&
    document.ackedWrites >= 2000 &&
    document.lostWrites + document.doubledWrites + document.dualOwnerWrites === 0 &&
    (!document.kafka || document.handledEvents > 0) &&
    document.converged &&
    document.findings.length === 0
  );
}

export function eventsOf({
  handledEvents,
  redeliveredEvents,
}: Pick<DemoDocument, 'handledEvents' | 'redeliveredEvents'>): string {
  return `${handledEvents - redeliveredEvents} events handled in order, ${redeliveredEvents} redelivered`;
}

export function demoTable(document: DemoDocument): string {
  const ms = (value: number | null): string => (value === null ? '–' : `${value} ms`);
  const rows = document.switchovers.map((one) => [
    ...[one.scope, one.outcome, ms(one.fencedMs), ms(one.slowestClientWriteMs)],
    ...[String(one.failedRequests), String(one.heldRequests)],
  ]);
  return [
    table([['switchover', 'outcome', 'fenced', 'slowest write', 'failed', 'held'], ...rows]),
    '',
    `${document.ackedWrites} acknowledged writes: ${document.lostWrites} lost, ${document.doubledWrites} doubled, ` +
      `${document.dualOwnerWrites} in a data center that did not own them; ${document.kafka ? `${eventsOf(document)}; ` : ''}tables ${document.converged ? 'equal' : 'DIFFERENT'}; ` +
      `${document.wallSeconds} s`,
  ].join('\n');
}
