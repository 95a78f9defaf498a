import type { Client } from '@temporalio/client';
import { Runtime } from '@temporalio/worker';
import type { RowDataPacket } from 'mysql2/promise';
import { formatLinkId } from '../replicators/core/contract.js';
import type { LinkStatus } from '../replicators/core/contract.js';
import { messageOf } from '../src/errors.js';
import type { DcStores } from '../src/fence/connect.js';
import type { Logger } from '../src/observability/logger.js';
import { wantedLinks } from '../src/topology/derive.js';
import type { Topology } from '../src/topology/schema.js';
import { LinkMetrics } from './link-metrics.js';
import { reportOf } from './link-report.js';

const LOOK_MS = 10_000;
/** A link that runs in this process has said how it is. */
const OWN_MS = 3_000;

/** The last verification, after `interlock_verification_`. */
export const VERIFICATION_METRICS = {
  outcome: '1 for the outcome of the last verification that has ended',
  finished_time_seconds: 'When it ended, in seconds since 1970',
  rows: 'Rows that it compared',
  differing_rows: 'Rows that differed and were not repaired',
  undecided_rows: 'Rows that it could not decide',
} as const;
const OUTCOMES = ['equal', 'different', 'stopped', 'failed'] as const;

/**
 * What `--metrics` shows of this data center's links and of verifications. Hazard: a link that does not run, or has never run, gives no
 * status, and its alert must fire all the same. Guard: every link into the data center is looked at, wherever it runs.
 */
export class MetricsWatch {
  private readonly links: LinkMetrics;
  private readonly saidAt = new Map<string, number>();
  private readonly verification;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly options: { topology: Topology; stores: DcStores; client: Client; log: Logger },
  ) {
    const { topology, stores } = options;
    this.links = new LinkMetrics(stores.dc, topology.limits);
    const meter = Runtime.instance().metricMeter.withTags({ dc: stores.dc });
    const gauge = (name: keyof typeof VERIFICATION_METRICS) =>
      meter.createGauge(`interlock_verification_${name}`, 'int', '', VERIFICATION_METRICS[name]);
    this.verification = {
      outcome: gauge('outcome'),
      finished: gauge('finished_time_seconds'),
      rows: gauge('rows'),
      differing: gauge('differing_rows'),
      undecided: gauge('undecided_rows'),
    };
  }

  /** Of a link that runs in this process. */
  readonly onStatus = (status: LinkStatus, tableRows: Record<string, number>): void => {
    this.saidAt.set(status.link, Date.now());
    this.links.running(status, tableRows);
  };

  start(): void {
    const look = async (): Promise<void> => {
      try {
        await this.look();
      } catch (error) {
        this.options.log.warn({ error: messageOf(error) }, 'metrics of links and verifications');
      }
      if (this.timer !== undefined) this.timer = setTimeout(() => void look(), LOOK_MS);
    };
    this.timer = setTimeout(() => void look(), 0);
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private async look(): Promise<void> {
    const { topology, stores, client } = this.options;
    await this.lookAtVerification();
    for (const link of wantedLinks(topology)
      .filter(({ to }) => to === stores.dc)
      .map(formatLinkId)) {
      if (Date.now() - (this.saidAt.get(link) ?? 0) < OWN_MS) continue;
      const report = await reportOf(client, link);
      if (Date.now() - (this.saidAt.get(link) ?? 0) >= OWN_MS) this.links.observe(link, report);
    }
  }

  private async lookAtVerification(): Promise<void> {
    const [rows] = await this.options.stores.control.pool.query<RowDataPacket[]>(
      `SELECT JSON_UNQUOTE(JSON_EXTRACT(document, '$.outcome')) AS outcome, JSON_EXTRACT(document, '$.rows') AS compared,
         JSON_EXTRACT(document, '$.differing') AS differing, JSON_EXTRACT(document, '$.repaired') AS repaired,
         JSON_EXTRACT(document, '$.undecided') AS undecided, UNIX_TIMESTAMP() - TIMESTAMPDIFF(SECOND, created_at, UTC_TIMESTAMP()) AS ended
       FROM interlock.verification ORDER BY created_at DESC LIMIT 1`,
    );
    const last = rows[0];
    if (last === undefined) return;
    const { outcome, finished, rows: compared, differing, undecided } = this.verification;
    for (const name of OUTCOMES) outcome.set(last['outcome'] === name ? 1 : 0, { outcome: name });
    finished.set(Math.round(Number(last['ended'])));
    compared.set(Number(last['compared']));
    differing.set(Math.max(0, Number(last['differing']) - Number(last['repaired'])));
    undecided.set(Number(last['undecided']));
  }
}
