import { isIP } from 'node:net';
import path from 'node:path';
import { InterlockError } from '../errors.js';
import type { DcId } from '../routing/units.js';
import type { Datacenter, Gateway, Topology } from '../topology/schema.js';

/** What one gateway is rendered from. */
export interface GatewayInput {
  topology: Topology;
  dc: DcId;
  /** A key of `datacenters.<dc>.gateways`. */
  gateway: string;
  /** Absolute. nginx's prefix: configuration, logs, temporary files and the rules of the last run. */
  stateDir: string;
  /** Absolute. The directory of the gateway's Lua files (`luaDirectory()` of nginx.ts). */
  luaDir: string;
  secrets: GatewaySecrets;
  /** Absolute paths of nginx modules to load, in order (`findNginx()` of nginx.ts). */
  modules: readonly string[];
  /** The account of the workers when nginx is started by root; it must be able to write `stateDir`. Default: nginx's own (`nobody`). */
  user?: string;
  /** nginx worker processes. Default 2. */
  workers?: number;
  /** Address to listen on; default the host of the gateway's URL when that is an IP address or `localhost`, else all. */
  listen?: string;
  /** Files that a worker may open (the hard limit of whoever starts nginx); default what `limits.holdRequests` needs. */
  openFiles?: number;
  /** Largest request body, in bytes; a larger one is answered 413. Default 1 GiB. */
  maxBodyBytes?: number;
  /** Milliseconds without a byte from an application before 504. Default 60 000. */
  upstreamTimeoutMs?: number;
}

export interface GatewaySecrets {
  /** Bearer token of the admin endpoint. */
  token: string;
  /** Shared by all gateways of the topology; proves that a hop mark was set by one of them. */
  hopToken: string;
}

export interface GatewayFile {
  /** Relative to `stateDir`. */
  name: string;
  content: string;
  mode: number;
}

/** Largest rules document that the admin endpoint takes. */
const MAX_RULES_BYTES = 8 * 1024 * 1024;

/** Directories below `stateDir` that nginx needs. */
export const GATEWAY_DIRECTORIES: readonly string[] = ['tmp'];

/**
 * Renders the files of one gateway: `nginx.conf`, `routing.json` (what the Lua routes by) and `secrets.json`. Pure.
 * @throws InterlockError BadInput that names the field: an unknown DC or gateway, an admin address that is not loopback, a URL with a
 * path or https, a directory that cannot be written into a configuration.
 */
export function renderGateway(input: GatewayInput): GatewayFile[] {
  const { topology, dc } = input;
  const datacenter = field(topology.datacenters, dc, 'datacenters');
  const gateway = field(datacenter.gateways, input.gateway, `datacenters.${dc}.gateways`);
  return [
    { name: 'nginx.conf', content: nginxConf(input, datacenter, gateway), mode: 0o644 },
    {
      name: 'routing.json',
      content: `${JSON.stringify(routing(input, datacenter), null, 2)}\n`,
      mode: 0o644,
    },
    { name: 'secrets.json', content: `${JSON.stringify(input.secrets)}\n`, mode: 0o600 },
  ];
}

function field<T>(record: Record<string, T>, key: string, at: string): T {
  if (Object.hasOwn(record, key)) return record[key]!;
  throw bad(`${at}.${key}`, `it is not in the topology; expected one of ${Object.keys(record).join(', ')}`);
}

function bad(name: string, message: string): InterlockError {
  return new InterlockError('BadInput', `${name}: ${message}`, { details: { field: name } });
}

/** The document that settings.lua reads. */
function routing(input: GatewayInput, datacenter: Datacenter): Record<string, unknown> {
  const { topology, dc } = input;
  const targets: Record<string, string> = {};
  for (const [name, application] of Object.entries(datacenter.applications)) {
    if (application.instances.length > 0) targets[name] = `http://${applicationUpstream(name)}`;
  }
  const dcs = Object.keys(topology.datacenters);
  return {
    topology: topology.name,
    dc,
    gateway: input.gateway,
    datacenters: Object.fromEntries(dcs.map((name) => [name, true])),
    peers: Object.fromEntries(
      dcs.filter((name) => name !== dc).map((name) => [name, `http://${dcUpstream(name)}`]),
    ),
    targets,
    defaultTarget: defaultTarget(datacenter),
    applications: Object.entries(topology.applications).map(([name, { paths, routingKey, central }]) => ({
      name,
      paths,
      routingKey,
      central,
    })),
    limits: topology.limits,
  };
}

// A name of the topology has no dots and no underscores: upstream names cannot meet each other or a host.
const applicationUpstream = (name: string): string => `app_${name}`;
const dcUpstream = (name: string): string => `dc_${name}`;

/** Where requests go unless Lua says otherwise: it is said once here and not per request. */
function defaultTarget(datacenter: Datacenter): string {
  const name = Object.keys(datacenter.applications).find(
    (key) => datacenter.applications[key]!.instances.length > 0,
  );
  return name === undefined ? '' : `http://${applicationUpstream(name)}`;
}

function nginxConf(input: GatewayInput, datacenter: Datacenter, gateway: Gateway): string {
  const { topology, dc } = input;
  const { limits } = topology;
  const at = `datacenters.${dc}.gateways.${input.gateway}`;
  const listen = clientListen(gateway, at, input.listen);
  const admin = adminListen(gateway, `${at}.admin`);
  const state = configPath(input.stateDir, 'stateDir');
  const lua = configPath(input.luaDir, 'luaDir');
  if (/[;?]/.test(lua)) throw bad('luaDir', 'a Lua search path cannot have ; or ? in it');
  const upstreams = [
    ...Object.entries(datacenter.applications).map(([name, { instances }]) =>
      upstream(applicationUpstream(name), instances, `datacenters.${dc}.applications.${name}.instances`),
    ),
    ...Object.entries(topology.datacenters)
      .filter(([name]) => name !== dc)
      .map(([name, other]) =>
        upstream(
          dcUpstream(name),
          Object.values(other.gateways).map(({ url }) => url),
          `datacenters.${name}.gateways`,
        ),
      ),
  ];
  // A held request is one connection, a released one two.
  const openFiles = Math.min(2 * limits.holdRequests + 3072, input.openFiles ?? Infinity);
  const connections = Math.max(openFiles - 256, 256);
  const timeoutMs = input.upstreamTimeoutMs ?? 60_000;
  return `# Rendered from topology ${topology.name} for ${dc}/${input.gateway}. Do not edit: it is written again at the next start.
${input.modules.map((file) => `load_module "${configPath(file, 'modules')}";\n`).join('')}${input.user === undefined ? '' : `user ${word(input.user, 'user')};\n`}worker_processes ${input.workers ?? 2};
worker_rlimit_nofile ${openFiles};
daemon off;
pid "${state}/nginx.pid";
error_log "${state}/error.log" warn;

events {
  worker_connections ${connections};
}

http {
  server_tokens off;
  default_type application/octet-stream;
  keepalive_requests 100000;
  keepalive_timeout 75s;
  tcp_nodelay on;
  client_body_temp_path "${state}/tmp/body";
  proxy_temp_path "${state}/tmp/proxy";
  fastcgi_temp_path "${state}/tmp/fastcgi";
  uwsgi_temp_path "${state}/tmp/uwsgi";
  scgi_temp_path "${state}/tmp/scgi";

  log_format interlock escape=json
    '{"time":"$time_iso8601","client":"$remote_addr","method":"$interlock_method","target":"$request_uri","status":$status,'
    '"seconds":$request_time,"unit":"$interlock_unit","dc":"$interlock_dc","epoch":"$interlock_epoch","heldMs":"$interlock_held",'
    '"rounds":"$interlock_rounds","upstream":"$upstream_addr"}';

  lua_package_path "${lua}/?.lua;;";
  lua_shared_dict interlock_rules ${Math.ceil((4 * MAX_RULES_BYTES) / 1024 / 1024)}m;
  lua_shared_dict interlock_counters 1m;
  lua_max_running_timers 64;
  init_by_lua_block {
    interlock_gateway = require "gateway"
    interlock_admin = require "admin"
    interlock_gateway.init()
  }
  init_worker_by_lua_block { interlock_gateway.init_worker() }

${upstreams.join('\n')}
  map $http_host $interlock_host {
    "" $host;
    default $http_host;
  }

  server {
    listen ${listen} backlog=4096;
    access_log "${state}/access.log" interlock buffer=64k flush=1s;
    client_max_body_size ${input.maxBodyBytes ?? 1024 * 1024 * 1024};
    client_body_buffer_size 16k;
    # A client that is slow with its body has a place in the hold all the while.
    client_body_timeout 15s;
    client_header_timeout 15s;
    large_client_header_buffers 4 16k;
    # The path goes to the application as it came.
    merge_slashes off;

    # Lua sets what is not so; most requests go to the one application's local instances.
    set $interlock_target "${defaultTarget(datacenter)}";
    set $interlock_dc "${dc}";
    set $interlock_epoch "";
    set $interlock_unit "";
    set $interlock_method $request_method;
    set $interlock_hop "";
    set $interlock_hop_token "";
    set $interlock_since "";
    set $interlock_held "";
    set $interlock_rounds "";
    set $interlock_window "";

    lua_check_client_abort on;
    log_by_lua_block { interlock_gateway.log() }

    add_header X-Interlock-Dc $interlock_dc always;
    add_header X-Interlock-Epoch $interlock_epoch always;
    proxy_hide_header X-Interlock-Dc;
    proxy_hide_header X-Interlock-Epoch;

    proxy_http_version 1.1;
    proxy_method $interlock_method;
    proxy_set_header Host $interlock_host;
    proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Interlock-Hop $interlock_hop;
    proxy_set_header X-Interlock-Hop-Token $interlock_hop_token;
    proxy_connect_timeout 2s;
    proxy_read_timeout ${timeoutMs}ms;
    proxy_send_timeout ${timeoutMs}ms;
    # Only what surely was not sent goes to the next instance: to nginx, all unsafe methods are POST (gateway.lua).
    proxy_next_upstream error timeout;
    proxy_next_upstream_tries 3;
    proxy_intercept_errors on;
    recursive_error_pages on;
    error_page 421 = @again;

    location / {
      access_by_lua_block { interlock_gateway.access() }
      proxy_pass $interlock_target;
    }
    location @again {
      access_by_lua_block { interlock_gateway.again() }
      proxy_pass $interlock_target;
    }
    # A body that is too large to be sent again is not kept.
    location @stream {
      error_page 421 = @unreplayable;
      proxy_request_buffering off;
      proxy_pass $interlock_target;
    }
    location @upgrade {
      error_page 421 = @unreplayable;
      proxy_set_header Host $interlock_host;
      proxy_set_header Connection upgrade;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Interlock-Hop $interlock_hop;
      proxy_set_header X-Interlock-Hop-Token $interlock_hop_token;
      proxy_pass $interlock_target;
    }
    location @unreplayable {
      access_by_lua_block { interlock_gateway.unreplayable() }
      proxy_pass $interlock_target;
    }
  }

  server {
    listen ${admin};
    access_log off;
    allow 127.0.0.0/8;
    allow ::1;
    deny all;
    client_max_body_size ${MAX_RULES_BYTES};
    client_body_buffer_size ${MAX_RULES_BYTES};
    location / {
      content_by_lua_block { interlock_admin.handle() }
    }
  }
}
`;
}

function upstream(name: string, urls: readonly string[], at: string): string {
  if (urls.length === 0) return '';
  const servers = urls.map(
    (url, i) => `    server ${address(url, `${at}[${i}]`)} max_fails=1 fail_timeout=1s;`,
  );
  // Idle connections end here before a Node server (5 s) ends them: a request that meets the end of its connection is lost.
  return `  upstream ${name} {
${servers.join('\n')}
    keepalive 256;
    keepalive_timeout 4s;
    keepalive_requests 100000;
  }
`;
}

/** `host:port` of a plain http URL without path, in the form that nginx takes. */
function address(url: string, at: string): string {
  const parsed = new URL(url);
  if (parsed.protocol !== 'http:') {
    throw bad(
      at,
      `${url}: gateways speak plain http to applications and to each other; end TLS before or after them`,
    );
  }
  if (parsed.pathname !== '/' || parsed.search !== '' || parsed.hash !== '' || parsed.username !== '') {
    throw bad(at, `${url}: expected only a host and a port`);
  }
  const host = parsed.hostname;
  if (!/^(\[[0-9a-f:.]+\]|[A-Za-z0-9.-]+)$/.test(host))
    throw bad(at, `${url}: expected a host name or an IP address`);
  return `${host}:${parsed.port === '' ? 80 : Number(parsed.port)}`;
}

function clientListen(gateway: Gateway, at: string, listen: string | undefined): string {
  const [, host, port] = /^(.*):(\d+)$/.exec(address(gateway.url, `${at}.url`))!;
  if (listen !== undefined) {
    if (isIP(listen) === 0) throw bad('listen', `${listen}: expected an IP address`);
    return isIP(listen) === 6 ? `[${listen}]:${port}` : `${listen}:${port}`;
  }
  if (host === 'localhost') return `127.0.0.1:${port}`;
  return host!.startsWith('[') || isIP(host!) !== 0 ? `${host}:${port}` : port!;
}

/** The admin endpoint moves traffic: never anywhere but on the loopback. */
function adminListen(gateway: Gateway, at: string): string {
  const [, host, port] = /^(.*):(\d+)$/.exec(address(gateway.admin, at))!;
  if (host === 'localhost') return `127.0.0.1:${port}`;
  if (host === '[::1]' || (isIP(host!) === 4 && host!.startsWith('127.'))) return `${host}:${port}`;
  throw bad(at, `${gateway.admin}: the admin endpoint is on the loopback only (127.0.0.1, ::1 or localhost)`);
}

/** A path inside double quotes of nginx.conf. A `$` cannot be escaped there, and braces or control characters have no business in one. */
function configPath(file: string, name: string): string {
  if (!path.isAbsolute(file)) throw bad(name, `${JSON.stringify(file)}: expected an absolute path`);

  if (/[\u0000-\u001f\u007f"'\\$`{}]/.test(file)) {
    throw bad(
      name,
      `${JSON.stringify(file)}: a path in nginx.conf cannot have quotes, braces, backslashes, $ or control characters`,
    );
  }
  return file;
}

function word(value: string, name: string): string {
  if (!/^[A-Za-z_][A-Za-z0-9_-]*$/.test(value))
    throw bad(name, `${JSON.stringify(value)}: expected an account name`);
  return value;
}
