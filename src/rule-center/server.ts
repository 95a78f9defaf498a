import { createHash, timingSafeEqual } from 'node:crypto';
import fastify from 'fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Registry } from 'prom-client';
import { InterlockError, isInterlockError, messageOf } from '../errors.js';
import type { ErrorCode } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import { balanceOf } from '../routing/plan.js';
import type { Route, Rules } from '../routing/rules.js';
import { unitsOf } from '../routing/rules.js';
import type { DcId, RoutingKey, UnitId } from '../routing/units.js';
import { validateRules } from '../routing/validate.js';
import type {
  GatewayView,
  HealthAnswer,
  LeaseAnswer,
  OwnsAnswer,
  PublishAnswer,
  RouteAnswer,
  TablesAnswer,
  UnitsAnswer,
} from './api.js';
import { LEASE_TTL_MS } from './leases.js';
import type { Leases } from './leases.js';
import { badField, holderOf, keyOf, keyOrUnitOf, leaseOf, sinceOf } from './requests.js';
import type { Entry, RuleBook } from './rule-book.js';
import type { Watchers } from './watchers.js';

/** What the routes need; the rule center puts it together. */
export interface ServerParts {
  dc: DcId;
  topology: string;
  /** DC → the domain that a terminal should use. */
  domains: ReadonlyMap<DcId, string>;
  /** `schema.table` of the tables that the topology declares unrouted. */
  unrouted: readonly string[];
  token: string;
  book: RuleBook;
  watchers: Watchers;
  leases: Leases;
  registry: Registry;
  log: Logger;
  health: () => HealthAnswer;
  gateways: () => Promise<GatewayView[]>;
  /** Keeps rules in the control store and hands them to the gateways. */
  publish: (rules: Rules, committed: boolean) => Promise<PublishAnswer>;
}

const RULES_BODY_BYTES = 32 * 1024 * 1024;
const BODY_BYTES = 64 * 1024;

/** The HTTP service; docs/rule-center.md has the routes. */
export function createServer(parts: ServerParts): FastifyInstance {
  const { book, dc } = parts;
  const server = fastify({
    bodyLimit: BODY_BYTES,
    keepAliveTimeout: 75_000,
    requestTimeout: 10_000,
    forceCloseConnections: true,
    exposeHeadRoutes: false,
    logger: false,
  });
  server.setErrorHandler((error, _request, reply) => sendError(parts, reply, error));
  server.setNotFoundHandler((request, reply) =>
    sendError(
      parts,
      reply,
      badField('path', `there is no ${request.method} ${request.url.slice(0, 200)}`),
      404,
    ),
  );
  const authorized = bearerGuard(parts.token);

  const inForce = (): Entry => {
    const entry = book.current;
    if (entry !== undefined) return entry;
    throw new InterlockError('NoRules', `${dc} has no rules yet: run \`interlock rules init\``, {
      retryable: true,
    });
  };
  const routeOf = (asked: RoutingKey | { unit: UnitId }): Route => {
    const { router } = inForce();
    if ('unit' in asked) {
      const route = router.routeUnit(asked.unit);
      if (route === undefined) throw badField('unit', `the rules have no unit ${asked.unit}`);
      return route;
    }
    const route = router.route(asked);
    if (route !== undefined) return route;
    const regions = Object.keys(router.rules.regions).sort().join(', ');
    throw badField('region', `${JSON.stringify(asked.region)} is not routed; the rules have ${regions}`);
  };

  server.get('/v1/health', (_request, reply) => {
    const health = parts.health();
    return reply.code(health.status === 'no-rules' ? 503 : 200).send(health);
  });

  server.get('/v1/rules', (_request, reply) => reply.type('application/json').send(inForce().json));

  server.get('/v1/rules/watch', (request, reply) => {
    const since = sinceOf(request.query, request.headers['last-event-id']);
    if (parts.watchers.full) throw new InterlockError('Unavailable', 'too many watchers');
    reply.hijack();
    parts.watchers.add(reply.raw, since);
  });

  server.get('/v1/route', (request): RouteAnswer => {
    const route = routeOf(keyOf(request.query));
    return { ...route, domain: parts.domains.get(route.owner)! };
  });

  server.get('/v1/owns', (request): OwnsAnswer => {
    const { unit, owner, state, epoch } = routeOf(keyOrUnitOf(request.query));
    return { owns: owner === dc && state === 'open', unit, owner, state, epoch };
  });

  server.get('/v1/units', (): UnitsAnswer => {
    const { rules, router } = inForce();
    const units = unitsOf(rules).map((unit) => {
      const { owner, state } = router.assignmentOf(unit)!;
      return { unit, owner, state };
    });
    return { epoch: rules.epoch, units, balance: balanceOf(rules) };
  });

  server.get('/v1/tables', (): TablesAnswer => ({ unrouted: [...parts.unrouted] }));

  server.get('/v1/gateways', async () => ({ gateways: await parts.gateways() }));

  server.post(
    '/v1/rules',
    { bodyLimit: RULES_BODY_BYTES, onRequest: authorized },
    async (request): Promise<PublishAnswer> => {
      const body = objectOf(request.body);
      const unknown = Object.keys(body).find((key) => key !== 'rules' && key !== 'committed');
      if (unknown !== undefined) throw badField(unknown, 'expected no such key');
      const { rules, committed = false } = body;
      if (typeof committed !== 'boolean') throw badField('committed', 'expected true or false');
      return parts.publish(checkedRules(rules, parts), committed);
    },
  );

  server.post('/v1/leases', (request): LeaseAnswer => {
    parts.leases.renew(leaseOf(request.body));
    return { epoch: book.current?.rules.epoch ?? 0, ttlMs: LEASE_TTL_MS };
  });

  server.delete('/v1/leases', (request) => {
    parts.leases.end(holderOf(request.query));
    return {};
  });

  server.get('/v1/instances', () => ({
    epoch: book.current?.rules.epoch ?? null,
    instances: parts.leases.list(),
  }));

  server.get('/metrics', async (_request, reply) =>
    reply.type(parts.registry.contentType).send(await parts.registry.metrics()),
  );
  return server;
}

function objectOf(body: unknown): Record<string, unknown> {
  if (body === null || typeof body !== 'object' || Array.isArray(body)) {
    throw badField('body', 'expected a JSON object { rules }');
  }
  return body as Record<string, unknown>;
}

/** Rules that a rule center of this topology may serve. */
function checkedRules(document: unknown, { topology, domains }: ServerParts): Rules {
  const rules = validateRules(document);
  if (rules.topology !== topology) {
    throw badField('topology', `expected ${topology}, got ${rules.topology}`);
  }
  const owned = [
    ...Object.entries(rules.regions).flatMap(([name, ranges]) =>
      ranges.map((range, i) => [`regions.${name}.${i}.owner`, range.owner] as const),
    ),
    ...Object.entries(rules.segments).map(([name, { owner }]) => [`segments.${name}.owner`, owner] as const),
    ...Object.entries(rules.central).map(([name, { owner }]) => [`central.${name}.owner`, owner] as const),
  ];
  for (const [field, owner] of owned) {
    if (!domains.has(owner))
      throw badField(field, `expected one of ${[...domains.keys()].join(', ')}, got ${owner}`);
  }
  return rules;
}

/** Hazard: a comparison that stops at the first wrong byte tells how much was right. Guard: equal digests, compared in constant time. */
function bearerGuard(token: string): (request: FastifyRequest) => Promise<void> {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  const expected = digest(token);
  return async (request) => {
    const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? '';
    if (!timingSafeEqual(digest(given), expected)) throw new Unauthorized();
  };
}

class Unauthorized extends InterlockError {
  constructor() {
    super('Refused', "expected the rule center's token as `Authorization: Bearer TOKEN`", {
      details: { field: 'authorization' },
    });
  }
}

const STATUS: Partial<Record<ErrorCode, number>> = {
  BadInput: 400,
  StaleEpoch: 409,
  EpochConflict: 409,
  Refused: 409,
  NoRules: 503,
  Unavailable: 503,
};

function sendError(parts: ServerParts, reply: FastifyReply, error: unknown, status?: number): FastifyReply {
  if (error instanceof Unauthorized) {
    return answer(reply.header('www-authenticate', 'Bearer'), 401, error);
  }
  if (isInterlockError(error)) return answer(reply, status ?? STATUS[error.code] ?? 500, error);
  // fastify's own: a body that is no JSON, is too large, or of another media type.
  const given = (error as { statusCode?: number }).statusCode;
  if (given !== undefined && given >= 400 && given < 500) {
    return answer(reply, given, badField('body', messageOf(error)));
  }
  parts.log.error({ err: error }, 'request failed');
  return answer(
    reply,
    500,
    new InterlockError('Internal', 'the request failed; see the log of the rule center'),
  );
}

function answer(reply: FastifyReply, status: number, error: InterlockError): FastifyReply {
  const { code, message, details } = error;
  return reply.code(status).type('application/json').send({ error: { code, message, details } });
}
