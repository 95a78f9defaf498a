import type { Component } from './component.js';
import { kafkaComponent } from './kafka.js';
import { mysqlComponent } from './mysql.js';
import { nginxComponent } from './nginx.js';
import { redisComponent } from './redis.js';
import { onPath } from './search-path.js';
import { temporalComponent } from './temporal.js';

const wrk: Component<string> = {
  name: 'wrk',
  find: async () => onPath('wrk'),
  packages: () => ['wrk'],
  install: async () => undefined,
};

/** The benchmarks (`test/bench/NAME.ts`; what else is there helps them), and what each runs on. */
export const BENCHMARKS: Record<string, () => Component<unknown>[]> = {
  fence: () => [mysqlComponent('mysql')],
  gateway: () => [nginxComponent, wrk],
  kafka: () => [kafkaComponent],
  mysql: () => [mysqlComponent('mysql')],
  redis: () => [redisComponent],
  routing: () => [],
  switchover: () => [temporalComponent, mysqlComponent('mysql'), nginxComponent],
};
