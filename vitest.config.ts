import { defineConfig } from 'vitest/config';

/** The groups of `npm test`; one alone: `npm test -- --project integration`. `slow`: real time-outs; `serial`: one file at a time (2 cores). */
const group = (
  name: string,
  include: string[],
  { exclude = [] as string[], slow = false, serial = false } = {},
) => ({
  test: {
    name,
    include,
    exclude: ['**/node_modules/**', 'dist/**', ...exclude],
    testTimeout: slow || serial ? 180_000 : 30_000,
    hookTimeout: 180_000,
    fileParallelism: !serial,
    pool: 'forks' as const,
  },
});

/** The longest files, by the group that they belong to: not in `npm test`, which would take too long with them; `npm test -- --all` runs them, too. */
const MORE = {
  workflow: ['test/workflow/lost-runs.test.ts'],
  fault: ['test/fault/shapes.test.ts'],
  integration: integration('verify-types', 'verify-temporal', 'ddl-temporal', 'topology-check'),
  replication: integration(
    ...['repl-faults', 'repl-large-transactions', 'repl-large-rows', 'repl-conformance', 'repl-packets'],
    ...['repl-cascades', 'repl-schema', 'repl-slow-target'],
  ),
  redis: integration('redis-verify-temporal', 'redis-large-values'),
  kafka: integration(
    ...['kafka-faults', 'kafka-forget-group', 'kafka-lab', 'kafka-losses', 'kafka-outbox', 'kafka-positions'],
    ...['kafka-sdk-consumer', 'kafka-sdk-gaps', 'kafka-switch', 'kafka-switch-events', 'kafka-tls'],
    ...['kafka-transactions', 'kafka-verify'],
  ),
};

function integration(...names: string[]): string[] {
  return names.map((name) => `test/integration/${name}.test.ts`);
}

export default defineConfig({
  test: {
    projects: [
      group('unit', ['test/**/*.test.ts'], {
        exclude: [
          'test/workflow/**',
          'test/replay/**',
          'test/integration/**',
          'test/fault/**',
          'test/walk/**',
        ],
      }),
      group('workflow', ['test/workflow/**/*.test.ts', 'test/replay/**/*.test.ts'], {
        exclude: MORE.workflow,
        slow: true,
      }),
      group('workflow-more', MORE.workflow, { slow: true }),
      group('integration', ['test/integration/**/*.test.ts'], {
        exclude: [
          ...['repl', 'redis', 'kafka'].map((kind) => `test/integration/${kind}-*`),
          ...MORE.integration,
        ],
        serial: true,
      }),
      group('integration-more', MORE.integration, { serial: true }),
      group('replication', ['test/integration/repl-*.test.ts'], { exclude: MORE.replication, serial: true }),
      group('replication-more', MORE.replication, { serial: true }),
      group('redis', ['test/integration/redis-*.test.ts'], { exclude: MORE.redis, serial: true }),
      group('redis-more', MORE.redis, { serial: true }),
      group('kafka', ['test/integration/kafka-*.test.ts'], { exclude: MORE.kafka, serial: true }),
      group('kafka-more', MORE.kafka, { serial: true }),
      group('fault', ['test/fault/**/*.test.ts'], { exclude: MORE.fault, serial: true }),
      group('fault-more', MORE.fault, { serial: true }),
      group('walk', ['test/walk/**/*.test.ts'], { serial: true }),
    ],
  },
});
