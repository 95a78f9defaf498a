import type { Component } from '../../components/component.js';
import { kafkaComponent } from '../../components/kafka.js';
import { mysqlComponent } from '../../components/mysql.js';
import { nginxComponent } from '../../components/nginx.js';
import { redisComponent } from '../../components/redis.js';
import { temporalComponent } from '../../components/temporal.js';
import { DATACENTERS } from '../options.js';
import type { LabContext, Part } from '../part.js';
import type { LabState } from '../state.js';
import { storeNames } from '../topology-file.js';
import { applicationPart, instancePort } from './application.js';
import { gatewayAdminPort, gatewayNames, gatewayPart, gatewayPort } from './gateway.js';
import { kafkaNames, kafkaPart, kafkaPorts, kafkaRemotePort } from './kafka.js';
import { mysqlPart, mysqlPort } from './mysql.js';
import { redisNames, redisPart, redisPort } from './redis.js';
import { ruleCenterPart, ruleCenterPort } from './rule-center.js';
import { routingPart } from './routing.js';
import { rulesPart } from './rules.js';
import { TEMPORAL_PORTS, temporalPart } from './temporal.js';
import { wanPart, wanPort } from './wan.js';
import { workerPart } from './worker.js';

/** All parts of the lab, in the order in which people read them. */
export function labParts(lab: LabContext): Part[] {
  const { shape, temporalAddress, workload } = lab.state;
  const wan = shape.rttMs > 0 ? [wanPart(lab)] : [];
  const temporal = temporalAddress === null ? [temporalPart(lab)] : [];
  const stores = DATACENTERS.flatMap((dc) => [
    ...storeNames(lab).map((store) => mysqlPart(lab, dc, store)),
    ...redisNames(lab).map((store) => redisPart(lab, dc, store)),
    ...kafkaNames(lab).map((store) => kafkaPart(lab, dc, store)),
  ]);
  const rules = rulesPart(lab, names(stores));
  const gateways = DATACENTERS.flatMap((dc) => gatewayNames(lab).map((gateway) => ({ dc, gateway })));
  const gatewayParts = gateways.map(({ dc, gateway }) => gatewayPart(lab, dc, gateway));
  const programs = DATACENTERS.flatMap((dc) => {
    const ruleCenter = ruleCenterPart(lab, dc, names(wan));
    const applications = Object.entries(workload.instances).flatMap(([application, { count, script }]) =>
      script === undefined
        ? []
        : Array.from({ length: count }, (_, index) =>
            applicationPart(lab, dc, application, script, index + 1, names([...wan, ruleCenter])),
          ),
    );
    return [ruleCenter, workerPart(lab, dc, names([...wan, ...temporal])), ...applications];
  });
  const ruleCenters = programs.filter((part) => part.kind === 'rule-center');
  const routing = routingPart(lab, gateways, names([...gatewayParts, ...ruleCenters]));
  return [...temporal, ...wan, ...stores, rules, ...gatewayParts, ...programs, routing];
}

/** What must be on the machine for these parts. */
export function labComponents(state: LabState): Component<unknown>[] {
  return [
    ...(state.temporalAddress === null ? [temporalComponent] : []),
    mysqlComponent(state.shape.mysql),
    nginxComponent,
    ...(state.shape.redis > 0 ? [redisComponent] : []),
    ...(state.shape.kafka > 0 ? [kafkaComponent] : []),
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
    for (const store of redisNames(lab)) names.push(redisPort(dc, store));
    for (const store of kafkaNames(lab)) names.push(...kafkaPorts(lab, dc, store));
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
        ...redisNames(lab).map((store) => redisPort(place, store)),
        ...kafkaNames(lab).map((store) => kafkaRemotePort(place, store)),
      ];
      names.push(...remote.map((port) => wanPort(reader, port)));
    }
  }
  names.push(wanPort('dc-b', 'temporal'));
  return names;
}
