import type { LinkCheckpoint } from '../../src/fence/unit-fence.js';
import type { DcId } from '../../src/routing/units.js';
import { checkpointPartition } from './checkpoint.js';
import { CheckpointTail } from './checkpoint-tail.js';
import { Cluster } from './client/cluster.js';
import type { KafkaAddress } from './client/connection.js';
import { fenceProducers } from './fence-producers.js';
import { handOverConsumers } from './hand-over-consumers.js';
import type { ConsumerHandOver, HandedOver } from './hand-over-consumers.js';
import { writeMarker } from './markers.js';
import type { MarkerRecord } from './markers.js';

/** One Kafka store in a switchover. It has no units: what is written into it is fenced at its producers, and what was written has an end. */
export class KafkaMember {
  /** Names the store in messages: `dc-a kafka/events`. */
  readonly name: string;
  private cluster: Cluster | undefined;
  private tail: CheckpointTail | undefined;

  constructor(
    readonly dc: DcId,
    readonly store: string,
    private readonly address: KafkaAddress,
  ) {
    this.name = `${dc} kafka/${store}`;
  }

  /** The cluster's own id. */
  identity(): Promise<string> {
    return this.ask(async (cluster) => (await cluster.metadata([])).clusterId);
  }

  /** How far links into this store have come. */
  checkpointMarkers(links: readonly string[]): Promise<LinkCheckpoint[]> {
    return this.ask(async (_cluster, tail) => {
      const found: LinkCheckpoint[] = [];
      for (const link of links) {
        const record = await tail.read(link, checkpointPartition(link));
        if (record?.about === undefined) continue;
        const { generation, marker } = record.about;
        const open = { conflicts: 0, quarantined: 0 };
        found.push({ link, generation, position: '', marker: marker?.id ?? null, ...open });
      }
      return found;
    });
  }

  /** @returns transactional ids: see `fenceProducers` */
  fenceProducers(hasAcknowledged: Parameters<typeof fenceProducers>[1]): Promise<string[]> {
    return fenceProducers(this.address, hasAcknowledged);
  }

  /** Where the groups of this store stand with some units, to the same store of the new owner. */
  handOverConsumers(to: KafkaMember, of: Pick<ConsumerHandOver, 'epoch' | 'units'>): Promise<HandedOver[]> {
    const end = ({ dc, address }: KafkaMember): ConsumerHandOver['from'] => ({ dc, kafka: address });
    return handOverConsumers({ from: end(this), to: end(to), ...of });
  }

  /** After everything that the baseline is to contain. @returns where in the markers' topic it is */
  writeMarker(marker: MarkerRecord): Promise<string> {
    return writeMarker(this.address, marker);
  }

  close(): void {
    this.cluster?.close();
    this.cluster = this.tail = undefined;
  }

  /** The connections stay open for the next question; after a failure they are made anew. */
  private async ask<T>(question: (cluster: Cluster, tail: CheckpointTail) => Promise<T>): Promise<T> {
    this.cluster ??= new Cluster(this.address);
    this.tail ??= new CheckpointTail(this.cluster);
    const { cluster, tail } = this;
    try {
      return await question(cluster, tail);
    } catch (error) {
      cluster.close();
      if (this.cluster === cluster) this.cluster = this.tail = undefined;
      throw error;
    }
  }
}
