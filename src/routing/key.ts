import { centralUnit } from './units.js';
import type { RoutingKey, UnitId } from './units.js';

/** One place of a request where a part of the routing key may be. */
export type KeySource = { header: string } | { cookie: string } | { query: string } | { path: string };

/** What the routing needs to know of an application; the topology's `applications` have this shape. */
export interface ApplicationRouting {
  paths: readonly string[];
  routingKey: { userId: readonly KeySource[]; region: readonly KeySource[] };
  /** Path prefix → `central:<name>`. */
  central: Readonly<Record<string, string>>;
}

/**
 * A request as it came over the wire. Strings are byte strings, one character per byte, as node:http gives them.
 */
export interface RequestParts {
  /** The request target: `/path?query`, or the absolute form. */
  target: string;
  /** Names in lower case. Repeated headers come as a list, or joined by `, ` (cookies by `; `), as node:http joins them. */
  headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

export type Extraction =
  | { kind: 'key'; application: string; key: RoutingKey }
  /** The path is declared `central:<name>`. */
  | { kind: 'unit'; application: string; unit: UnitId }
  /** None of the application's sources has a user id. */
  | { kind: 'missing'; application: string; part: 'userId' }
  /** A source is there, but it is no text; the next source is not asked, since a guess could be another user. */
  | { kind: 'invalid'; application: string; part: 'userId' | 'region'; source: string }
  /** No application has the path. */
  | { kind: 'no-application' };

/** Longest user id or region, in bytes. */
export const MAX_KEY_BYTES = 256;

/** Present but not usable. */
const MALFORMED = Symbol('malformed');
type Value = string | undefined | typeof MALFORMED;

interface CompiledSource {
  name: string;
  read: (request: ParsedRequest) => Value;
}

interface CompiledApplication {
  name: string;
  userId: CompiledSource[];
  region: CompiledSource[];
}

interface Prefix<T> {
  segments: string[];
  value: T;
}

interface ParsedRequest {
  /** Raw (not decoded) path segments, without the empty one of a trailing slash. */
  raw: string[];
  /** The same, decoded; a malformed one matches nothing. */
  segments: Value[];
  query: string;
  headers: RequestParts['headers'];
}

/**
 * Finds the routing key of requests. The gateway's Lua does the same; test/routing/vectors.json holds both together:
 * - Path prefixes and templates are compared segment by segment, decoded, case-sensitive; `.`, `..` and `//` are not resolved; one
 *   trailing slash does not count. The application and the central prefix with the most segments win, and central
 *   prefixes win over the routing key.
 * - Sources are asked in order. An absent or empty one is passed over; one that is malformed (percent-encoding, UTF-8, control
 *   characters, more than 256 bytes) makes the request invalid.
 * - Header: without surrounding blanks, not percent-decoded; repeated ones are joined by `, `.
 * - Cookie: the first of its name; one pair of double quotes is taken off, then percent-decoded.
 * - Query: the first of its name; `+` is a space in names and values, then both are percent-decoded; names that are malformed are passed over.
 * - Path: percent-decoded, `+` stays.
 */
export class KeyExtractor {
  private readonly applications: Prefix<CompiledApplication>[] = [];
  private readonly central = new Map<string, Prefix<UnitId>[]>();

  constructor(applications: Readonly<Record<string, ApplicationRouting>>) {
    for (const [name, application] of Object.entries(applications)) {
      const compiled = {
        name,
        userId: application.routingKey.userId.map((source) => compile(source, 'userId')),
        region: application.routingKey.region.map((source) => compile(source, 'region')),
      };
      for (const path of application.paths) {
        this.applications.push({ segments: prefixSegments(path), value: compiled });
      }
      const central = Object.entries(application.central).map(([path, unit]) => ({
        segments: prefixSegments(path),
        value: centralUnit(unit.replace(/^central:/, '')),
      }));
      this.central.set(name, central.sort(bySegments));
    }
    this.applications.sort(bySegments);
  }

  extract(request: RequestParts): Extraction {
    const parsed = parseRequest(request);
    const application = longest(this.applications, parsed.segments);
    if (application === undefined) return { kind: 'no-application' };
    const { name } = application;
    const unit = longest(this.central.get(name)!, parsed.segments);
    if (unit !== undefined) return { kind: 'unit', application: name, unit };
    const userId = first(application.userId, parsed);
    if (userId === undefined) return { kind: 'missing', application: name, part: 'userId' };
    if (typeof userId !== 'string') {
      return { kind: 'invalid', application: name, part: 'userId', source: userId.malformed };
    }
    const region = first(application.region, parsed);
    if (region === undefined) return { kind: 'key', application: name, key: { userId } };
    if (typeof region !== 'string') {
      return { kind: 'invalid', application: name, part: 'region', source: region.malformed };
    }
    return { kind: 'key', application: name, key: { userId, region } };
  }
}

/** The segments of a path prefix or template, as paths are split: `/api` and `/api/` are the same. */
export function prefixSegments(path: string): string[] {
  const segments = path.split('/').slice(1);
  if (segments.at(-1) === '') segments.pop();
  return segments;
}

function bySegments(a: Prefix<unknown>, b: Prefix<unknown>): number {
  return b.segments.length - a.segments.length;
}

/** `prefixes` are sorted, longest first. */
function longest<T>(prefixes: readonly Prefix<T>[], segments: readonly Value[]): T | undefined {
  return prefixes.find((prefix) => prefix.segments.every((segment, i) => segments[i] === segment))?.value;
}

function first(
  sources: readonly CompiledSource[],
  request: ParsedRequest,
): string | undefined | { malformed: string } {
  for (const source of sources) {
    const value = source.read(request);
    if (value === MALFORMED) return { malformed: source.name };
    if (value !== undefined && value !== '') return value;
  }
  return undefined;
}

function parseRequest({ target, headers }: RequestParts): ParsedRequest {
  const hash = target.indexOf('#');
  const withoutFragment = hash === -1 ? target : target.slice(0, hash);
  const authority = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/[^/?]*/.exec(withoutFragment);
  const local = authority ? withoutFragment.slice(authority[0].length) : withoutFragment;
  const mark = local.indexOf('?');
  const raw = (mark === -1 ? local : local.slice(0, mark)).split('/').slice(1);
  if (raw.at(-1) === '') raw.pop();
  return { raw, segments: raw.map(percentDecoded), query: mark === -1 ? '' : local.slice(mark + 1), headers };
}

function compile(source: KeySource, part: 'userId' | 'region'): CompiledSource {
  if ('header' in source) {
    const name = source.header.toLowerCase();
    return { name: `header ${name}`, read: (request) => headerValue(request.headers[name], ', ') };
  }
  if ('cookie' in source) {
    return { name: `cookie ${source.cookie}`, read: (request) => cookieValue(request, source.cookie) };
  }
  if ('query' in source) {
    return { name: `query ${source.query}`, read: (request) => queryValue(request.query, source.query) };
  }
  const template = prefixSegments(source.path);
  return { name: `path ${source.path}`, read: (request) => pathValue(request, template, `:${part}`) };
}

function joined(header: string | readonly string[] | undefined, separator: string): string | undefined {
  return typeof header === 'object' ? header.join(separator) : header;
}

function headerValue(header: string | readonly string[] | undefined, separator: string): Value {
  const bytes = joined(header, separator);
  return bytes === undefined ? undefined : text(bytes.replace(/^[ \t]+|[ \t]+$/g, ''));
}

function cookieValue({ headers }: ParsedRequest, name: string): Value {
  for (const pair of (joined(headers['cookie'], '; ') ?? '').split(';')) {
    const at = pair.indexOf('=');
    if (at === -1 || pair.slice(0, at).replace(/^[ \t]+|[ \t]+$/g, '') !== name) continue;
    const value = pair.slice(at + 1).replace(/^[ \t]+|[ \t]+$/g, '');
    return percentDecoded(/^".*"$/s.test(value) && value.length > 1 ? value.slice(1, -1) : value);
  }
  return undefined;
}

function queryValue(query: string, name: string): Value {
  for (const pair of query.split('&')) {
    const at = pair.indexOf('=');
    const key = percentDecoded((at === -1 ? pair : pair.slice(0, at)).replaceAll('+', ' '));
    if (key !== name) continue;
    return at === -1 ? '' : percentDecoded(pair.slice(at + 1).replaceAll('+', ' '));
  }
  return undefined;
}

function pathValue({ segments }: ParsedRequest, template: readonly string[], part: string): Value {
  const open = template.at(-1) === '*';
  const fixed = open ? template.length - 1 : template.length;
  if (open ? segments.length < fixed : segments.length !== fixed) return undefined;
  let found: Value;
  for (let i = 0; i < fixed; i++) {
    const segment = segments[i];
    if (segment === '') return undefined;
    if (template[i] === part) found = segment;
    else if (!template[i]!.startsWith(':') && template[i] !== segment) return undefined;
  }
  return found;
}

function percentDecoded(bytes: string): Value {
  if (!bytes.includes('%')) return text(bytes);
  if (/%(?![0-9A-Fa-f]{2})/.test(bytes)) return MALFORMED;
  return text(
    bytes.replace(/%([0-9A-Fa-f]{2})/g, (_all, hex: string) => String.fromCharCode(parseInt(hex, 16))),
  );
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of a byte string: UTF-8, no control characters, at most MAX_KEY_BYTES. */
function text(bytes: string): Value {
  if (bytes.length > MAX_KEY_BYTES) return MALFORMED;
  let ascii = true;
  for (let i = 0; i < bytes.length; i++) {
    const code = bytes.charCodeAt(i);
    if (code < 0x20 || code === 0x7f || code > 0xff) return MALFORMED;
    if (code > 0x7e) ascii = false;
  }
  if (ascii) return bytes;
  try {
    return decoder.decode(Uint8Array.from(bytes, (c) => c.charCodeAt(0)));
  } catch {
    return MALFORMED;
  }
}
