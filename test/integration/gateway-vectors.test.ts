import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { request } from 'undici';
import { expect, test } from 'vitest';
import { findNginx, luaDirectory } from '../../src/gateway/nginx.js';
import { freePorts } from '../gateway/harness.js';

interface Vectors {
  murmur3: { text: unknown; seed: number; hash: number }[];
  routes: {
    key: { userId: string; region?: string };
    route: { unit: string; owner: string; state: string } | null;
  }[];
  units: { unit: string; owner: string | null; state: string | null }[];
  requests: { name: string; expect: unknown }[];
  noApplication: { requests: { name: string; expect: unknown }[] };
}
interface Results {
  murmur3: number[];
  routes: ({ unit: string; owner: string; open: boolean } | null)[];
  units: ({ owner: string; open: boolean } | null)[];
  requests: unknown[];
  noApplication: unknown[];
}

test('the gateway routes by the same vectors as src/routing, in its own LuaJIT', async () => {
  const text = await readFile(new URL('../routing/vectors.json', import.meta.url), 'utf8');
  const vectors = JSON.parse(text) as Vectors;
  const results = await runLua(fileURLToPath(new URL('../gateway/vectors.lua', import.meta.url)), text);

  expect(results.murmur3).toEqual(vectors.murmur3.map(({ hash }) => hash));
  expect(results.routes).toEqual(
    vectors.routes.map(
      ({ route }) => route && { unit: route.unit, owner: route.owner, open: route.state === 'open' },
    ),
  );
  // Buckets are found by user; the gateway looks up named units only.
  expect(results.units).toEqual(
    vectors.units.map(({ unit, owner, state }) =>
      owner === null || unit.includes('/') ? null : { owner, open: state === 'open' },
    ),
  );
  const named = (list: { name: string; expect: unknown }[], got: unknown[]): unknown[] =>
    list.map(({ name }, i) => ({ name, expect: got[i] }));
  const wanted = (list: { name: string; expect: unknown }[]): unknown[] =>
    list.map(({ name, expect: expected }) => ({ name, expect: expected }));
  expect(named(vectors.requests, results.requests)).toEqual(wanted(vectors.requests));
  expect(named(vectors.noApplication.requests, results.noApplication)).toEqual(
    wanted(vectors.noApplication.requests),
  );
  expect(vectors.murmur3.length + vectors.routes.length + vectors.requests.length).toBeGreaterThan(100);
});

/** The answer of a Lua file to a body, in a throw-away nginx. */
async function runLua(file: string, body: string): Promise<Results> {
  const directory = await mkdtemp(path.join(tmpdir(), 'interlock-gateway-lua-'));
  const { binary, modules } = await findNginx();
  const [port] = await freePorts(1);
  await writeFile(
    path.join(directory, 'nginx.conf'),
    `${modules.map((module) => `load_module "${module}";\n`).join('')}
${process.getuid?.() === 0 ? 'user root;' : ''}
daemon off; master_process off; pid nginx.pid; error_log error.log;
events {}
http {
  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  lua_package_path "${luaDirectory()}/?.lua;;";
  lua_shared_dict interlock_rules 1m;
  client_body_buffer_size 4m; client_max_body_size 4m;
  server { listen 127.0.0.1:${port}; location / { content_by_lua_file "${file}"; } }
}
`,
  );
  const child = spawn(binary, ['-p', `${directory}/`, '-c', 'nginx.conf', '-e', 'error.log'], {
    stdio: 'ignore',
  });
  try {
    for (let i = 0; ; i++) {
      try {
        const answer = await request(`http://127.0.0.1:${port}/`, { method: 'POST', body });
        const text = await answer.body.text();
        if (answer.statusCode !== 200) {
          throw new Error(await readFile(path.join(directory, 'error.log'), 'utf8'));
        }
        return JSON.parse(text) as Results;
      } catch (error) {
        if (i > 100 || child.exitCode !== null || !String(error).includes('ECONNREFUSED')) throw error;
        await sleep(25);
      }
    }
  } finally {
    child.kill('SIGTERM');
    if (child.exitCode === null) await once(child, 'exit');
    await rm(directory, { recursive: true, force: true });
  }
}
