import { Registry, collectDefaultMetrics } from 'prom-client';

export { Counter, Gauge } from 'prom-client';
export type { Registry } from 'prom-client';

/** A registry of one process; every series carries `dc`, so that dashboards tell the data centers apart. */
export function createRegistry(dc: string, options: { process?: boolean } = {}): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ dc });
  if (options.process ?? true) collectDefaultMetrics({ register: registry });
  return registry;
}
