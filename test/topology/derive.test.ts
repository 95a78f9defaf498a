import { expect, test } from 'vitest';
import { initialRules, mappingDifference } from '../../src/topology/derive.js';
import { exampleTopology } from '../support/topology.js';

test('a mapping of users that differs from the rules in force is named', () => {
  const topology = exampleTopology();
  const rules = initialRules(topology);
  expect(mappingDifference(topology, { ...rules, epoch: 9 })).toBeUndefined();
  expect(mappingDifference(topology, { ...rules, defaultRegion: 'elsewhere' })).toContain('defaultRegion');
  expect(mappingDifference(topology, { ...rules, regions: {} })).toContain('regions');
  const vip = { owner: 'dc-a', state: 'open' as const, members: ['u1'] };
  const withSegment = { ...topology, segments: { vip: { home: 'dc-a', members: ['u1', 'u2'] } } };
  expect(mappingDifference(withSegment, { ...rules, segments: {} })).toContain('segments');
  const changed = { ...rules, segments: { vip } };
  expect(mappingDifference(withSegment, changed)).toContain('members of segment vip');
});
