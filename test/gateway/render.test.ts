import { describe, expect, test } from 'vitest';
import { gatewaySecrets } from '../../src/gateway/nginx.js';
import { renderGateway } from '../../src/gateway/render.js';
import type { GatewayInput } from '../../src/gateway/render.js';
import type { Topology } from '../../src/topology/schema.js';
import { exampleTopology } from '../support/topology.js';

const input = (change: Partial<GatewayInput> = {}): GatewayInput => ({
  topology: exampleTopology(),
  dc: 'dc-a',
  gateway: 'gw-1',
  stateDir: '/var/lib/interlock/gw',
  luaDir: '/opt/interlock/lua',
  secrets: { token: 'the-admin-token', hopToken: 'the-hop-token' },
  modules: ['/usr/lib/nginx/modules/ndk_http_module.so'],
  ...change,
});

const changed = (change: (topology: Topology) => void): Partial<GatewayInput> => {
  const topology = exampleTopology();
  change(topology);
  return { topology };
};

const file = (name: string, change: Partial<GatewayInput> = {}): { content: string; mode: number } =>
  renderGateway(input(change)).find((entry) => entry.name === name)!;

describe('rendering', () => {
  test('is pure, and keeps secrets in a file of their own', () => {
    expect(renderGateway(input())).toEqual(renderGateway(input()));
    for (const { name, content, mode } of renderGateway(input())) {
      expect(content.includes('the-admin-token'), name).toBe(name === 'secrets.json');
      expect(content.includes('the-hop-token'), name).toBe(name === 'secrets.json');
      if (name === 'secrets.json') expect(mode).toBe(0o600);
    }
  });

  test('listens where the topology says, the admin endpoint on the loopback', () => {
    const { content } = file('nginx.conf');
    expect(content.match(/listen \S+/g)).toEqual(['listen 127.0.0.1:21001', 'listen 127.0.0.1:21002;']);
    const named = changed((topology) => {
      topology.datacenters['dc-a']!.gateways['gw-1']!.url = 'http://gateway.example';
      topology.datacenters['dc-a']!.gateways['gw-1']!.admin = 'http://localhost:99';
    });
    expect(file('nginx.conf', named).content.match(/listen \S+/g)).toEqual([
      'listen 80',
      'listen 127.0.0.1:99;',
    ]);
    const given = file('nginx.conf', { listen: '10.0.0.1' }).content;
    expect(given).toContain('listen 10.0.0.1:21001 ');
  });

  test('all gateways of the other data center, and all instances', () => {
    const { content } = file(
      'nginx.conf',
      changed((topology) => {
        const { gateways, applications } = topology.datacenters['dc-b']!;
        gateways['gw-2'] = { ...gateways['gw-1']!, url: 'http://127.0.0.1:22091' };
        applications['shop']!.instances.push('http://127.0.0.1:1');
        topology.datacenters['dc-a']!.applications['shop']!.instances.push('http://[::1]:8080');
      }),
    );
    expect(content.match(/server \S+ max_fails/g)).toEqual([
      'server 127.0.0.1:21004 max_fails',
      'server [::1]:8080 max_fails',
      'server 127.0.0.1:22001 max_fails',
      'server 127.0.0.1:22091 max_fails',
    ]);
  });

  test.each<[string, Partial<GatewayInput>, string]>([
    ['an unknown data center', { dc: 'dc-x' }, 'datacenters.dc-x'],
    ['an unknown gateway', { gateway: 'toString' }, 'datacenters.dc-a.gateways.toString'],
    ['a relative directory', { stateDir: 'state' }, 'stateDir'],
    ['a variable in a directory', { stateDir: '/tmp/$request_uri' }, 'stateDir'],
    ['a quote in a directory', { stateDir: '/tmp/a";include /etc/passwd;"' }, 'stateDir'],
    ['a line end in a directory', { luaDir: '/tmp/a\nb' }, 'luaDir'],
    ['a semicolon in the Lua path', { luaDir: '/tmp/a;b' }, 'luaDir'],
    ['a module path', { modules: ['x.so'] }, 'modules'],
    ['an account', { user: 'root; daemon on' }, 'user'],
    ['a listen address', { listen: '0.0.0.0:1 ssl' }, 'listen'],
    [
      'an admin address that is not loopback',
      changed((t) => (t.datacenters['dc-a']!.gateways['gw-1']!.admin = 'http://10.0.0.1:9')),
      'datacenters.dc-a.gateways.gw-1.admin',
    ],
    [
      'an instance with TLS',
      changed((t) => (t.datacenters['dc-a']!.applications['shop']!.instances = ['https://127.0.0.1:1'])),
      'datacenters.dc-a.applications.shop.instances[0]',
    ],
    [
      'an instance with a path',
      changed((t) => (t.datacenters['dc-a']!.applications['shop']!.instances = ['http://127.0.0.1:1/a'])),
      'datacenters.dc-a.applications.shop.instances[0]',
    ],
    [
      'a host that would end the directive',
      changed((t) => (t.datacenters['dc-b']!.gateways['gw-1']!.url = "http://a;b'c:1")),
      'datacenters.dc-b.gateways[0]',
    ],
  ])('refuses %s and names it', (_name, change, field) => {
    let error: unknown;
    try {
      renderGateway(input(change));
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code: 'BadInput', details: { field } });
    expect((error as Error).message).toContain(field);
  });
});

test('the hop token is the same for all gateways, and changes with any admin token', () => {
  const topology = exampleTopology();
  const of = (dc: string, token = 'x'): string => gatewaySecrets(topology, dc, 'gw-1', () => token).hopToken;
  expect(of('dc-a')).toBe(of('dc-b'));
  expect(of('dc-a')).not.toBe(of('dc-a', 'y'));
  expect(() => gatewaySecrets(topology, 'dc-a', 'none', () => 'x')).toThrow(/dc-a\.gateways\.none/);
});
