import type { LinkStatus, StuckPartition } from './contract.js';

/** What calls for a person, by link. infra/alerts/interlock.rules.yml has a rule for each. */
export const LINK_ALERTS = [
  ...(['lag', 'stopped', 'stalled', 'conflicts', 'quarantine', 'binlog-purge'] as const),
  'stuck',
] as const;
export type LinkAlertName = (typeof LINK_ALERTS)[number];

export interface LinkAlert {
  alert: LinkAlertName;
  /** What is wrong, with its figures. */
  summary: string;
}

/** `limits` of the topology, as far as alerts go by them. */
export interface AlertLimits {
  alertLagMs: number;
  alertStalledMs: number;
}

export interface ObservedLink {
  /** Of the link's workflow: `running`, `paused`, `failed`, `not-started` …; `unknown` when nobody answers. */
  workflow: string;
  /** The last one; null when there is none. */
  status: LinkStatus | null;
}

/** A status comes twice a second: a link that has given none for so long does not run, whatever its workflow says. */
const SILENT_MS = 30_000;
/** Of the time that the source keeps its binlog, so much may go by before what is not applied yet calls for a person. */
const RETENTION_SHARE = 0.5;
/** The workflow is at work: what it does shows in the status. */
const WORKING: ReadonlySet<string> = new Set(['running', 'initialising', 'pausing', 'unknown']);
const STOPPED: ReadonlySet<string> = new Set(['stopped', 'failed', 'diverged', 'resync-required', 'gap']);

/** The alerts of a link that fire now (`now`: ms since the epoch). */
export function alertsOf({ workflow, status }: ObservedLink, limits: AlertLimits, now: number): LinkAlert[] {
  const alerts: LinkAlert[] = [];
  const fire = (alert: LinkAlertName, summary: string): void => void alerts.push({ alert, summary });
  const silentMs = status === null ? Infinity : now - Date.parse(status.updatedAt);
  const runs = workflow === 'running' && silentMs <= SILENT_MS;
  if (!WORKING.has(workflow)) fire('stopped', `it is ${workflow}: nothing is carried`);
  else if (status !== null && STOPPED.has(status.state))
    fire('stopped', `it is ${status.state}: nothing is carried`);
  else if (workflow === 'unknown' && silentMs > SILENT_MS)
    fire('stopped', 'no worker says how it is: nothing may be carried');
  else if (status !== null && workflow === 'running' && silentMs > SILENT_MS)
    fire('stopped', `it has given no word since ${status.updatedAt}`);
  if (status === null) return alerts;
  if (runs && status.lagMs > limits.alertLagMs)
    fire('lag', `${status.lagMs} ms behind, the limit is ${limits.alertLagMs} ms`);
  if (runs && status.stalledMs > limits.alertStalledMs)
    fire(
      'stalled',
      `the checkpoint has not moved for ${status.stalledMs} ms, and the source has what is not applied`,
    );
  if (status.conflicts > 0) fire('conflicts', `${status.conflicts} conflicts`);
  if (status.quarantined > 0) fire('quarantine', `${status.quarantined} transactions in quarantine`);
  const stuck = status.kafka?.stuck ?? [];
  if (runs && stuck.length > 0) fire('stuck', stuckSummary(stuck));
  const purge = purgeSummary(status, now);
  if (purge !== null) fire('binlog-purge', purge);
  return alerts;
}

/** Whose transaction hides what of a Kafka link's source. */
export function stuckSummary(stuck: readonly StuckPartition[]): string {
  const { topic, partition, hiddenRecords, stuckMs, transactionalId, producerId } = stuck[0]!;
  const whose = transactionalId ?? (producerId === null ? 'an unknown producer' : `producer ${producerId}`);
  const more = stuck.length > 1 ? `, and ${stuck.length - 1} more partitions` : '';
  return `${topic}-${partition}: a transaction of ${whose} has been open for ${stuckMs} ms and hides ${hiddenRecords} records${more}`;
}

/** Counts on while a link stands: its source removes files all the same. */
function purgeSummary({ binlog }: LinkStatus, now: number): string | null {
  if (binlog === null) return null;
  const file = binlog.file ?? 'the binlog';
  if (binlog.purged) return `${file} is needed, and the source has removed it`;
  if (binlog.retentionMs === 0) return null;
  const age = now - Date.parse(binlog.neededSince);
  if (age <= binlog.retentionMs * RETENTION_SHARE) return null;
  return `${file} is needed from ${binlog.neededSince} on, and the source keeps what is older than ${binlog.retentionMs / 1000} s no longer`;
}
