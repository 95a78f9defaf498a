import { KeyPatterns } from '../../src/routing/redis-keys.js';
import type { KeyRouting } from '../../src/routing/redis-keys.js';
import { Router } from '../../src/routing/rules.js';
import type { UnitId } from '../../src/routing/units.js';
import type { UserMapping } from './link-config.js';

/** Reads the unit from a key, as the topology's `keys` say. */
export class KeyUnitReader {
  private readonly router: Router;
  private readonly patterns: KeyPatterns;

  constructor(
    private readonly keys: readonly KeyRouting[],
    mapping: UserMapping,
  ) {
    this.router = mappingRouter(mapping);
    this.patterns = new KeyPatterns(keys);
  }

  /** Without patterns, keys have no units at all. */
  get isEmpty(): boolean {
    return this.keys.length === 0;
  }

  /** @param key its bytes as latin1. @returns null: declared to be nobody's; undefined: no pattern fits */
  unitOf(key: string): UnitId | null | undefined {
    const owner = this.patterns.ownerOf(utf8(key));
    switch (owner.kind) {
      case 'unmapped':
        return undefined;
      case 'unrouted':
        return null;
      case 'unit':
        return owner.unit;
      case 'user': {
        const { router } = this;
        const region = owner.key.region ?? router.rules.defaultRegion;
        // An unknown region is a unit that nobody owns.
        return router.unitOf(owner.key) ?? `${region}/(not routed)`;
      }
    }
  }
}

function utf8(latin1: string): string {
  return /^[\x20-\x7e]*$/.test(latin1) ? latin1 : Buffer.from(latin1, 'latin1').toString('utf8');
}

/** Maps users to units and knows no owners: those come from the stream. */
function mappingRouter({ defaultRegion, regions, segments }: UserMapping): Router {
  return new Router({
    format: 1,
    topology: '',
    epoch: 0,
    mappingVersion: 0,
    unitMappingVersions: {},
    defaultRegion,
    regions: Object.fromEntries(regions.map((name) => [name, []])),
    segments: Object.fromEntries(
      Object.entries(segments).map(([name, members]) => [name, { owner: '', state: 'open', members }]),
    ),
    central: {},
    holder: null,
    reason: '',
  });
}
