import type { StopAt } from '../core/stop-points.js';
import type { Cluster } from './client/cluster.js';
import { MARKERS, endOffsets, isForNobody, markersIn } from './markers.js';
import type { Baseline, MarkerRecord } from './markers.js';
import type { SourceReader } from './source-reader.js';
import type { TargetWriter } from './target-writer.js';

export interface BaselineEvents {
  /** Looks for new topics. */
  follow: () => Promise<void>;
  onReached: (marker: MarkerRecord) => void;
  stopAt: StopAt;
}

/** Says of every marker that all before it is at the target, once it is. */
export class Baselines {
  private readonly waiting: Baseline[] = [];

  constructor(
    private readonly source: Cluster,
    private readonly reader: SourceReader,
    private readonly writer: TargetWriter,
    private readonly events: BaselineEvents,
  ) {}

  /** After each transaction: those that are reached now. */
  async reach(): Promise<void> {
    for (const queued of this.reader.takeMarkers()) this.waiting.push(...markersIn(queued));
    for (let baseline = this.waiting[0]; baseline !== undefined; baseline = this.waiting[0]) {
      const { marker } = baseline;
      if (marker !== null && !(await this.isCopied(baseline))) return;
      if (marker !== null && !isForNobody(marker)) this.writer.marker = marker;
      const own = this.reader.partitions.get(`${MARKERS}-0`)!;
      own.reach(baseline.next, baseline.leaderEpoch);
      this.writer.reached(own);
      if (marker !== null) {
        await this.writer.send(this.writer.positions().map((batch) => [batch]));
        await this.writer.commit();
      }
      own.applied(performance.now());
      this.waiting.shift();
      if (marker === null || isForNobody(marker)) continue;
      this.events.stopAt('before-acknowledge');
      this.events.onReached(marker);
      this.events.stopAt('after-acknowledge');
    }
  }

  private async isCopied(baseline: Baseline): Promise<boolean> {
    if (baseline.ends === undefined) {
      // Hazard: a topic that is so new that it is not followed yet would be missing in the baseline.
      await this.events.follow();
      if (this.reader.leaderless > 0) return false;
      baseline.ends = await endOffsets(this.source, this.reader.carried());
    }
    for (const [name, end] of baseline.ends) {
      const partition = this.reader.partitions.get(name);
      if (partition !== undefined && partition.position < end) return false;
    }
    return true;
  }
}
