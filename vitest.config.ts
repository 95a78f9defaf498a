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

const KAFKA_MORE = [
  ...['faults', 'losses', 'outbox', 'positions', 'sdk-consumer', 'switch', 'switch-events'],
  ...['tls', 'transactions', 'verify'],
].map((part) => `test/integration/kafka-${part}.test.ts`);

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
      group('workflow', ['test/workflow/**/*.test.ts', 'test/replay/**/*.test.ts'], { slow: true }),
      group('integration', ['test/integration/**/*.test.ts'], {
        exclude: ['repl', 'redis', 'kafka'].map((kind) => `test/integration/${kind}-*`),
        serial: true,
      }),
      group('replication', ['test/integration/repl-*.test.ts'], { serial: true }),
      group('redis', ['test/integration/redis-*.test.ts'], { serial: true }),
      group('kafka', ['test/integration/kafka-*.test.ts'], {
        exclude: KAFKA_MORE,
        serial: true,
      }),
      // Not in `npm test`: it would take too long with them.
      group('kafka-more', KAFKA_MORE, { serial: true }),
      group('fault', ['test/fault/**/*.test.ts'], { serial: true }),
      group('walk', ['test/walk/**/*.test.ts'], { serial: true }),
    ],
  },
});
