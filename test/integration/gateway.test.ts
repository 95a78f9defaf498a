import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { request } from 'undici';
import { Application, pairRules, pairTopology, RunningGateway } from '../gateway/harness.js';

let appA: Application;
let appB: Application;
let gatewayA: RunningGateway;
let gatewayB: RunningGateway;

beforeAll(async () => {
  appA = await Application.start('a');
  appB = await Application.start('b');
  const topology = await pairTopology({ instances: { 'dc-a': [appA.port], 'dc-b': [appB.port] } });
  gatewayA = await RunningGateway.start(topology, 'dc-a');
  gatewayB = await RunningGateway.start(topology, 'dc-b');
});

afterAll(async () => {
  await Promise.all([gatewayA?.stop(), gatewayB?.stop(), appA?.stop(), appB?.stop()]);
});

describe('routing', () => {
  beforeEach(async () => {
    const epoch = (await gatewayA.admin.status()).epoch;
    if (epoch === null) {
      for (const gateway of [gatewayA, gatewayB]) await gateway.put(pairRules(1));
    }
  });

  test('to the local instance and to the other data center', async () => {
    const local = await request(`${gatewayA.url}/shop/x?y=1`, {
      method: 'POST',
      headers: { 'x-user-id': 'u1' },
      body: 'hello',
    });
    expect(await local.body.text()).toBe('a');
    expect(local.headers['x-interlock-dc']).toBe('dc-a');
    expect(local.headers['x-interlock-epoch']).toBe('1');
    const remote = await request(`${gatewayA.url}/shop/x?y=1`, {
      headers: { 'x-user-id': 'u1', 'x-region': 'cn-west' },
    });
    expect(await remote.body.text()).toBe('b');
    expect(remote.headers['x-interlock-dc']).toBe('dc-b');
    expect(await gatewayA.errors()).toBe('');
  });
});
