import path from 'node:path';
import { onPath } from '../../components/search-path.js';
import { GatewayAdmin } from '../../../src/gateway/admin-client.js';
import { findNginx, gatewaySecrets, installGateway, luaDirectory } from '../../../src/gateway/nginx.js';
import { loadTopology, resolveSecret } from '../../../src/topology/load.js';
import type { LabDc } from '../options.js';
import { processPart } from '../part.js';
import type { LabContext, Part } from '../part.js';

export function gatewayNames(lab: Pick<LabContext, 'state'>): string[] {
  return Array.from({ length: lab.state.shape.gatewaysPerDc }, (_, index) => `gateway-${index + 1}`);
}

export function gatewayPort(dc: LabDc, gateway: string): string {
  return `${dc}.${gateway}`;
}

export function gatewayAdminPort(dc: LabDc, gateway: string): string {
  return `${dc}.${gateway}.admin`;
}

/** Admin client of a gateway; the caller closes it. */
export function gatewayAdmin(lab: LabContext, dc: LabDc, gateway: string): GatewayAdmin {
  return new GatewayAdmin({
    admin: `http://127.0.0.1:${lab.port(gatewayAdminPort(dc, gateway))}`,
    token: lab.secret(`gateway-${dc}`),
  });
}

/** One nginx of a DC. */
export function gatewayPart(lab: LabContext, dc: LabDc, gateway: string): Part {
  const name = `${dc}-${gateway}`;
  return processPart(lab, {
    name,
    kind: 'gateway',
    dc,
    dependsOn: [],
    address: `http://127.0.0.1:${lab.port(gatewayPort(dc, gateway))}`,
    ports: [gatewayPort(dc, gateway), gatewayAdminPort(dc, gateway)],
    command: async () => {
      // An ordinary user's PATH has no folder of servers.
      const installed = onPath('nginx');
      const nginx = await findNginx({
        ...(installed === null ? {} : { INTERLOCK_NGINX: installed }),
        ...process.env,
      });
      const { topology } = await loadTopology(lab.files.topologyOf(dc));
      const { command, args } = await installGateway(
        {
          topology,
          dc,
          gateway,
          stateDir: path.join(lab.files.part(name), 'nginx'),
          luaDir: luaDirectory(),
          secrets: gatewaySecrets(topology, dc, gateway, resolveSecret),
          modules: nginx.modules,
          // The lab may live in root's home, where nginx's own account cannot look.
          ...(process.getuid?.() === 0 ? { user: 'root' } : {}),
        },
        nginx.binary,
      );
      return { program: command, args };
    },
    probe: async () => {
      const admin = gatewayAdmin(lab, dc, gateway);
      try {
        await admin.status();
        return true;
      } finally {
        await admin.close();
      }
    },
  });
}
