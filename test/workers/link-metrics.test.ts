import { expect, it, vi } from 'vitest';
import { UNKNOWN_LAG } from '../../replicators/core/attempts.js';
import { StatusTracker } from '../../replicators/core/status.js';
import { LinkMetrics } from '../../workers/link-metrics.js';

const served = vi.hoisted(() => new Map<string, number>());
vi.mock('@temporalio/worker', () => {
  const metric = (name: string) => ({
    set: (value: number) => served.set(name, value),
    add: (value: number) => served.set(name, (served.get(name) ?? 0) + value),
  });
  const meter = { withTags: () => meter, createGauge: metric, createCounter: metric };
  return { Runtime: { instance: () => ({ metricMeter: meter }) } };
});

it('counts conflicts that were recorded, and shows those that are open', () => {
  const metrics = new LinkMetrics('dc-b', { alertLagMs: 1000, alertStalledMs: 1000 });
  const tracker = new StatusTracker('mysql/main:dc-a>dc-b');
  const say = (conflictsRecorded: number, conflicts: number): void => {
    Object.assign(tracker, { conflictsRecorded, conflicts });
    metrics.running(tracker.snapshot(UNKNOWN_LAG), {});
  };
  const shown = (): unknown[] => [
    served.get('interlock_link_conflicts_total'),
    served.get('interlock_link_conflicts_open'),
  ];
  say(5, 2);
  expect(shown()).toEqual([5, 2]);
  // Two were decided, and three more came that a policy decided.
  say(8, 0);
  expect(shown()).toEqual([8, 0]);
  // A new run of the link counts from the beginning.
  say(1, 1);
  expect(shown()).toEqual([9, 1]);
});

it('counts what a Redis link leaves out; of other links it says nothing', () => {
  const metrics = new LinkMetrics('dc-b', { alertLagMs: 1000, alertStalledMs: 1000 });
  const shown = (): unknown[] => [
    served.get('interlock_link_filtered_total'),
    served.get('interlock_link_late_deletions_total'),
  ];
  metrics.running(new StatusTracker('mysql/main:dc-a>dc-b').snapshot(UNKNOWN_LAG), {});
  expect(shown()).toEqual([undefined, undefined]);
  const redis = new StatusTracker('redis/cache:dc-a>dc-b');
  Object.assign(redis, { filtered: 3, lateDeletions: 2 });
  metrics.running(redis.snapshot(UNKNOWN_LAG), {});
  Object.assign(redis, { filtered: 4 });
  metrics.running(redis.snapshot(UNKNOWN_LAG), {});
  expect(shown()).toEqual([4, 2]);
});
