import { InterlockError } from '../../src/errors.js';
import type { Cluster } from '../kafka/client/cluster.js';
import { partitionOf } from '../../src/kafka/partitioner.js';

interface Place {
  topic: string;
  partition: number;
  /** Node id. */
  leader: number;
}

/** Where events go. Asked once a topic and attempt: the partition of a key stays while an attempt lasts. */
export class TopicMap {
  private readonly leaders = new Map<string, number[]>();

  constructor(
    private readonly cluster: Cluster,
    private readonly relay: string,
  ) {}

  /** @throws InterlockError Unavailable: the topic is not there, or has no leader */
  async placeOf(topic: string, key: Buffer): Promise<Place> {
    let leaders = this.leaders.get(topic);
    if (leaders === undefined) this.leaders.set(topic, (leaders = await this.ask(topic)));
    const partition = partitionOf(key, leaders.length);
    return { topic, partition, leader: leaders[partition]! };
  }

  private async ask(topic: string): Promise<number[]> {
    const found = (await this.cluster.metadata([topic])).topics[0];
    const leaders: number[] = [];
    for (const { partition, leader } of found?.partitions ?? []) leaders[partition] = leader;
    if (found?.error === 0 && leaders.length > 0 && leaders.every((leader) => leader >= 0)) return leaders;
    throw new InterlockError(
      'Unavailable',
      found === undefined || found.error === 3
        ? `${this.relay} has an event for topic ${topic}, which is not there: create it; nothing is relayed until then`
        : `topic ${topic} of ${this.relay} has a partition without a leader (error ${found.error})`,
      { retryable: true, details: { relay: this.relay, topic } },
    );
  }
}
