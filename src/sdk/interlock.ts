import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { Redis } from 'ioredis';
import { InterlockError } from '../errors.js';
import { KeyExtractor } from '../routing/key.js';
import type { ApplicationRouting, RequestParts } from '../routing/key.js';
import { KeyPatterns } from '../routing/redis-keys.js';
import type { KeyRouting } from '../routing/redis-keys.js';
import type { DcId } from '../routing/units.js';
import { contexts, Effects } from './context.js';
import { expressErrorHandler, expressMiddleware } from './express.js';
import type { ExpressErrorHandler, ExpressMiddleware } from './express.js';
import { fastifyPlugin } from './fastify.js';
import type { FastifyPlugin } from './fastify.js';
import type { Kafka } from 'kafkajs';
import { FencedKafka } from './kafka/kafka.js';
import { Outbox } from './kafka/outbox.js';
import type { OutboxOptions } from './kafka/outbox.js';
import { FencedMysql } from './mysql/store.js';
import type { MysqlPool } from './mysql/session.js';
import { fencedClient } from './redis/client.js';
import { FencedRedisStore } from './redis/store.js';
import { RuleCenterRules } from './rules-source.js';
import type { RulesSource } from './rules-source.js';
import type { Target } from './target.js';

export interface InterlockOptions {
  /** The data center this instance runs in. */
  dc: DcId;
  /** The application's name in the topology. */
  application: string;
  /** Unique per process; default: host name, process id and a random part. */
  instance?: string;
  /** Base URL of this DC's rule center. One of `ruleCenter` and `rules` is needed. */
  ruleCenter?: string;
  /** Sent as a bearer token to the rule center, when given. */
  token?: string;
  /** Another source of rules, for tests and tools. */
  rules?: RulesSource;
  /** Where requests carry the routing key: the application's entry in the topology. Needed by the HTTP middleware. */
  routing?: ApplicationRouting;
  /** Milliseconds between two renewals of the lease; default 3 000. */
  leaseMs?: number;
  /** Told of trouble that stops nothing, such as a rule center that is down. Default: silent. */
  onWarning?: (message: string, error?: unknown) => void;
}

/** What a request says of its routing key. */
export type RequestKey = { target: Target | undefined } | { invalid: string };

/** An application instance's side of Interlock. */
export class Interlock {
  readonly dc: DcId;
  readonly application: string;
  readonly instance: string;
  readonly rules: RulesSource;
  private readonly extractor: KeyExtractor | undefined;
  private readonly kafkas = new WeakMap<Kafka, FencedKafka>();

  constructor(options: InterlockOptions) {
    this.dc = options.dc;
    this.application = options.application;
    this.instance = options.instance ?? `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;
    this.rules = options.rules ?? ruleCenterOf(options, this.instance);
    if (options.routing !== undefined) {
      this.extractor = new KeyExtractor({ [options.application]: options.routing });
    }
  }

  /** The epoch of the rules in use; undefined while none are known. */
  get epoch(): number | undefined {
    return this.rules.current()?.epoch;
  }

  /** Waits until rules are known. Throws Unavailable or NoRules. */
  async ready(): Promise<void> {
    if (this.rules.current() === undefined) await this.rules.refresh();
  }

  /**
   * A store of this DC behind the fence. `pool`: of mysql2 or mysql2/promise; it is used, never changed. `pipelining: false` sends START
   * TRANSACTION and the fence check one after the other, for proxies that take one request at a time. A plain write to a table that
   * the topology declares unrouted needs no routing key; the rule center says which those are. `unrouted`: their names (`schema.table`) in place of
   * its answer, for rules of another source, or to have fewer; `[]`: none.
   */
  mysql(
    pool: MysqlPool,
    options: { store?: string; pipelining?: boolean; unrouted?: readonly string[] } = {},
  ): FencedMysql {
    const { store = 'main', pipelining = true, unrouted } = options;
    return new FencedMysql(pool, store, this.rules, pipelining, unrouted);
  }

  /**
   * A Redis store of this DC behind the fence: the client as it is, whose writes check their units' states on the server in the same atomic step.
   * `keys`: the topology's; a key that none of them matches is of the ambient routing key.
   *
   * Errors of a write: WriteDisabled, NotOwner, StaleMapping, ServerIdentityChanged, CrossOwner (nothing was done), PartiallyExecuted, CommitUnknown,
   * StatementRefused, NoRules, Unavailable; and Redis's own.
   */
  redis(client: Redis, options: { store?: string; keys?: readonly KeyRouting[] } = {}): Redis {
    const { store = 'cache', keys = [] } = options;
    return fencedClient(new FencedRedisStore(client, store, this.rules, new KeyPatterns(keys)));
  }

  /** The Kafka of this DC behind the fence. `kafka`: of kafkajs, connected to the DC's own cluster. */
  kafka(kafka: Kafka): FencedKafka {
    let fenced = this.kafkas.get(kafka);
    if (fenced === undefined) this.kafkas.set(kafka, (fenced = new FencedKafka(kafka, this)));
    return fenced;
  }

  /** Events that are written in the business transaction; docs/kafka-sdk.md has the table and the relay. */
  outbox(options: OutboxOptions): Outbox {
    return new Outbox(options, this.rules);
  }

  /** Runs `work` with an ambient routing key; `transaction` without a key uses it. What is committed inside belongs together: see `afterEffects`. */
  run<R>(key: Target | readonly Target[] | undefined, work: () => R): R {
    const effects = new Effects(contexts.getStore()?.effects);
    return contexts.run({ target: key, effects }, work);
  }

  /** Call it before anything leaves this process that must not be sent twice: from then on a refusal is 409, never 421. */
  markSent(): void {
    const context = contexts.getStore();
    if (context === undefined) {
      throw new InterlockError(
        'Refused',
        'markSent: not inside of interlock.run or a request of the middleware',
      );
    }
    context.effects.markSent();
  }

  /** The ambient routing key. */
  get key(): Target | readonly Target[] | undefined {
    return contexts.getStore()?.target;
  }

  /** The routing key of a request, by the application's declaration. */
  keyOf(request: RequestParts): RequestKey {
    if (this.extractor === undefined) {
      throw new InterlockError(
        'BadInput',
        "createInterlock: routing: the HTTP middleware needs the application's entry of the topology, or a `key` function",
        { details: { field: 'routing' } },
      );
    }
    const found = this.extractor.extract(request);
    switch (found.kind) {
      case 'key':
        return { target: found.key };
      case 'unit':
        return { target: { unit: found.unit } };
      case 'invalid':
        return { invalid: `${found.part} in ${found.source} is not valid text` };
      case 'missing':
      case 'no-application':
        return { target: undefined };
    }
  }

  /** `await app.register(interlock.fastify())`: the ambient key of each request, and 421/409 for refusals. */
  fastify(options: HttpOptions = {}): FastifyPlugin {
    return fastifyPlugin(this, options);
  }

  /** `app.use(interlock.express())` before the routes. */
  express(options: HttpOptions = {}): ExpressMiddleware {
    return expressMiddleware(this, options);
  }

  /** `app.use(interlock.expressErrors())` behind the routes: 421/409 for refusals. */
  expressErrors(): ExpressErrorHandler {
    return expressErrorHandler();
  }

  /** Ends watch and lease. Pools are the caller's. */
  async close(): Promise<void> {
    await this.rules.close();
  }
}

export interface HttpOptions {
  /** Finds the routing key in place of the topology's declaration; undefined: the request has none. */
  key?: (request: RequestParts) => Target | undefined;
}

/** One per process. Errors: BadInput names the option. */
export function createInterlock(options: InterlockOptions): Interlock {
  for (const field of ['dc', 'application'] as const) {
    if (typeof options?.[field] !== 'string' || options[field] === '') {
      throw new InterlockError('BadInput', `createInterlock: ${field}: expected a name`, {
        details: { field },
      });
    }
  }
  return new Interlock(options);
}

function ruleCenterOf(options: InterlockOptions, instance: string): RulesSource {
  if (options.ruleCenter === undefined || !/^https?:\/\//.test(options.ruleCenter)) {
    throw new InterlockError(
      'BadInput',
      `createInterlock: ruleCenter: expected the http(s) URL of this data center's rule center, got ${JSON.stringify(options.ruleCenter)}`,
      { details: { field: 'ruleCenter' } },
    );
  }
  return new RuleCenterRules({
    url: options.ruleCenter,
    application: options.application,
    instance,
    token: options.token,
    leaseMs: options.leaseMs,
    onWarning: options.onWarning,
  });
}
