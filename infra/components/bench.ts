import type { Component } from './component.js';
import { mysqlComponent } from './mysql.js';
import { nginxComponent } from './nginx.js';
import { onPath } from './search-path.js';
import { temporalComponent } from './temporal.js';

const wrk: Component<string> = {
  name: 'wrk',
  find: async () => onPath('wrk'),
  packages: () => ['wrk'],
  install: async () => undefined,
};

/** What a benchmark runs on. */
export function benchComponents(name: string): Component<unknown>[] {
  switch (name) {
    case 'gateway':
      return [nginxComponent, wrk];
    case 'fence':
      return [mysqlComponent('mysql')];
    default:
      return [temporalComponent, mysqlComponent('mysql'), nginxComponent];
  }
}
