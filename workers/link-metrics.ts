import { Runtime } from '@temporalio/worker';
import { LINK_ALERTS, alertsOf } from '../replicators/core/alerts.js';
import type { AlertLimits, ObservedLink } from '../replicators/core/alerts.js';
import type { KafkaLinkStatus, LinkState, LinkStatus } from '../replicators/core/contract.js';
import type { DcId } from '../src/routing/units.js';

const STATES: readonly LinkState[] = [
  ...(['starting', 'copying', 'streaming', 'paused'] as const),
  ...(['stopped', 'failed', 'diverged', 'resync-required', 'gap'] as const),
];

/** Every gauge and counter of a link, after `interlock_link_`; some with a label more: `state`, `alert`, `table`, `topic` and `partition`. */
export const LINK_METRICS = {
  gauges: {
    state: '1 for the state that the link is in',
    lag_ms: 'Age of the oldest change of the source that is not applied; 0: none',
    lag_bytes: "Bytes of the source's stream that are not applied yet",
    stalled_ms: 'For how long nothing was applied although there is something',
    checkpoint_age_ms: 'Since the checkpoint was written last; it stands while the source has nothing',
    binlog_needed_since_seconds:
      'When the oldest change that is not applied was written, in seconds since 1970',
    binlog_retention_seconds: 'How long the source keeps its binlog; 0: it removes nothing by itself',
    conflicts_open: 'Conflicts that a person has to decide',
    quarantined: 'Transactions in quarantine',
    copy_rows_left: 'Rows that are still to be copied, by the statistics of the source',
    lag_records: 'Kafka: offsets between what is applied and the end of the source, in all partitions',
    stuck_partitions: 'Kafka: partitions in which an open transaction hides what follows it',
    partition_lag_records: 'Kafka: the same by `topic` and `partition`, of the 20 that are behind most',
    partition_lag_ms: 'Kafka: for how long a partition has had something to apply',
    status_time_seconds: 'When the link gave its status last, in seconds since 1970',
    alert: '1 while the alert fires, else 0',
  },
  counters: {
    rows: 'Rows applied',
    transactions: 'Transactions of the source applied',
    rows_read: 'Rows read from the source',
    transactions_read: 'Transactions read from the source, without those of the other side',
    dropped_foreign: 'Transactions dropped, as they came from the other side',
    filtered:
      'Redis: commands, and keys of a copy, left out by filters and by the policy for keys without a unit',
    late_deletions: 'Redis: deletions left out, as the source did not own the unit',
    conflicts: 'Changes that did not fit the row of the target, those too that a policy has decided',
    table_rows: 'Rows applied, by table: of at most 200 tables, those of the rest as table="other"',
  },
} as const;
type Gauge = keyof typeof LINK_METRICS.gauges;
type Counter = keyof typeof LINK_METRICS.counters;

/** What a status counts from the beginning of its link's run. */
const COUNTS = {
  rows: 'rows',
  transactions: 'transactions',
  rows_read: 'rowsRead',
  transactions_read: 'transactionsRead',
  dropped_foreign: 'droppedForeign',
  filtered: 'filtered',
  late_deletions: 'lateDeletions',
  conflicts: 'conflictsRecorded',
} as const satisfies Partial<Record<Counter, keyof LinkStatus>>;

/**
 * The links into this data center for Prometheus, beside Temporal's own metrics (`--metrics`). All carry `dc`, the data center into which the link
 * applies, and `link`.
 */
export class LinkMetrics {
  private readonly gauges;
  private readonly counters;
  /** link → counter → what was counted last. */
  private readonly counted = new Map<string, Map<string, number>>();
  /** link → `topic partition` of what was behind. */
  private readonly behind = new Map<string, Map<string, { topic: string; partition: string }>>();

  constructor(
    dc: DcId,
    private readonly limits: AlertLimits,
  ) {
    const meter = Runtime.instance().metricMeter.withTags({ dc });
    const each = <K extends string, T>(
      of: Record<K, string>,
      make: (name: K, text: string) => T,
    ): Record<K, T> =>
      Object.fromEntries(
        (Object.entries(of) as [K, string][]).map(([name, text]) => [name, make(name, text)]),
      ) as Record<K, T>;
    this.gauges = each<Gauge, ReturnType<typeof meter.createGauge>>(LINK_METRICS.gauges, (name, text) =>
      meter.createGauge(`interlock_link_${name}`, 'int', '', text),
    );
    this.counters = each<Counter, ReturnType<typeof meter.createCounter>>(
      LINK_METRICS.counters,
      (name, text) => meter.createCounter(`interlock_link_${name}_total`, '', text),
    );
  }

  /** The status of a link that runs in this process. */
  running(status: LinkStatus, tableRows: Readonly<Record<string, number>>): void {
    const { link } = status;
    this.observe(link, { workflow: 'running', status });
    for (const [name, field] of Object.entries(COUNTS) as [keyof typeof COUNTS, keyof LinkStatus][])
      this.count(name, link, { link }, Number(status[field] ?? 0));
    for (const [table, rows] of Object.entries(tableRows))
      this.count('table_rows', link, { link, table }, rows);
  }

  /** A link, wherever it runs, or does not. */
  observe(link: string, observed: ObservedLink): void {
    const { status } = observed;
    const tags = { link };
    const { gauges } = this;
    const working = ['running', 'pausing', 'initialising'].includes(observed.workflow);
    const now: LinkState =
      observed.workflow === 'paused' ? 'paused' : (status?.state ?? (working ? 'starting' : 'stopped'));
    for (const name of STATES) gauges.state.set(now === name ? 1 : 0, { ...tags, state: name });
    const firing = new Set(alertsOf(observed, this.limits, Date.now()).map(({ alert }) => alert));
    for (const alert of LINK_ALERTS) gauges.alert.set(firing.has(alert) ? 1 : 0, { ...tags, alert });
    if (status === null) return;
    const { copy, binlog } = status;
    const set = (name: Gauge, value: number | null): void => {
      if (value !== null) gauges[name].set(Math.max(0, Math.round(value)), tags);
    };
    set('lag_ms', status.lagMs);
    set('lag_bytes', status.lagBytes);
    set('stalled_ms', status.stalledMs);
    set('checkpoint_age_ms', status.checkpointAgeMs);
    set('binlog_needed_since_seconds', binlog === null ? null : Date.parse(binlog.neededSince) / 1000);
    set('binlog_retention_seconds', binlog === null ? null : binlog.retentionMs / 1000);
    set('conflicts_open', status.conflicts);
    set('quarantined', status.quarantined);
    set('copy_rows_left', copy === null ? 0 : copy.estimatedRows - copy.comparedRows);
    set('status_time_seconds', Date.parse(status.updatedAt) / 1000);
    if (status.kafka === undefined) return;
    set('lag_records', status.kafka.lagRecords);
    set('stuck_partitions', status.kafka.stuck.length);
    this.partitions(link, status.kafka);
  }

  /** What is not behind any more is shown as such: a gauge keeps its last value. */
  private partitions(link: string, { behind }: KafkaLinkStatus): void {
    const { partition_lag_records: records, partition_lag_ms: ms } = this.gauges;
    const before = this.behind.get(link) ?? new Map<string, { topic: string; partition: string }>();
    const now: typeof before = new Map();
    for (const { topic, partition, lagRecords, lagMs } of behind) {
      const labels = { topic, partition: String(partition) };
      const tags = { link, ...labels };
      records.set(lagRecords, tags);
      ms.set(Math.round(lagMs), tags);
      now.set(`${topic} ${partition}`, labels);
      before.delete(`${topic} ${partition}`);
    }
    for (const labels of before.values()) {
      records.set(0, { link, ...labels });
      ms.set(0, { link, ...labels });
    }
    this.behind.set(link, now);
  }

  private count(name: Counter, link: string, tags: Record<string, string>, value: number): void {
    let counted = this.counted.get(link);
    if (counted === undefined) this.counted.set(link, (counted = new Map<string, number>()));
    const key = `${name} ${tags['table'] ?? ''}`;
    // One that is lower than before is of another run of the link, which began at 0.
    const before = counted.get(key) ?? 0;
    const more = value < before ? value : value - before;
    if (more > 0) this.counters[name].add(more, tags);
    counted.set(key, value);
  }
}
