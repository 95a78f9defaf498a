import { table } from '../../src/cli/output.js';
import type { Topology } from '../../src/topology/schema.js';
import type { LabInfo } from '../lab/lab.js';

/** What there is to look at and to try after `demo --keep`. */
export function addressesOf(lab: LabInfo, topology: Topology): string {
  const rows: string[][] = [];
  if (lab.webUi !== null) rows.push(['Temporal Web UI', lab.webUi]);
  for (const [dc, site] of Object.entries(topology.datacenters)) {
    for (const [name, { url }] of Object.entries(site.gateways)) rows.push([`${dc} gateway ${name}`, url]);
    rows.push([`${dc} rule center`, `${site.ruleCenter.url}/v1/units`]);
    for (const [name, store] of Object.entries(site.stores.mysql)) {
      rows.push([`${dc} MySQL ${name}`, `${store.host}:${store.port}`]);
    }
    for (const [name, store] of Object.entries(site.stores.redis)) {
      rows.push([`${dc} Redis ${name}`, `${store.host}:${store.port}`]);
    }
  }
  const gateway = Object.values(Object.values(topology.datacenters)[0]!.gateways)[0]!.url;
  return [
    table(rows),
    '',
    'Try:',
    `  export INTERLOCK_TOPOLOGY=${lab.topology} INTERLOCK_LAB=${lab.directory}`,
    '  npx interlock switch plan --scope cn-east:10% --from dc-a --to dc-b',
    '  npx interlock switch start --scope cn-east:10% --from dc-a --to dc-b --reason "to see it" --watch',
    '  npx interlock switch rollback',
    '  npx interlock fence status',
    '  npx interlock lab kill dc-a-worker; npx interlock lab start dc-a-worker',
    `  curl -H 'x-region: cn-east' ${gateway}/wallets/cn-east-u1`,
    '  npx interlock lab down --wipe        # ends it',
  ].join('\n');
}
