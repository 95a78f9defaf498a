import type { Rules, Segment } from '../routing/rules.js';
import { BUCKETS } from '../routing/units.js';
import type { DcId } from '../routing/units.js';
import { InterlockError } from '../errors.js';
import type {
  Datacenter,
  KafkaLinkSpec,
  LinkKind,
  LinkSpec,
  MysqlLinkSpec,
  MysqlStore,
  OutboxSpec,
  PairLinkSpec,
  RedisLinkSpec,
  Topology,
} from './schema.js';

interface Wanted<K extends LinkKind> {
  kind: K;
  store: string;
  from: DcId;
  to: DcId;
  throttle?: Throttle;
}
/** What a link applies at most in a second: rows, commands or records. */
interface Throttle {
  maxRowsPerSecond?: number;
  maxBytesPerSecond?: number;
}
type Options<S extends LinkSpec> = Omit<S, 'kind' | 'store' | 'from' | 'to' | `max${string}PerSecond`>;

export type WantedMysqlLink = Wanted<'mysql'> & Options<MysqlLinkSpec>;
export type WantedRedisLink = Wanted<'redis'> & Options<RedisLinkSpec>;
export type WantedKafkaLink = Wanted<'kafka'> & Options<KafkaLinkSpec>;
/** The relay of an outbox: from and to are one data center, and the store is of MySQL. */
export type WantedOutbox = Wanted<'outbox'> & Options<OutboxSpec>;
/** One directed link that the topology wants; `kind`, `store`, `from`, `to` are its id (replicators/core/contract.ts). */
export type WantedLink = WantedMysqlLink | WantedRedisLink | WantedKafkaLink | WantedOutbox;

/** The rules of a topology at epoch 1: everything open at its home. */
export function initialRules(topology: Topology): Rules {
  const regions: Rules['regions'] = {};
  for (const [name, { home }] of Object.entries(topology.regions)) {
    regions[name] = [{ from: 0, to: BUCKETS - 1, owner: home, state: 'open' }];
  }
  const segments: Record<string, Segment> = {};
  for (const [name, { home, members }] of Object.entries(topology.segments)) {
    segments[name] = { owner: home, state: 'open', members: [...members].sort() };
  }
  const central: Rules['central'] = {};
  for (const [name, { home }] of Object.entries(topology.central)) {
    central[name] = { owner: home, state: 'open' };
  }
  return {
    format: 1,
    topology: topology.name,
    epoch: 1,
    mappingVersion: 1,
    unitMappingVersions: {},
    defaultRegion: topology.defaultRegion,
    regions,
    segments,
    central,
    holder: null,
    reason: `initial rules of topology ${topology.name}`,
  };
}

/**
 * How the users of a topology map to units otherwise than in the rules in force; undefined when they do not. The rules are what counts:
 * applications and gateways read them there, and the links the topology.
 */
export function mappingDifference(topology: Topology, rules: Rules): string | undefined {
  const wanted = initialRules(topology);
  const names = (of: object): string => Object.keys(of).sort().join(', ');
  if (wanted.defaultRegion !== rules.defaultRegion) {
    return `defaultRegion is ${wanted.defaultRegion} in the topology, ${rules.defaultRegion} in the rules`;
  }
  for (const kind of ['regions', 'segments', 'central'] as const) {
    if (names(wanted[kind]) !== names(rules[kind])) {
      return `${kind} are ${names(wanted[kind])} in the topology, ${names(rules[kind])} in the rules`;
    }
  }
  const other = Object.keys(wanted.segments).find(
    (name) => wanted.segments[name]!.members.join() !== [...rules.segments[name]!.members].sort().join(),
  );
  return other === undefined ? undefined : `members of segment ${other} differ between topology and rules`;
}

/** Every directed link that the topology wants, in a stable order. */
export function wantedLinks(topology: Topology): WantedLink[] {
  const links: WantedLink[] = [];
  for (const spec of topology.links) {
    for (const from of dcIds(topology)) {
      if (spec.kind === 'outbox') {
        links.push({ ...spec, store: storeName(spec), from, to: from });
        continue;
      }
      const to = otherDc(topology, from);
      if ((spec.from ?? from) === from && (spec.to ?? to) === to) links.push(wanted(spec, from, to));
    }
  }
  return links;
}

/** The same, those of MySQL stores alone. */
export function wantedMysqlLinks(topology: Topology): WantedMysqlLink[] {
  return wantedLinks(topology).filter((link) => link.kind === 'mysql');
}

/** The relays of the outboxes of one data center's stores. */
export function wantedOutboxes(topology: Topology, dc: DcId): WantedOutbox[] {
  return wantedLinks(topology).filter((link) => link.kind === 'outbox' && link.from === dc) as WantedOutbox[];
}

/** Those of Redis stores alone. */
export function wantedRedisLinks(topology: Topology): WantedRedisLink[] {
  return wantedLinks(topology).filter((link) => link.kind === 'redis');
}

function wanted(spec: PairLinkSpec, from: DcId, to: DcId): WantedLink {
  const end = { store: storeName(spec), from, to };
  switch (spec.kind) {
    case 'mysql': {
      const { maxRowsPerSecond, maxBytesPerSecond, ...options } = spec;
      return { ...options, ...end, ...throttle(maxRowsPerSecond, maxBytesPerSecond) };
    }
    case 'redis': {
      const { maxCommandsPerSecond, maxBytesPerSecond, ...options } = spec;
      return { ...options, ...end, ...throttle(maxCommandsPerSecond, maxBytesPerSecond) };
    }
    case 'kafka': {
      const { maxRecordsPerSecond, maxBytesPerSecond, ...options } = spec;
      return { ...options, ...end, ...throttle(maxRecordsPerSecond, maxBytesPerSecond) };
    }
  }
}

function throttle(rows: number | undefined, bytes: number | undefined): { throttle?: Throttle } {
  if (rows === undefined && bytes === undefined) return {};
  return {
    throttle: {
      ...(rows !== undefined && { maxRowsPerSecond: rows }),
      ...(bytes !== undefined && { maxBytesPerSecond: bytes }),
    },
  };
}

/** How the topology maps users to units, without owners: what a link needs. */
export function userMapping(topology: Topology): {
  defaultRegion: string;
  regions: string[];
  segments: Record<string, string[]>;
} {
  return {
    defaultRegion: topology.defaultRegion,
    regions: Object.keys(topology.regions),
    segments: Object.fromEntries(
      Object.entries(topology.segments).map(([name, { members }]) => [name, members]),
    ),
  };
}

/** `main` of `mysql/main`. */
export function storeName({ kind, store }: LinkSpec): string {
  return store.slice(kind.length + 1);
}

export function dcIds(topology: Topology): DcId[] {
  return Object.keys(topology.datacenters);
}

/** @throws InterlockError BadInput that names the data centers there are. */
export function datacenter(topology: Topology, dc: DcId): Datacenter {
  if (!Object.hasOwn(topology.datacenters, dc)) {
    throw new InterlockError(
      'BadInput',
      `data center ${JSON.stringify(dc)} is not in topology ${topology.name}; expected one of ${dcIds(topology).join(', ')}`,
      { details: { field: 'dc', value: dc } },
    );
  }
  return topology.datacenters[dc]!;
}

/** The other one of the two data centers. */
export function otherDc(topology: Topology, dc: DcId): DcId {
  datacenter(topology, dc);
  return dcIds(topology).find((other) => other !== dc)!;
}

/** The MySQL store of a DC that holds the rules; its name is the same in both. */
export function controlStore(topology: Topology, dc: DcId): { name: string; store: MysqlStore } {
  const found = Object.entries(datacenter(topology, dc).stores.mysql).find(([, store]) => store.control);
  return { name: found![0], store: found![1] };
}
