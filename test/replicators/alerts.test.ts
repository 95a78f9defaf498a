import { expect, it } from 'vitest';
import { alertsOf } from '../../replicators/core/alerts.js';
import type { LinkStatus } from '../../replicators/core/contract.js';
import { streaming } from '../integration/activities-fixture.js';

const LIMITS = { alertLagMs: 1000, alertStalledMs: 2000 };
const NOW = Date.parse('2026-01-01T12:00:00Z');

function names(change: Partial<LinkStatus>, workflow = 'running', now = NOW): string[] {
  const status = { ...streaming('mysql/main:dc-a>dc-b'), updatedAt: new Date(NOW).toISOString(), ...change };
  return alertsOf({ workflow, status }, LIMITS, now).map(({ alert }) => alert);
}

it('is silent about a link that is well', () => {
  expect(names({})).toEqual([]);
  expect(names({ lagMs: 1000, stalledMs: 2000 })).toEqual([]);
});

it('fires by the limits', () => {
  expect(names({ lagMs: 1001 })).toEqual(['lag']);
  expect(names({ stalledMs: 2001 })).toEqual(['stalled']);
});

it('counts conflicts and quarantine', () => {
  expect(names({ conflicts: 1 })).toEqual(['conflicts']);
  expect(names({ quarantined: 2 })).toEqual(['quarantine']);
});

it('says of a link that carries nothing only that', () => {
  for (const state of ['failed', 'diverged', 'resync-required', 'stopped'] as const)
    expect(names({ state })).toEqual(['stopped']);
  for (const workflow of ['paused', 'failed', 'stopped', 'not-started'])
    expect(names({ lagMs: 5000 }, workflow)).toEqual(['stopped']);
  expect(alertsOf({ workflow: 'not-started', status: null }, LIMITS, NOW)).toHaveLength(1);
  expect(alertsOf({ workflow: 'running', status: null }, LIMITS, NOW)).toEqual([]);
});

it('fires when the status is old, also while the workflow says that it runs', () => {
  expect(names({}, 'running', NOW + 29_000)).toEqual([]);
  expect(names({}, 'running', NOW + 31_000)).toEqual(['stopped']);
  expect(names({}, 'unknown', NOW + 29_000)).toEqual([]);
  expect(names({}, 'unknown', NOW + 31_000)).toEqual(['stopped']);
  expect(alertsOf({ workflow: 'unknown', status: null }, LIMITS, NOW)).toHaveLength(1);
});

it('fires when half of the retention is used up, also while the link stands', () => {
  const binlog = {
    file: 'binlog.000007',
    neededSince: new Date(NOW - 1000_000).toISOString(),
    retentionMs: 3600_000,
    purged: false,
  };
  expect(names({ binlog })).toEqual([]);
  expect(names({ binlog }, 'paused', NOW + 900_000)).toEqual(['stopped', 'binlog-purge']);
  expect(names({ binlog: { ...binlog, retentionMs: 0 } }, 'paused', NOW + 900_000)).toEqual(['stopped']);
  expect(names({ binlog: { ...binlog, purged: true } })).toEqual(['binlog-purge']);
});
