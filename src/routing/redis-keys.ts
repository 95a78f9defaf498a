import { centralUnit } from './units.js';
import type { RoutingKey, UnitId } from './units.js';

/**
 * Which Redis keys have an owner: the topology's `keys`, in order; the first pattern that matches a key counts. In a pattern `*` is any run of
 * characters, `{userId}` and `{region}` one or more up to the character that follows in the pattern; all else is itself.
 */
export type KeyRouting =
  { pattern: string } | { pattern: string; central: string } | { pattern: string; unrouted: true };

/** What a key says of its owner; `unmapped`: no pattern matches. */
export type KeyOwner =
  | { kind: 'user'; key: RoutingKey }
  | { kind: 'unit'; unit: UnitId }
  | { kind: 'unrouted' }
  | { kind: 'unmapped' };

const UNROUTED: KeyOwner = { kind: 'unrouted' };
const UNMAPPED: KeyOwner = { kind: 'unmapped' };

/** The patterns of a topology, compiled once. */
export class KeyPatterns {
  private readonly compiled: readonly { expression: RegExp; owner: KeyOwner | undefined }[];

  constructor(routings: readonly KeyRouting[]) {
    this.compiled = routings.map((routing) => ({
      expression: expressionOf(routing.pattern),
      owner:
        'central' in routing
          ? { kind: 'unit', unit: centralUnit(routing.central) }
          : 'unrouted' in routing
            ? UNROUTED
            : undefined,
    }));
  }

  ownerOf(key: string): KeyOwner {
    for (const { expression, owner } of this.compiled) {
      const found = expression.exec(key);
      if (found === null) continue;
      if (owner !== undefined) return owner;
      const { userId, region } = found.groups as { userId: string; region?: string };
      return { kind: 'user', key: region === undefined ? { userId } : { userId, region } };
    }
    return UNMAPPED;
  }
}

/** What is wrong with a pattern; undefined: nothing. */
export function patternProblem(routing: KeyRouting): string | undefined {
  const names = placeholders(routing.pattern);
  const of = (name: string): number => names.filter((one) => one === name).length;
  if ('central' in routing || 'unrouted' in routing)
    return names.length === 0 ? undefined : 'expected no {userId} or {region}: these keys are of no user';
  if (of('userId') !== 1) return 'expected exactly one {userId}, or central: NAME, or unrouted: true';
  if (of('region') > 1) return 'expected at most one {region}';
  if (/(\{userId\}|\{region\})(\*|\{(userId|region)\})|\*\{(userId|region)\}/.test(routing.pattern))
    return 'expected a character between {userId} or {region} and the * or placeholder beside it';
  return undefined;
}

const TOKENS = /(\{userId\}|\{region\}|\*)/;

function placeholders(pattern: string): string[] {
  return pattern.split(TOKENS).flatMap((token) => (/^\{.*\}$/.test(token) ? [token.slice(1, -1)] : []));
}

function expressionOf(pattern: string): RegExp {
  const tokens = pattern.split(TOKENS).filter((token) => token !== '');
  const parts = tokens.map((token, i) => {
    if (token === '*') return '.*';
    if (token !== '{userId}' && token !== '{region}') return escaped(token);
    // Never beyond the character that ends it: else a key could be read as two users.
    const end = [...(tokens[i + 1] ?? '')][0];
    return `(?<${token.slice(1, -1)}>${end === undefined ? '.' : `[^${end.replace(/[\]\\^-]/, '\\$&')}]`}+)`;
  });
  return new RegExp(`^${parts.join('')}$`, 'su');
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
}
