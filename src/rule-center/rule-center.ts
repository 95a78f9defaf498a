import type { FastifyInstance } from 'fastify';
import { InterlockError, messageOf } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import { Counter, Gauge, createRegistry } from '../observability/metrics.js';
import { rulesHash } from '../routing/hash.js';
import type { Rules } from '../routing/rules.js';
import type { DcId } from '../routing/units.js';
import type { HealthAnswer, Problem, PublishAnswer } from './api.js';
import { GatewayPusher } from './gateway-pusher.js';
import type { GatewayPort } from './gateway-pusher.js';
import { Leases } from './leases.js';
import { Reassertion } from './reassertion.js';
import type { PeerPort, StatesPort } from './reassertion.js';
import { RuleBook } from './rule-book.js';
import { RulesFile } from './rules-file.js';
import { createServer } from './server.js';
import { StoreWatch } from './store-watch.js';
import type { RulesSource } from './store-watch.js';
import { Watchers } from './watchers.js';

export interface RuleCenterOptions {
  dc: DcId;
  topology: string;
  /** DC → the domain that a terminal should use. */
  domains: ReadonlyMap<DcId, string>;
  /** `schema.table` of the tables that the topology declares unrouted; default: none. */
  unrouted?: readonly string[];
  token: string;
  /** Where to listen; port 0 takes any. */
  listen: { host: string; port: number };
  /** The rules of the DC's control store: a RulesStore. */
  rules: RulesSource & { publish(rules: Rules): Promise<unknown> };
  /** The unit states of every MySQL store of the DC. */
  states: readonly StatesPort[];
  gateways: ReadonlyMap<string, GatewayPort>;
  peer: PeerPort;
  /** The last rules are kept here, and served while the control store is down. */
  stateDirectory?: string;
  log: Logger;
}

/** The rule center of one DC: `start()` it, `stop()` it once. */
export class RuleCenter {
  private readonly book = new RuleBook();
  private readonly watchers: Watchers;
  private readonly leases = new Leases();
  private readonly pushers: GatewayPusher[];
  private readonly storeWatch: StoreWatch;
  private readonly reassertion: Reassertion;
  private readonly file: RulesFile | undefined;
  private readonly registry;
  private readonly server: FastifyInstance;
  private fileProblem: Problem | undefined;

  constructor(private readonly options: RuleCenterOptions) {
    const { dc, log, topology } = options;
    this.watchers = new Watchers(this.book);
    this.pushers = [...options.gateways].map(
      ([name, admin]) => new GatewayPusher(dc, name, admin, this.book, log),
    );
    this.storeWatch = new StoreWatch(options.rules, this.book, log);
    this.reassertion = new Reassertion(
      options.states,
      options.peer,
      this.book,
      async () => {
        await this.storeWatch.look();
        return this.storeWatch.storeEpoch;
      },
      log,
    );
    if (options.stateDirectory !== undefined) {
      this.file = new RulesFile(options.stateDirectory, topology, dc);
    }
    this.registry = createRegistry(dc);
    this.registerMetrics();
    this.server = createServer({
      dc,
      topology,
      domains: options.domains,
      unrouted: options.unrouted ?? [],
      token: options.token,
      book: this.book,
      watchers: this.watchers,
      leases: this.leases,
      registry: this.registry,
      log,
      health: () => this.health(),
      gateways: () => Promise.all(this.pushers.map((pusher) => pusher.look())),
      publish: (rules, committed) => this.publish(rules, committed),
    });
  }

  /** Serves when it returns, with rules when the store or the copy on disk has some. Answers its URL. Errors: Unavailable (port in use). */
  async start(): Promise<string> {
    const { listen, log } = this.options;
    // Before the first document: it is kept and pushed like every other.
    this.book.onChange((entry) => {
      log.info({ epoch: entry.rules.epoch, hash: entry.hash, reason: entry.rules.reason }, 'rules in force');
      for (const pusher of this.pushers) void pusher.push(entry);
      void this.keep(entry.json);
    });
    await this.loadFile();
    await this.storeWatch.start();
    let url: string;
    try {
      url = await this.server.listen(listen);
    } catch (error) {
      await this.stop();
      throw new InterlockError(
        'Unavailable',
        `the rule center of ${this.options.dc} cannot listen on ${listen.host}:${listen.port}: ${messageOf(error)}`,
        { cause: error, details: { what: `${listen.host}:${listen.port}` } },
      );
    }
    for (const pusher of this.pushers) pusher.start();
    this.reassertion.start();
    return url;
  }

  /** Ends watches and requests, then everything else; when it returns, the copy on disk is written. */
  async stop(): Promise<void> {
    this.storeWatch.stop();
    this.reassertion.stop();
    this.watchers.close();
    await this.server.close();
    await Promise.all(this.pushers.map((pusher) => pusher.stop()));
    await this.file?.settled();
  }

  /**
   * Keeps rules in the control store, then hands them to every gateway at once. The store comes first: an epoch that a gateway has, the next
   * switchover must find. It finds those that are `committed` in the other DC, and the gateways get them beside this store.
   */
  private async publish(rules: Rules, committed: boolean): Promise<PublishAnswer> {
    const hash = rulesHash(rules);
    const kept = this.options.rules.publish(rules);
    if (!committed) await kept;
    else {
      kept.catch((error: unknown) => {
        const line = { epoch: rules.epoch, error: messageOf(error) };
        this.options.log.warn(line, 'rules that the other data center has are not kept here');
      });
    }
    this.book.offer({ rules, hash });
    const inForce = this.book.current!;
    // Hazard: since the store has answered, a higher epoch may have come into force; this one must not go to a gateway then.
    if (inForce.rules.epoch !== rules.epoch) {
      throw new InterlockError(
        'StaleEpoch',
        `epoch ${rules.epoch} came late: ${inForce.rules.epoch} is in force in ${this.options.dc}`,
        { details: { epoch: rules.epoch, highest: inForce.rules.epoch } },
      );
    }
    const gateways = await Promise.all(this.pushers.map((pusher) => pusher.push(inForce)));
    return { epoch: rules.epoch, hash, gateways };
  }

  private health(): HealthAnswer {
    const entry = this.book.current;
    const gateways = this.pushers.map((pusher) => pusher.view());
    const problems: Problem[] = [
      ...(entry === undefined
        ? [{ code: 'NoRules', message: `${this.options.dc} has no rules yet: run \`interlock rules init\`` }]
        : []),
      ...this.storeWatch.problems,
      ...this.reassertion.problems,
      ...(this.fileProblem ? [this.fileProblem] : []),
      ...gateways
        .filter((gateway) => !gateway.ok)
        .map((gateway) => ({
          code: 'GatewayDiffers',
          message: `gateway ${gateway.gateway} ${gateway.detail}`,
        })),
    ];
    return {
      status: entry === undefined ? 'no-rules' : problems.length > 0 ? 'degraded' : 'ok',
      dc: this.options.dc,
      topology: this.options.topology,
      epoch: entry?.rules.epoch ?? null,
      hash: entry?.hash ?? null,
      storeEpoch: this.storeWatch.storeEpoch,
      peer: this.reassertion.peer,
      gateways: gateways.map(({ gateway, epoch, ok }) => ({ gateway, epoch, ok })),
      instances: this.leases.list().length,
      watchers: this.watchers.size,
      problems,
    };
  }

  private async loadFile(): Promise<void> {
    try {
      const document = await this.file?.load();
      if (document === undefined) return;
      if (document.rules.topology !== this.options.topology) {
        throw new InterlockError('BadInput', `${this.file!.file} is of topology ${document.rules.topology}`);
      }
      this.book.offer(document);
    } catch (error) {
      this.fileProblem = { code: 'RulesFile', message: messageOf(error) };
      this.options.log.error({ file: this.file?.file }, messageOf(error));
    }
  }

  private async keep(json: string): Promise<void> {
    if (this.file === undefined) return;
    try {
      await this.file.save(json);
      this.fileProblem = undefined;
    } catch (error) {
      this.fileProblem = {
        code: 'RulesFile',
        message: `${this.file.file} cannot be written: ${messageOf(error)}`,
      };
      this.options.log.error({ file: this.file.file }, this.fileProblem.message);
    }
  }

  private registerMetrics(): void {
    const registers = [this.registry];
    const gauge = (name: string, help: string, read: () => number): void => {
      new Gauge({
        name,
        help,
        registers,
        collect(this: Gauge) {
          this.set(read());
        },
      });
    };
    gauge(
      'interlock_rules_epoch',
      'Epoch of the rules in force; 0: none.',
      () => this.book.current?.rules.epoch ?? 0,
    );
    gauge(
      'interlock_rules_store_epoch',
      'Highest epoch of the control store; -1: it does not answer.',
      () => this.storeWatch.storeEpoch ?? -1,
    );
    gauge(
      'interlock_rules_peer_epoch',
      "Epoch of the other data center's rule center; -1: it does not answer.",
      () => this.reassertion.peer.epoch ?? -1,
    );
    gauge(
      'interlock_rule_center_problems',
      'Problems that /v1/health names.',
      () => this.health().problems.length,
    );
    gauge('interlock_rule_center_watchers', 'Open watches.', () => this.watchers.size);
    gauge('interlock_sdk_instances', 'SDK instances with a lease.', () => this.leases.list().length);
    gauge('interlock_sdk_instances_behind', 'SDK instances with a lease that work by a lower epoch.', () => {
      const epoch = this.book.current?.rules.epoch ?? 0;
      return this.leases.list().filter((instance) => instance.epoch < epoch).length;
    });
    const pushers = this.pushers;
    new Gauge({
      name: 'interlock_rule_center_gateway_epoch',
      help: 'Epoch that a gateway has; -1: unknown.',
      labelNames: ['gateway'],
      registers,
      collect(this: Gauge) {
        for (const pusher of pushers) this.set({ gateway: pusher.name }, pusher.view().epoch ?? -1);
      },
    });
    const reassertion = this.reassertion;
    let counted = 0;
    new Counter({
      name: 'interlock_reasserted_total',
      help: 'Times that unit states were asserted again on a server with another identity.',
      registers,
      collect(this: Counter) {
        this.inc(reassertion.reasserted - counted);
        counted = reassertion.reasserted;
      },
    });
  }
}
