import { Router } from '../../src/routing/rules.js';
import { centralUnit } from '../../src/routing/units.js';
import type { UnitId } from '../../src/routing/units.js';
import type { KeyUnits, UserMapping } from './link-config.js';

interface Shape {
  form: RegExp;
  central: UnitId | null;
}

/** Reads the unit from a key, by the first pattern that fits. */
export class KeyUnitReader {
  private readonly router: Router;
  private readonly shapes: Shape[];

  constructor(units: readonly KeyUnits[], mapping: UserMapping) {
    this.router = mappingRouter(mapping);
    this.shapes = units.map(({ pattern, central }) => ({
      form: formOf(pattern),
      central: central === undefined ? null : centralUnit(central),
    }));
  }

  /** Without patterns, keys have no units at all. */
  get isEmpty(): boolean {
    return this.shapes.length === 0;
  }

  /** @param key its bytes as latin1. @returns undefined: no pattern fits */
  unitOf(key: string): UnitId | undefined {
    for (const { form, central } of this.shapes) {
      const found = form.exec(key);
      if (found === null) continue;
      if (central !== null) return central;
      const userId = utf8(found.groups?.['id'] ?? '');
      const region = found.groups?.['region'];
      const unit = this.router.unitOf({ userId, ...(region !== undefined && { region: utf8(region) }) });
      // An unknown region is a unit that nobody owns.
      return unit ?? `${region === undefined ? this.router.rules.defaultRegion : utf8(region)}/(not routed)`;
    }
    return undefined;
  }
}

/** `{id}` and `{region}` end at the character that follows them in the pattern; `*` is anything. */
function formOf(pattern: string): RegExp {
  const bytes = Buffer.from(pattern).toString('latin1');
  const source = bytes.replace(
    /\{(id|region)\}|\*|[^]/g,
    (part: string, name: string | undefined, offset: number) => {
      if (part === '*') return '[^]*';
      if (name === undefined) return quoted(part);
      const next = bytes[offset + part.length];
      return `(?<${name}>${next === undefined || next === '*' ? '[^]+' : `[^${quoted(next)}]+`})`;
    },
  );
  return new RegExp(`^${source}$`);
}

function quoted(character: string): string {
  return /[\\^$.*+?()[\]{}|/-]/.test(character) ? `\\${character}` : character;
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
