import { Runtime } from '@temporalio/worker';
import type { LinkState, LinkStatus } from '../replicators/core/contract.js';
import type { DcId } from '../src/routing/units.js';

const STATES: readonly LinkState[] = [
  ...(['starting', 'copying', 'streaming', 'paused'] as const),
  ...(['stopped', 'failed', 'diverged', 'resync-required'] as const),
];

/**
 * The links of this worker for Prometheus, beside Temporal's own metrics (`--metrics`). All carry `dc`, the data center into which the link
 * applies, and `link`. Answers what takes a link's status.
 */
export function linkMetrics(dc: DcId): (status: LinkStatus) => void {
  const meter = Runtime.instance().metricMeter.withTags({ dc });
  const gauge = (name: string, unit: string, description: string) =>
    meter.createGauge(`interlock_link_${name}`, 'int', unit, description);
  const counter = (name: string, description: string) =>
    meter.createCounter(`interlock_link_${name}_total`, '', description);
  const state = gauge('state', '', '1 for the state that the link is in');
  const lag = gauge('lag_ms', 'ms', 'Age of the oldest change of the source that is not applied; 0: none');
  const status = gauge(
    'status_time_seconds',
    's',
    'When the link gave its status last, in seconds since 1970',
  );
  const toCopy = gauge(
    'copy_rows_left',
    '',
    'Rows that are still to be copied, by the statistics of the source',
  );
  const counters = {
    rows: counter('rows', 'Rows applied'),
    transactions: counter('transactions', 'Transactions of the source applied'),
    droppedForeign: counter('dropped_foreign', 'Transactions dropped, as they came from the other side'),
    conflicts: counter('conflicts', 'Changes on which the link stopped'),
  };
  const names = Object.keys(counters) as (keyof typeof counters)[];
  // A status counts from the beginning of its attempt.
  const seen = new Map<string, { generation: number } & Record<keyof typeof counters, number>>();
  return (now) => {
    const { link, generation } = now;
    const tags = { link };
    for (const name of STATES) state.set(now.state === name ? 1 : 0, { ...tags, state: name });
    lag.set(now.lagMs, tags);
    status.set(Math.round(Date.parse(now.updatedAt) / 1000), tags);
    toCopy.set(now.copy === null ? 0 : Math.max(0, now.copy.estimatedRows - now.copy.comparedRows), tags);
    const before = seen.get(link);
    for (const name of names) {
      const from = before?.generation === generation ? before[name] : 0;
      if (now[name] > from) counters[name].add(now[name] - from, tags);
    }
    seen.set(link, {
      generation,
      ...{ rows: now.rows, transactions: now.transactions },
      ...{ droppedForeign: now.droppedForeign, conflicts: now.conflicts },
    });
  };
}
