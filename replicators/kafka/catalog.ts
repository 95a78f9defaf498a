import { InterlockError } from '../../src/errors.js';
import type { Cluster } from './client/cluster.js';
import { byLeader, listOffsets } from './client/data-api.js';
import type { TopicMetadata } from './client/metadata-api.js';
import { KafkaError, isKafkaError } from './client/protocol-errors.js';
import { alterConfigs, createPartitions, createTopics, describeConfigs } from './client/topics-api.js';
import type { TopicConfig, TopicResult } from './client/topics-api.js';
import type { TopicFilter } from './topic-filter.js';

/** Of the cluster that a topic is in, or of how it takes what is written: a copy has its own. */
const NOT_FOLLOWED = new Set([
  'follower.replication.throttled.replicas',
  'leader.replication.throttled.replicas',
  'min.insync.replicas',
  'unclean.leader.election.enable',
  'max.message.bytes',
  'remote.storage.enable',
  'remote.log.copy.disable',
  'remote.log.delete.on.disable',
]);
/** A copy keeps the time of its original, however old that is. */
const OF_A_COPY: Record<string, string> = {
  'message.timestamp.type': 'CreateTime',
  'message.timestamp.before.max.ms': String(2n ** 63n - 1n),
  'message.timestamp.after.max.ms': String(2n ** 63n - 1n),
};
/** What the header of the origin may add to a batch of one record, generously. */
const HEADER_ROOM = 2048;
/** A large record that Zstandard has made small may be larger in gzip; where it is so many times as large, the link stops. */
const CODEC_ROOM = 10;
const ALREADY_EXISTS = 36;
const UNKNOWN = 3;
const NOT_LEADER = 6;
const TOPICS_AT_ONCE = 100;
/** A broker makes some hundred new partitions in seconds, a busy one in a minute. */
const APPEAR_MS = 120_000;
const LOOK_MS = 500;

export interface CarriedTopic {
  source: TopicMetadata;
  copy: TopicMetadata;
  /** For batches of more than one record: no larger than the source's. */
  maxBatchBytes: number;
}

/** The topics of the source that a link carries, and their copies: made, widened and configured as the source's are. */
export class Catalog {
  /** What was set last, so that an operator's own change of the copy is not undone until the source changes. */
  private readonly configured = new Map<string, string>();

  constructor(
    private readonly source: Cluster,
    private readonly target: Cluster,
    private readonly filter: TopicFilter,
    /** @throws for a topic of which the copy had records */
    private readonly requireUncopied: (topic: string, copy: string) => void,
  ) {}

  /** Brings the copies up to the source's topics. @returns what can be copied now */
  async follow(): Promise<CarriedTopic[]> {
    const found = (await this.source.metadata(null)).topics.filter(
      (topic) => !topic.internal && topic.error === 0 && this.filter.carries(topic.name),
    );
    const wanted = await this.wantedConfigs(found.map(({ name }) => name));
    // Deleted since the list was made.
    const topics = found.filter(({ name }) => wanted.has(name));
    const names = topics.map(({ name }) => this.filter.copyOf(name));
    let copies = await this.lookUp(names);
    const missing = topics.filter(({ name }) => !copies.has(this.filter.copyOf(name)));
    const narrow = topics.filter(({ name, partitions }) => {
      const copy = copies.get(this.filter.copyOf(name));
      return copy !== undefined && copy.partitions.length < partitions.length;
    });
    await this.create(missing, wanted);
    await this.widen(narrow);
    if (missing.length + narrow.length > 0) copies = await this.appear(topics);
    await this.configure(
      topics.filter((topic) => !missing.includes(topic)),
      wanted,
    );
    return topics.flatMap((source) => {
      const copy = copies.get(this.filter.copyOf(source.name));
      const maxBatchBytes = Math.floor(Number(wanted.get(source.name)!['max.message.bytes']) / CODEC_ROOM);
      return copy === undefined ? [] : [{ source, copy, maxBatchBytes }];
    });
  }

  private async lookUp(names: string[]): Promise<Map<string, TopicMetadata>> {
    if (names.length === 0) return new Map();
    const { topics } = await this.target.metadata(names);
    return new Map(topics.filter(({ error }) => error === 0).map((topic) => [topic.name, topic]));
  }

  private async create(topics: TopicMetadata[], wanted: Map<string, Record<string, string>>): Promise<void> {
    for (const some of slices(topics)) {
      const copies = some.map(({ name, partitions }) => ({
        name: this.filter.copyOf(name),
        partitions: partitions.length,
        configs: wanted.get(name)!,
      }));
      // Hazard: a copy that is gone would be made anew, without what is behind the link's position. A broker that does not know a copy yet
      // shows none either. Guard: the controller is asked.
      const lacking = await this.target.onController(createTopics(copies, true));
      for (const { name } of some) {
        const copy = this.filter.copyOf(name);
        if (lacking.some(({ topic, error }) => topic === copy && error === undefined))
          this.requireUncopied(name, copy);
      }
      requireDone(await this.target.onController(createTopics(copies)), ALREADY_EXISTS);
      for (const { name } of some) this.configured.set(name, JSON.stringify(wanted.get(name)));
    }
  }

  private async widen(topics: TopicMetadata[]): Promise<void> {
    for (const some of slices(topics)) {
      const wider = some.map(({ name, partitions }) => ({
        name: this.filter.copyOf(name),
        partitions: partitions.length,
      }));
      // 37: another process of this link was first.
      requireDone(await this.target.onController(createPartitions(wider)), 37);
    }
  }

  /** Waits until every copy has the partitions, each with a leader that takes records. */
  private async appear(topics: TopicMetadata[]): Promise<Map<string, TopicMetadata>> {
    const deadline = performance.now() + APPEAR_MS;
    for (let wait = 20; ; wait = Math.min(wait * 2, LOOK_MS)) {
      const copies = await this.lookUp(topics.map(({ name }) => this.filter.copyOf(name)));
      const late = topics.find(({ name, partitions }) => {
        const copy = copies.get(this.filter.copyOf(name));
        return (
          copy === undefined ||
          copy.partitions.length < partitions.length ||
          copy.partitions.some(({ leader }) => leader < 0)
        );
      });
      if (late === undefined && (await this.isLed([...copies.values()]))) return copies;
      if (performance.now() > deadline) {
        throw new InterlockError(
          'Unavailable',
          `${late === undefined ? 'a copy' : this.filter.copyOf(late.name)} is not complete after ${APPEAR_MS} ms`,
          { retryable: true },
        );
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  /**
   * Hazard: a broker names the leader of a partition before that broker leads it. What is written then is refused, and the transaction cannot be
   * undone until it does.
   */
  private async isLed(copies: TopicMetadata[]): Promise<boolean> {
    const partitions = copies.flatMap(({ name, partitions: of }) =>
      of.map(({ partition, leader }) => ({ topic: name, partition, leader, leaderEpoch: -1 })),
    );
    const listed = await Promise.all(
      [...byLeader(partitions)].map(([leader, of]) =>
        this.target.call(leader, listOffsets(of, 'latest', false)),
      ),
    );
    for (const { topic, partition, error } of listed.flat()) {
      if (error !== 0 && error !== UNKNOWN && error !== NOT_LEADER)
        throw new KafkaError(error, `the end of ${topic}-${partition}`);
    }
    return listed.flat().every(({ error }) => error === 0);
  }

  /** By the name of the source's topic. */
  private async wantedConfigs(names: string[]): Promise<Map<string, Record<string, string>>> {
    const wanted = new Map<string, Record<string, string>>();
    for (const { topic, configs } of await describe(this.source, names)) {
      const own = configs.filter(({ name, ofTopic, value }) => {
        return ofTopic && value !== null && !NOT_FOLLOWED.has(name) && !(name in OF_A_COPY);
      });
      const largest = Number(configs.find(({ name }) => name === 'max.message.bytes')?.value ?? 2 ** 20);
      wanted.set(topic, {
        ...Object.fromEntries(own.map(({ name, value }) => [name, value!])),
        ...OF_A_COPY,
        'max.message.bytes': String(Math.min((largest + HEADER_ROOM) * CODEC_ROOM, 2 ** 31 - 1)),
      });
    }
    return wanted;
  }

  private async configure(
    topics: TopicMetadata[],
    wanted: Map<string, Record<string, string>>,
  ): Promise<void> {
    const changed = topics.filter(
      ({ name }) => this.configured.get(name) !== JSON.stringify(wanted.get(name)),
    );
    const byCopy = new Map(changed.map(({ name }) => [this.filter.copyOf(name), wanted.get(name)!]));
    const changes = (await describe(this.target, [...byCopy.keys()])).flatMap(({ topic, configs }) => {
      const difference = differenceOf(byCopy.get(topic)!, configs);
      return Object.keys(difference).length === 0 ? [] : [{ topic, configs: difference }];
    });
    for (const some of slices(changes)) requireDone(await this.target.onController(alterConfigs(some)));
    for (const { name } of changed) this.configured.set(name, JSON.stringify(wanted.get(name)));
  }
}

/** What has to be set, and (null) what has to be taken away. */
function differenceOf(wanted: Record<string, string>, found: TopicConfig[]): Record<string, string | null> {
  const own = new Map(found.filter(({ ofTopic }) => ofTopic).map(({ name, value }) => [name, value]));
  const known = new Set(found.map(({ name }) => name));
  const difference: Record<string, string | null> = {};
  // A setting of a newer Kafka is no reason to stop.
  for (const [name, value] of Object.entries(wanted))
    if (own.get(name) !== value && known.has(name)) difference[name] = value;
  for (const name of own.keys()) if (!(name in wanted) && !NOT_FOLLOWED.has(name)) difference[name] = null;
  return difference;
}

/** Topics that are gone are left out. */
async function describe(
  cluster: Cluster,
  names: string[],
): Promise<{ topic: string; configs: TopicConfig[] }[]> {
  const described: { topic: string; configs: TopicConfig[] }[] = [];
  for (const some of slices(names)) {
    for (const { topic, error, configs } of await cluster.onController(describeConfigs(some))) {
      if (error === undefined) described.push({ topic, configs });
      else if (!isKafkaError(error, UNKNOWN)) throw error;
    }
  }
  return described;
}

function requireDone(results: TopicResult[], ...fine: number[]): void {
  for (const { error } of results)
    if (error instanceof KafkaError && !fine.includes(error.number)) throw error;
}

function slices<T>(items: T[]): T[][] {
  const some: T[][] = [];
  for (let i = 0; i < items.length; i += TOPICS_AT_ONCE) some.push(items.slice(i, i + TOPICS_AT_ONCE));
  return some;
}
