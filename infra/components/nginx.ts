import { existsSync } from 'node:fs';
import type { Component } from './component.js';
import { onPath } from './search-path.js';

/** Where Debian puts the module and the libraries that its Lua code loads. */
const FILES = [
  '/usr/lib/nginx/modules/ngx_http_lua_module.so',
  '/usr/share/lua/5.1/resty/core.lua',
  '/usr/share/lua/5.1/resty/lrucache.lua',
];
const CJSON = ['/usr/lib/x86_64-linux-gnu/lua/5.1/cjson.so', '/usr/lib/aarch64-linux-gnu/lua/5.1/cjson.so'];

/** nginx with Lua, from the distribution. */
export const nginxComponent: Component<{ binary: string }> = {
  name: 'nginx with Lua',
  find: async () => {
    const binary = onPath('nginx');
    const complete = FILES.every((file) => existsSync(file)) && CJSON.some((file) => existsSync(file));
    return binary !== null && complete ? { binary } : null;
  },
  packages: () => ['nginx', 'libnginx-mod-http-lua', 'lua-cjson', 'lua-resty-core'],
  install: async () => undefined,
};
