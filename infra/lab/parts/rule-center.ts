import type { LabDc } from '../options.js';
import { httpOk, processPart } from '../part.js';
import type { LabContext, Part } from '../part.js';
import { interlockProgram } from './program.js';
import { RULES_PART } from './rules.js';

export function ruleCenterPort(dc: LabDc): string {
  return `${dc}.rule-center`;
}

export function ruleCenterPart(lab: LabContext, dc: LabDc, network: readonly string[]): Part {
  const url = `http://127.0.0.1:${lab.port(ruleCenterPort(dc))}`;
  const name = `${dc}-rule-center`;
  return processPart(lab, {
    name,
    kind: 'rule-center',
    dc,
    dependsOn: [RULES_PART, ...network],
    address: url,
    ports: [ruleCenterPort(dc)],
    command: async () => interlockProgram(lab, dc, 'rule-center', '--state', `${lab.files.part(name)}/rules`),
    probe: async () => httpOk(`${url}/v1/health`),
  });
}
