/**
 * `npm run bench -- gateway [--json] [--pairs N] [--seconds N]`: requests per second through a gateway, against the same nginx
 * process as a plain proxy to the same upstream, in interleaved pairs whose order alternates.
 *
 * Both proxy over kept connections, set the same forwarding headers and write a buffered access log. The gateway also finds the routing key
 * in a header (of seven that each request has), hashes it, looks the unit up in rules of 200 ranges and three segments, and counts.
 * Besides the rate, the CPU time of the nginx worker per request is reported: it does not depend on what else the machine does.
 */
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { GatewayAdmin } from '../../src/gateway/admin-client.js';
import { findNginx, installGateway, luaDirectory } from '../../src/gateway/nginx.js';
import { rulesHash } from '../../src/routing/hash.js';
import type { BucketRange } from '../../src/routing/rules.js';
import { ADMIN_TOKEN, freePorts, pairRules, pairTopology } from '../gateway/harness.js';
import { benchFlags, positive } from './flags.js';
import { compare, machine, printReport } from './report.js';

const run = promisify(execFile);

const flags = benchFlags('gateway', {
  json: { type: 'boolean', default: false },
  pairs: { type: 'string', default: '9' },
  seconds: { type: 'string', default: '4' },
  connections: { type: 'string', default: '32' },
});

interface Measured {
  rate: number;
  cpuMicroseconds: number;
}

async function main(): Promise<void> {
  const pairs = positive('--pairs', flags.pairs);
  const seconds = positive('--seconds', flags.seconds);
  const connections = positive('--connections', flags.connections);
  const directory = await mkdtemp(path.join(tmpdir(), 'interlock-bench-gateway-'));
  const children: ChildProcess[] = [];
  try {
    const [upstreamPort, plainPort] = (await freePorts(2)) as [number, number];
    const nginx = await findNginx();
    children.push(await startUpstream(nginx.binary, path.join(directory, 'upstream'), upstreamPort));
    const topology = await pairTopology({ instances: { 'dc-a': [upstreamPort], 'dc-b': [upstreamPort] } });
    const stateDir = path.join(directory, 'gateway');
    const start = await installGateway(
      {
        topology,
        dc: 'dc-a',
        gateway: 'gw-1',
        stateDir,
        luaDir: luaDirectory(),
        secrets: { token: ADMIN_TOKEN, hopToken: 'hop' },
        modules: nginx.modules,
        workers: 1,
        ...asRoot(),
      },
      nginx.binary,
    );
    await addPlainProxy(path.join(stateDir, 'nginx.conf'), stateDir, plainPort);
    const child = spawn(start.command, start.args, { stdio: 'ignore' });
    children.push(child);
    const { url, admin } = topology.datacenters['dc-a']!.gateways['gw-1']!;
    await putRules(admin);
    const worker = await workerOf(child.pid!);
    const script = fileURLToPath(new URL('../../../test/bench/gateway-wrk.lua', import.meta.url));
    const measure = async (base: string): Promise<Measured> =>
      drive({ base, script: await existing(script), seconds, connections, worker });
    const plain = `http://127.0.0.1:${plainPort}`;
    for (const base of [url, plain]) await measure(base);
    const runs: { ours: Measured; peer: Measured }[] = [];
    for (let i = 0; i < pairs; i++) {
      // Whoever runs second meets another machine than who runs first: take turns.
      const first = await measure(i % 2 === 0 ? url : plain);
      const second = await measure(i % 2 === 0 ? plain : url);
      runs.push(i % 2 === 0 ? { ours: first, peer: second } : { ours: second, peer: first });
      process.stderr.write(
        `pair ${i + 1} of ${pairs}: ${runs[i]!.ours.rate.toFixed(0)} / ${runs[i]!.peer.rate.toFixed(0)} requests/s\n`,
      );
    }
    const pick = (of: keyof Measured): { ours: number; peer: number }[] =>
      runs.map(({ ours, peer }) => ({ ours: ours[of], peer: peer[of] }));
    const peerName = 'the same nginx as a plain proxy';
    printReport(
      {
        bench: 'gateway',
        machine: machine(),
        settings: {
          pairs,
          secondsPerRun: seconds,
          connections,
          nginxWorkers: 1,
          warmUpRuns: 1,
          upstream: 'nginx, 1 worker, return 200',
          client: 'wrk, 1 thread',
          notMeasured: 'TLS, requests that are forwarded or held',
        },
        results: [
          compare('gateway requests', 'requests/s', peerName, pick('rate')),
          compare('gateway CPU per request', 'µs', peerName, pick('cpuMicroseconds'), false),
        ],
      },
      flags.json,
    );
  } finally {
    for (const child of children) {
      child.kill('SIGTERM');
      if (child.exitCode === null) await once(child, 'exit');
    }
    await rm(directory, { recursive: true, force: true });
  }
}

const asRoot = (): { user?: string } => (process.getuid?.() === 0 ? { user: 'root' } : {});

/** The wrk script is beside this file in the sources; this file may run from dist/. */
async function existing(script: string): Promise<string> {
  const beside = fileURLToPath(new URL('./gateway-wrk.lua', import.meta.url));
  return readFile(beside).then(
    () => beside,
    () => script,
  );
}

async function startUpstream(binary: string, directory: string, port: number): Promise<ChildProcess> {
  await mkdir(directory, { recursive: true });
  await writeFile(
    path.join(directory, 'nginx.conf'),
    `daemon off; worker_processes 1; pid nginx.pid; error_log error.log;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server { listen 127.0.0.1:${port} backlog=4096; location / { default_type application/json; return 200 '{"ok":true}'; } }
}
`,
  );
  return spawn(binary, ['-p', `${directory}/`, '-c', 'nginx.conf', '-e', 'error.log'], { stdio: 'ignore' });
}

/** The peer: a server of the same nginx, with the same upstream group, as one would write a plain proxy. */
async function addPlainProxy(file: string, stateDir: string, port: number): Promise<void> {
  const text = await readFile(file, 'utf8');
  const server = `
  server {
    listen 127.0.0.1:${port} backlog=4096;
    access_log "${stateDir}/plain.log" combined buffer=64k flush=1s;
    location / {
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_pass http://app_shop;
    }
  }
}
`;
  await writeFile(file, text.replace(/\}\s*$/, server));
}

async function putRules(admin: string): Promise<void> {
  const ranges: BucketRange[] = [];
  for (let from = 0; from < 1000; from += 5) {
    ranges.push({ from, to: from + 4, owner: 'dc-a', state: from % 10 === 0 ? 'open' : 'write_disabled' });
  }
  const segment = (name: string): { owner: string; state: 'open'; members: string[] } => ({
    owner: 'dc-a',
    state: 'open',
    members: Array.from({ length: 100 }, (_, i) => `${name}-${i}`),
  });
  const rules = pairRules(1, undefined, {
    regions: { 'cn-east': ranges, 'cn-west': [{ from: 0, to: 999, owner: 'dc-b', state: 'open' }] },
    segments: { beta: segment('beta'), gold: segment('gold'), vip: segment('vip') },
  });
  const client = new GatewayAdmin({ admin, token: ADMIN_TOKEN });
  try {
    for (let i = 0; ; i++) {
      try {
        await client.putRules(rules, rulesHash(rules));
        return;
      } catch (error) {
        if (i > 100) throw error;
        await sleep(50);
      }
    }
  } finally {
    await client.close();
  }
}

async function workerOf(master: number): Promise<number> {
  const text = await readFile(`/proc/${master}/task/${master}/children`, 'utf8');
  return Number(text.trim().split(/\s+/)[0]);
}

/** User and system time of a process, in microseconds. */
async function cpuOf(pid: number): Promise<number> {
  return Number((await readFile(`/proc/${pid}/schedstat`, 'utf8')).split(' ')[0]) / 1000;
}

async function drive(options: {
  base: string;
  script: string;
  seconds: number;
  connections: number;
  worker: number;
}): Promise<Measured> {
  const before = await cpuOf(options.worker);
  const { stdout } = await run('wrk', [
    '-t1',
    `-c${options.connections}`,
    `-d${options.seconds}s`,
    '-s',
    options.script,
    `${options.base}/shop/orders`,
  ]);
  const cpu = (await cpuOf(options.worker)) - before;
  const found = /RESULT requests=(\d+) microseconds=(\d+) bad=(\d+)/.exec(stdout);
  if (found === null) throw new Error(`wrk did not report:\n${stdout}`);
  const [requests, microseconds, bad] = found.slice(1).map(Number) as [number, number, number];
  if (bad > 0 || requests === 0) throw new Error(`${bad} of ${requests} requests failed:\n${stdout}`);
  return { rate: requests / (microseconds / 1e6), cpuMicroseconds: cpu / requests };
}

await main();
