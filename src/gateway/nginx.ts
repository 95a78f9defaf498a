import { createHmac } from 'node:crypto';
import { execFile } from 'node:child_process';
import { access, chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { InterlockError, messageOf } from '../errors.js';
import type { SecretReference, Topology } from '../topology/schema.js';
import { GATEWAY_DIRECTORIES, renderGateway } from './render.js';
import type { GatewayInput, GatewaySecrets } from './render.js';

const run = promisify(execFile);

export interface Nginx {
  binary: string;
  /** Absolute paths for `load_module`; empty when Lua is built in (OpenResty). */
  modules: string[];
}

const MODULES = ['ndk_http_module.so', 'ngx_http_lua_module.so'];
const MODULE_DIRECTORIES = [
  '/usr/lib/nginx/modules',
  '/usr/lib64/nginx/modules',
  '/usr/share/nginx/modules',
  '/usr/local/nginx/modules',
];

/**
 * Finds nginx and its Lua modules. `INTERLOCK_NGINX` names another binary, `INTERLOCK_NGINX_MODULES` the directory of its modules.
 * @throws InterlockError Unavailable that says what to install.
 */
export async function findNginx(
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<Nginx> {
  const binary = env['INTERLOCK_NGINX'] ?? 'nginx';
  let built: string;
  try {
    built = (await run(binary, ['-V'])).stderr;
  } catch (error) {
    throw new InterlockError(
      'Unavailable',
      `${binary} cannot be run (${messageOf(error)}); install nginx and libnginx-mod-http-lua, or name it in INTERLOCK_NGINX`,
      { cause: error, details: { what: 'nginx' } },
    );
  }
  if (/--add-module=\S*(lua-nginx-module|ngx_lua)/.test(built)) return { binary, modules: [] };
  const declared = /--modules-path=(\S+)/.exec(built)?.[1];
  const given = env['INTERLOCK_NGINX_MODULES'];
  const directories =
    given === undefined ? [...(declared === undefined ? [] : [declared]), ...MODULE_DIRECTORIES] : [given];
  for (const directory of directories) {
    const modules = MODULES.map((name) => path.resolve(directory, name));
    if ((await Promise.all(modules.map(readable))).every(Boolean)) return { binary, modules };
  }
  throw new InterlockError(
    'Unavailable',
    `${MODULES.join(' and ')} are in none of ${directories.join(', ')}; install libnginx-mod-http-lua, or name their directory in INTERLOCK_NGINX_MODULES`,
    { details: { what: 'ngx_http_lua_module' } },
  );
}

/** The Lua files, beside this file in src/ and (copied by the build) in dist/. */
export function luaDirectory(): string {
  return fileURLToPath(new URL('./lua', import.meta.url));
}

/**
 * The secrets of one gateway. The hop token is derived from all gateways' admin tokens, which every gateway of a topology is given: there
 * is no secret more to distribute. A new admin token therefore needs all gateways to be rendered again.
 * @param resolve gives the value of a secret reference (resolveSecret of src/topology/load.ts)
 */
export function gatewaySecrets(
  topology: Topology,
  dc: string,
  gateway: string,
  resolve: (reference: SecretReference) => string,
): GatewaySecrets {
  const tokens: string[] = [];
  for (const id of Object.keys(topology.datacenters).sort()) {
    const { gateways } = topology.datacenters[id]!;
    for (const name of Object.keys(gateways).sort()) {
      tokens.push(`${id}/${name}\0${resolve(gateways[name]!.token)}`);
    }
  }
  const own = topology.datacenters[dc]?.gateways[gateway];
  if (own === undefined) {
    throw new InterlockError('BadInput', `datacenters.${dc}.gateways.${gateway}: it is not in the topology`, {
      details: { field: 'gateway' },
    });
  }
  return {
    token: resolve(own.token),
    hopToken: createHmac('sha256', tokens.join('\0')).update(`interlock hop ${topology.name}`).digest('hex'),
  };
}

/**
 * Writes a gateway's files into `input.stateDir` (made when missing; the rules of the last run stay) and says how to start it: in the foreground, as the caller's child.
 * SIGTERM ends it at once, SIGQUIT after the requests under way, SIGHUP reads the files again.
 */
export async function installGateway(
  input: GatewayInput,
  binary: string,
): Promise<{ command: string; args: string[] }> {
  const openFiles = await openFilesLimit();
  const files = renderGateway({ ...(openFiles === undefined ? {} : { openFiles }), ...input });
  for (const directory of ['', ...GATEWAY_DIRECTORIES]) {
    await mkdir(path.join(input.stateDir, directory), { recursive: true });
  }
  for (const { name, content, mode } of files) {
    const file = path.join(input.stateDir, name);
    // A reload that meets a half-written file would fail: write another, then rename.
    await writeFile(`${file}.partial`, content, { mode });
    await chmod(`${file}.partial`, mode);
    await rename(`${file}.partial`, file);
  }
  return { command: binary, args: ['-p', `${input.stateDir}/`, '-c', 'nginx.conf', '-e', 'error.log'] };
}

/** The hard limit of open files, which nginx may raise its own to; undefined when there is none or it cannot be told. */
async function openFilesLimit(): Promise<number | undefined> {
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const hard = /^Max open files\s+\S+\s+(\d+)/m.exec(limits)?.[1];
  return hard === undefined ? undefined : Number(hard);
}

async function readable(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
