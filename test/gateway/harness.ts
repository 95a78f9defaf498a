import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { GatewayAdmin } from '../../src/gateway/admin-client.js';
import { findNginx, gatewaySecrets, installGateway, luaDirectory } from '../../src/gateway/nginx.js';
import type { GatewayInput } from '../../src/gateway/render.js';
import { rulesHash } from '../../src/routing/hash.js';
import { BUCKETS } from '../../src/routing/units.js';
import type { Assignment, Rules } from '../../src/routing/rules.js';
import { topologySchema } from '../../src/topology/schema.js';
import type { Topology } from '../../src/topology/schema.js';

/** Ports that are free now. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => net.createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

export interface Seen {
  method: string;
  url: string;
  headers: http.IncomingHttpHeaders;
  body: Buffer;
}

export type Handler = (seen: Seen, response: http.ServerResponse) => void | Promise<void>;

/** An application instance: keeps what it was asked, and answers by `handler`. */
export class Application {
  readonly seen: Seen[] = [];
  handler: Handler;
  private constructor(
    readonly server: http.Server,
    readonly port: number,
    handler: Handler,
  ) {
    this.handler = handler;
  }

  static async start(name: string, port = 0): Promise<Application> {
    const server = http.createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('error', () => undefined);
      request.on('end', () => {
        const seen = {
          method: request.method!,
          url: request.url!,
          headers: request.headers,
          body: Buffer.concat(chunks),
        };
        application.seen.push(seen);
        void application.handler(seen, response);
      });
    });
    server.listen({ port, host: '127.0.0.1', backlog: 4096 });
    await once(server, 'listening');
    const application: Application = new Application(
      server,
      (server.address() as AddressInfo).port,
      (_seen, response) => {
        response.end(name);
      },
    );
    return application;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    if (this.server.listening) await new Promise((resolve) => this.server.close(resolve));
  }
}

/** Answers as the SDK's middleware does. */
export function refuse(
  response: http.ServerResponse,
  code: 'WriteDisabled' | 'NotOwner' | 'StaleMapping',
  epoch: number,
  owner: string,
  unit = 'cn-east/0',
): void {
  response.writeHead(421, {
    'content-type': 'application/json',
    'x-interlock-refusal': code,
    'x-interlock-owner': owner,
    'x-interlock-epoch': String(epoch),
    'x-interlock-unit': unit,
  });
  response.end(JSON.stringify({ error: { code, message: code, owner, epoch, unit } }));
}

export const ADMIN_TOKEN = 'admin-token-of-the-test';

export interface PairOptions {
  /** Instances of the application `shop` per DC; default one each. */
  instances?: { 'dc-a'?: number[]; 'dc-b'?: number[] };
  limits?: Partial<Topology['limits']>;
  change?: (document: Record<string, unknown>) => void;
  input?: Partial<GatewayInput>;
}

/** Topology of two DCs with a gateway each. */
export async function pairTopology(options: PairOptions): Promise<Topology> {
  const ports = await freePorts(4);
  const dc = (name: 'dc-a' | 'dc-b', at: number): unknown => ({
    domain: `${name}.example`,
    taskQueue: `interlock-${name}`,
    ruleCenter: { url: `http://127.0.0.1:${9000 + at}`, token: { env: 'RULE_CENTER_TOKEN' } },
    gateways: {
      'gw-1': {
        url: `http://127.0.0.1:${ports[at]}`,
        admin: `http://127.0.0.1:${ports[at + 1]}`,
        token: { env: 'GATEWAY_TOKEN' },
      },
    },
    stores: { mysql: {} },
    applications: {
      shop: {
        id: `${name}-shop`,
        instances: (options.instances?.[name] ?? []).map((port) => `http://127.0.0.1:${port}`),
      },
    },
  });
  const document: Record<string, unknown> = {
    version: 1,
    name: 'gateway-test',
    temporal: { address: '127.0.0.1:7233' },
    defaultRegion: 'cn-east',
    datacenters: { 'dc-a': dc('dc-a', 0), 'dc-b': dc('dc-b', 2) },
    regions: { 'cn-east': { home: 'dc-a' }, 'cn-west': { home: 'dc-b' } },
    segments: { vip: { home: 'dc-b', members: ['vip-1'] } },
    central: { coupons: { home: 'dc-a' } },
    applications: {
      shop: {
        paths: ['/shop', '/central'],
        routingKey: {
          userId: [{ header: 'x-user-id' }, { query: 'userId' }, { cookie: 'uid' }],
          region: [{ header: 'x-region' }],
        },
        central: { '/central': 'central:coupons' },
      },
    },
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  };
  options.change?.(document);
  return topologySchema.parse(document);
}

const home = (owner: string, state: Assignment['state'] = 'open'): Assignment => ({ owner, state });

/** Rules of `pairTopology`; `east` is the state of the whole region cn-east. */
export function pairRules(
  epoch: number,
  east: Assignment = home('dc-a'),
  change: Partial<Rules> = {},
): Rules {
  return {
    format: 1,
    topology: 'gateway-test',
    epoch,
    mappingVersion: 1,
    unitMappingVersions: {},
    defaultRegion: 'cn-east',
    regions: {
      'cn-east': [{ from: 0, to: BUCKETS - 1, ...east }],
      'cn-west': [{ from: 0, to: BUCKETS - 1, ...home('dc-b') }],
    },
    segments: { vip: { ...home('dc-b'), members: ['vip-1'] } },
    central: { coupons: home('dc-a') },
    holder: null,
    reason: 'test',
    ...change,
  };
}

/** One running nginx. */
export class RunningGateway {
  readonly admin: GatewayAdmin;
  private constructor(
    readonly url: string,
    readonly adminUrl: string,
    readonly stateDir: string,
    private readonly command: { command: string; args: string[] },
    private child: ChildProcess,
  ) {
    this.admin = new GatewayAdmin({ admin: adminUrl, token: ADMIN_TOKEN });
  }

  static async start(
    topology: Topology,
    dc: string,
    input: Partial<GatewayInput> = {},
    gateway = 'gw-1',
  ): Promise<RunningGateway> {
    const stateDir = await mkdtemp(path.join(tmpdir(), `interlock-gateway-${dc}-`));
    const { binary, modules } = await findNginx();
    const command = await installGateway(
      {
        topology,
        dc,
        gateway,
        stateDir,
        luaDir: luaDirectory(),
        secrets: gatewaySecrets(topology, dc, gateway, () => ADMIN_TOKEN),
        modules,
        ...(process.getuid?.() === 0 ? { user: 'root' } : {}),
        ...input,
      },
      binary,
    );
    const { url, admin } = topology.datacenters[dc]!.gateways[gateway]!;
    const child = spawn(command.command, command.args, { stdio: 'ignore' });
    const running = new RunningGateway(url, admin, stateDir, command, child);
    await running.answers();
    return running;
  }

  get pid(): number {
    return this.child.pid!;
  }

  async workers(): Promise<number[]> {
    return childrenOf(this.pid);
  }

  /** Waits until the admin endpoint answers. */
  private async answers(): Promise<void> {
    for (let i = 0; ; i++) {
      try {
        await this.admin.status();
        return;
      } catch (error) {
        if (i > 200 || this.child.exitCode !== null) {
          throw new Error(`${String(error)}\n${await this.errors()}`, { cause: error });
        }
        await sleep(25);
      }
    }
  }

  async put(rules: Rules): Promise<void> {
    await this.admin.putRules(rules, rulesHash(rules));
  }

  /** Waits until the status satisfies `test`. */
  async until(
    what: string,
    test: (status: Awaited<ReturnType<GatewayAdmin['status']>>) => boolean,
  ): Promise<void> {
    let status = await this.admin.status();
    for (let i = 0; i < 400; i++) {
      if (test(status)) return;
      await sleep(25);
      status = await this.admin.status();
    }
    throw new Error(`${what}: not reached; ${JSON.stringify(status)}`);
  }

  async errors(): Promise<string> {
    return readFile(path.join(this.stateDir, 'error.log'), 'utf8').catch(() => '');
  }

  async log(): Promise<Record<string, unknown>[]> {
    const text = await readFile(path.join(this.stateDir, 'access.log'), 'utf8');
    return text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** kill -9 of master and workers, as when the machine goes. */
  async kill(): Promise<void> {
    const workers = await childrenOf(this.pid);
    this.child.kill('SIGKILL');
    for (const worker of workers) {
      try {
        process.kill(worker, 'SIGKILL');
      } catch {
        // it went with the master
      }
    }
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, 'exit');
  }

  async restart(): Promise<void> {
    this.child = spawn(this.command.command, this.command.args, { stdio: 'ignore' });
    await this.answers();
  }

  async stop(): Promise<void> {
    await this.admin.close();
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill('SIGTERM');
      await once(this.child, 'exit');
    }
    await rm(this.stateDir, { recursive: true, force: true });
  }
}

async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.trim().split(/\s+/).filter(Boolean).map(Number);
}
