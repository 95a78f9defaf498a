import fc from 'fast-check';
import { normaliseRanges } from '../../src/routing/rules.js';
import type { Assignment, BucketRange, Rules } from '../../src/routing/rules.js';

const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/);
const assignment: fc.Arbitrary<Assignment> = fc.record({
  owner: fc.constantFrom('dc-a', 'dc-b'),
  state: fc.constantFrom('open' as const, 'write_disabled' as const),
});

const ranges: fc.Arbitrary<BucketRange[]> = fc
  .tuple(
    fc.uniqueArray(fc.integer({ min: 1, max: 999 }), { maxLength: 6 }),
    fc.array(assignment, { minLength: 7, maxLength: 7 }),
  )
  .map(([cuts, assignments]) => {
    const starts = [0, ...cuts.sort((a, b) => a - b)];
    return normaliseRanges(
      starts.map((from, i) => ({ from, to: (starts[i + 1] ?? 1000) - 1, ...assignments[i]! })),
    );
  });

/** Valid rules of any shape. */
export const rulesArbitrary: fc.Arbitrary<Rules> = fc
  .record({
    epoch: fc.integer({ min: 1, max: 1_000_000 }),
    regions: fc.dictionary(name, ranges, { minKeys: 1, maxKeys: 3, noNullPrototype: true }),
    segments: fc.dictionary(name, assignment, { maxKeys: 2, noNullPrototype: true }),
    members: fc.uniqueArray(fc.string({ minLength: 1, maxLength: 12 }), { minLength: 2, maxLength: 8 }),
    central: fc.dictionary(name, assignment, { maxKeys: 2, noNullPrototype: true }),
  })
  .map(({ epoch, regions, segments, members, central }) => {
    const names = Object.keys(segments);
    const fenced = [...Object.values(regions).flat(), ...Object.values(segments), ...Object.values(central)];
    return {
      format: 1,
      topology: 'any',
      epoch,
      mappingVersion: 1,
      unitMappingVersions: {},
      defaultRegion: Object.keys(regions)[0]!,
      regions,
      segments: Object.fromEntries(
        names.map((segment, i) => [
          segment,
          { ...segments[segment]!, members: members.filter((_, j) => j % names.length === i).sort() },
        ]),
      ),
      central,
      holder: fenced.some((a) => a.state === 'write_disabled') ? { workflowId: 'w', runId: 'r' } : null,
      reason: 'any',
    };
  });
