import { existsSync } from 'node:fs';
import type { Component } from '../../components/component.js';
import { mysqlComponent } from '../../components/mysql.js';
import { nginxComponent } from '../../components/nginx.js';
import { temporalComponent } from '../../components/temporal.js';
import { compiled } from '../../project.js';
import { DATACENTERS } from '../options.js';
import type { LabContext, Part } from '../part.js';
import type { LabState } from '../state.js';
import { storeNames } from '../topology-file.js';
import { gatewayAdminPort, gatewayNames, gatewayPort } from './gateway.js';
import { instancePort } from './application.js';
import { mysqlPart, mysqlPort } from './mysql.js';
import { ruleCenterPart, ruleCenterPort } from './rule-center.js';
import { rulesPart } from './rules.js';
import { TEMPORAL_PORTS, temporalPart } from './temporal.js';
import { wanPort } from './wan.js';
import { workerPart } from './worker.js';

/** All parts of the lab, in the order in which people read them. */
export function labParts(lab: LabContext): Part[] {
  const temporal = lab.state.temporalAddress === null ? [temporalPart(lab)] : [];
  const stores = DATACENTERS.flatMap((dc) => storeNames(lab).map((store) => mysqlPart(lab, dc, store)));
  const rules = rulesPart(lab, names(stores));
  const parts = [...temporal, ...stores, rules];
  for (const dc of DATACENTERS) {
    if (existsSync(compiled('src', 'cli', 'rule-center.js'))) parts.push(ruleCenterPart(lab, dc));
    if (existsSync(compiled('src', 'cli', 'worker.js'))) parts.push(workerPart(lab, dc, names(temporal)));
  }
  return parts;
}

/** What must be on the machine for these parts. */
export function labComponents(state: LabState): Component<unknown>[] {
  return [
    ...(state.temporalAddress === null ? [temporalComponent] : []),
    mysqlComponent(state.shape.mysql),
    nginxComponent,
  ];
}

function names(parts: readonly Part[]): string[] {
  return parts.map((part) => part.name);
}

/** Names of all ports of the lab, in the order in which they are chosen. */
export function portNames(lab: Pick<LabContext, 'state'>): string[] {
  const names: string[] = [...TEMPORAL_PORTS];
  for (const dc of DATACENTERS) {
    for (const gateway of gatewayNames(lab))
      names.push(gatewayPort(dc, gateway), gatewayAdminPort(dc, gateway));
    names.push(ruleCenterPort(dc));
    for (const store of storeNames(lab)) names.push(mysqlPort(dc, store));
    for (const [application, { count }] of Object.entries(lab.state.workload.instances)) {
      for (let index = 1; index <= count; index += 1) names.push(instancePort(application, dc, index));
    }
  }
  if (lab.state.shape.rttMs === 0) return names;
  for (const reader of DATACENTERS) {
    for (const place of DATACENTERS) {
      if (place === reader) continue;
      const remote = [
        ...gatewayNames(lab).map((gateway) => gatewayPort(place, gateway)),
        ruleCenterPort(place),
        ...storeNames(lab).map((store) => mysqlPort(place, store)),
      ];
      names.push(...remote.map((port) => wanPort(reader, port)));
    }
  }
  names.push(wanPort('dc-b', 'temporal'));
  return names;
}
