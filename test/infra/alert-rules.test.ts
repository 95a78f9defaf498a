import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { parse } from 'yaml';
import { LINK_ALERTS } from '../../replicators/core/alerts.js';
import { LINK_METRICS } from '../../workers/link-metrics.js';
import { VERIFICATION_METRICS } from '../../workers/metrics-watch.js';

interface Rule {
  alert: string;
  expr: string;
  labels: { severity: string };
  annotations: { summary: string; runbook: string };
}
const { groups } = parse(readFileSync('infra/alerts/interlock.rules.yml', 'utf8')) as {
  groups: { rules: Rule[] }[];
};
const rules = groups.flatMap((group) => group.rules);
const runbook = readFileSync('docs/runbook.md', 'utf8');

it('has one rule for each alert of a link', () => {
  const named = rules.flatMap(({ expr }) => /^max by .*alert="([^"]+)"\}\) == 1$/.exec(expr)?.[1] ?? []);
  expect(named.sort()).toEqual([...LINK_ALERTS].sort());
});

it('names only metrics that a worker serves', () => {
  const served = new Set([
    ...Object.keys(LINK_METRICS.gauges).map((name) => `interlock_link_${name}`),
    ...Object.keys(LINK_METRICS.counters).map((name) => `interlock_link_${name}_total`),
    ...Object.keys(VERIFICATION_METRICS).map((name) => `interlock_verification_${name}`),
  ]);
  const used = rules.flatMap(({ expr }) => expr.match(/interlock_\w+/g) ?? []);
  expect(used.length).toBeGreaterThanOrEqual(rules.length);
  expect(used.filter((name) => !served.has(name))).toEqual([]);
});

it('says of every rule what is wrong and what to do, and the runbook knows it', () => {
  for (const { alert, labels, annotations } of rules) {
    expect(labels.severity).toMatch(/^(warning|critical)$/);
    expect(annotations.summary.length).toBeGreaterThan(10);
    expect(annotations.runbook).toContain('docs/runbook.md#alerts');
    expect(runbook).toContain(alert);
  }
  expect(runbook).toContain('\n## Alerts\n');
});
