import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { World } from './hand-over-world.js';
import type { Act } from './hand-over-world.js';

const small = fc.nat({ max: 7 });
const act: fc.Arbitrary<Act> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('produce' as const), user: small }) },
  {
    weight: 8,
    arbitrary: fc.record({
      ...{ kind: fc.constant('consume' as const), dc: fc.nat({ max: 1 }), origin: fc.nat({ max: 1 }) },
      ...{ partition: fc.nat({ max: 1 }), records: fc.integer({ min: 1, max: 6 }) },
      end: fc.constantFrom('commit' as const, 'later' as const, 'later' as const, 'crash' as const),
      ...{ interleaves: fc.boolean(), ahead: fc.nat({ max: 3 }) },
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      ...{ kind: fc.constant('crash' as const), dc: fc.nat({ max: 1 }), member: fc.nat({ max: 1 }) },
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('switch' as const),
      units: fc.uniqueArray(fc.nat({ max: 3 }), { minLength: 1, maxLength: 4 }),
      outcome: fc.constantFrom(
        'done' as const,
        'done' as const,
        'abort-early' as const,
        'abort-late' as const,
      ),
      acknowledges: fc.boolean(),
    }),
  },
);

describe('hand-over positions', () => {
  it('every record is handled in order by its owner, none is skipped, and a repeat says so', () => {
    fc.assert(
      fc.property(fc.array(act, { maxLength: 80, size: 'max' }), fc.boolean(), (acts, drainAtOnce) => {
        const world = new World();
        for (const one of acts) world.perform(one);
        world.drain(drainAtOnce);
        expect(world.problems).toEqual([]);
        expect(world.unhandled()).toEqual([]);
      }),
      { numRuns: 1_000 },
    );
  });
});
