import path from 'node:path';
import { compiled } from '../../project.js';
import { DATACENTERS } from '../options.js';
import type { LabDc } from '../options.js';
import { processPart } from '../part.js';
import type { LabContext, Part } from '../part.js';
import { writeAtomically } from '../state.js';
import type { WanConfiguration } from '../wan-proxy.js';
import { accepts } from './application.js';

/** The port at which programs of `reader` reach a port of the other DC. */
export function wanPort(reader: LabDc, port: string): string {
  return `wan.${reader}.${port}`;
}

/** The port that a `wan.<reader>.<port>` leads to; null for other ports. */
function behind(name: string): string | null {
  const reader = DATACENTERS.find((dc) => name.startsWith(wanPort(dc, '')));
  return reader === undefined ? null : name.slice(wanPort(reader, '').length);
}

/** The wide-area network between the DCs: one proxy that delays what passes. */
export function wanPart(lab: LabContext): Part {
  const listens = Object.keys(lab.state.ports).filter((name) => behind(name) !== null);
  const configuration = path.join(lab.files.part('wan'), 'wan.json');
  return processPart(lab, {
    name: 'wan',
    kind: 'wan',
    dc: null,
    dependsOn: [],
    address: `${listens.length} connections delayed by ${lab.state.shape.rttMs} ms`,
    ports: listens,
    command: async () => {
      const wan: WanConfiguration = {
        rttMs: lab.state.shape.rttMs,
        routes: listens.map((name) => ({ listen: lab.port(name), target: lab.port(behind(name)!) })),
      };
      await writeAtomically(configuration, `${JSON.stringify(wan, null, 2)}\n`);
      return { program: process.execPath, args: [compiled('infra', 'lab', 'wan-proxy.js'), configuration] };
    },
    // It listens in order.
    probe: async () => accepts(lab.port(listens.at(-1)!)),
  });
}
