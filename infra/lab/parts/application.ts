import { connect } from 'node:net';
import { compiled } from '../../project.js';
import { environment } from '../topology-file.js';
import type { LabDc } from '../options.js';
import { processPart } from '../part.js';
import type { LabContext, Part } from '../part.js';

export function instancePort(application: string, dc: LabDc, index: number): string {
  return `${dc}.${application}.${index}`;
}

/** One instance of the workload's application; it listens when it can serve. */
export function applicationPart(
  lab: LabContext,
  dc: LabDc,
  application: string,
  script: string,
  index: number,
  dependsOn: readonly string[],
): Part {
  const port = lab.port(instancePort(application, dc, index));
  return processPart(lab, {
    name: `${dc}-${application}-${index}`,
    kind: 'application',
    dc,
    dependsOn,
    address: `http://127.0.0.1:${port}`,
    ports: [instancePort(application, dc, index)],
    command: async () => ({
      program: process.execPath,
      args: [
        '--enable-source-maps',
        compiled(script.replace(/\.js$/, '') + '.js'),
        ...['--application', application, '--dc', dc, '--instance', String(index)],
        ...['--port', String(port), '--topology', lab.files.topologyOf(dc)],
      ],
      env: { ...process.env, ...environment(lab), INTERLOCK_TOPOLOGY: lab.files.topologyOf(dc) },
    }),
    probe: async () => accepts(port),
  });
}

/** True when something accepts connections on 127.0.0.1:port. */
export async function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
