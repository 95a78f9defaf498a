import type { LinkCheckpoint } from '../../src/fence/unit-fence.js';
import type { Member } from '../../src/kafka/consumer-records.js';
import type { DcId } from '../../src/routing/units.js';
import { checkpointPartition } from './checkpoint.js';
import { CheckpointTail } from './checkpoint-tail.js';
import { Cluster } from './client/cluster.js';
import type { KafkaAddress } from './client/connection.js';
import { ConsumersTail } from './consumers-tail.js';
import { fenceAll, fenceProducers, isProducerOf } from './fence-producers.js';
import { handOverConsumers, leftNow } from './hand-over-consumers.js';
import type { ConsumerHandOver, HandedOver } from './hand-over-consumers.js';
import { writeMarker } from './markers.js';
import type { MarkerRecord } from './markers.js';
import { uncopiedWords, worstUncopied } from './uncopied.js';

interface Open {
  cluster: Cluster;
  tail: { checkpoints: CheckpointTail; consumers: ConsumersTail };
}

/** One Kafka store in a switchover. It has no units: what is written into it is fenced at its producers, and what was written has an end. */
export class KafkaMember {
  /** Names the store in messages: `dc-a kafka/events`. */
  readonly name: string;
  private open: Open | undefined;

  constructor(
    readonly dc: DcId,
    readonly store: string,
    private readonly address: KafkaAddress,
  ) {
    this.name = `${dc} kafka/${store}`;
  }

  /** The cluster's own id. */
  identity(): Promise<string> {
    return this.ask(async ({ cluster }) => (await cluster.metadata([])).clusterId);
  }

  /** How far links into this store have come. */
  checkpointMarkers(links: readonly string[]): Promise<LinkCheckpoint[]> {
    return this.ask(async ({ tail }) => {
      const found: LinkCheckpoint[] = [];
      for (const link of links) {
        const record = await tail.checkpoints.read(link, checkpointPartition(link));
        if (record?.about === undefined) continue;
        const { generation, marker } = record.about;
        const open = { conflicts: 0, quarantined: 0 };
        found.push({ link, generation, position: '', marker: marker?.id ?? null, ...open });
      }
      return found;
    });
  }

  /** Before a fence: what it needs is connected to, and read but for the last of it. */
  prepare(): Promise<void> {
    return this.ask(async ({ tail }) => void (await tail.consumers.read(0)));
  }

  /** Fences the producers and consumers of instances that are gone. @returns transactional ids */
  endAbandoned(isLiving: (instance: Member) => boolean): Promise<string[]> {
    return this.ask(async ({ cluster, tail }) => {
      await tail.consumers.read(0);
      const consumers = tail.consumers.heldBy((holder) => holder !== undefined && !isLiving(holder));
      return fenceAll(cluster, (id) => consumers.has(id) || isProducerOf(id, (one) => !isLiving(one)));
    });
  }

  /** @returns transactional ids: see `fenceProducers` */
  fenceProducers(hasAcknowledged: (instance: Member) => boolean): Promise<string[]> {
    return this.ask(({ cluster }) => fenceProducers(cluster, hasAcknowledged));
  }

  /** Where the groups of this store stand with some units, to the same store of the new owner. */
  handOverConsumers(to: KafkaMember, of: Omit<ConsumerHandOver, 'from' | 'to'>): Promise<HandedOver> {
    return this.ask(({ cluster, tail }) =>
      to.ask((there) =>
        handOverConsumers({
          from: { dc: this.dc, cluster, tail: tail.consumers },
          to: { dc: to.dc, cluster: there.cluster, checkpoints: there.tail.checkpoints },
          ...of,
        }),
      ),
    );
  }

  /**
   * Before a fence: whether a hand-over of these units would be refused now, and why. Changes nothing.
   * @returns undefined: it would not
   */
  uncopied(
    to: KafkaMember,
    { link, units }: Pick<ConsumerHandOver, 'link' | 'units'>,
  ): Promise<string | undefined> {
    return this.ask(({ cluster, tail }) =>
      to.ask(async (there) => {
        await tail.consumers.read(0);
        const from = { dc: this.dc, cluster };
        const groups = await leftNow({ ...from, tail: tail.consumers }, to.dc, units);
        const question = { link, from, checkpoints: there.tail.checkpoints };
        const worst = await worstUncopied(question, groups);
        return worst && uncopiedWords(question, worst);
      }),
    );
  }

  /** After everything that the baseline is to contain. @returns where in the markers' topic it is */
  writeMarker(marker: MarkerRecord): Promise<string> {
    return this.ask(({ cluster }) => writeMarker(cluster, marker));
  }

  close(): void {
    this.open?.cluster.close();
    this.open = undefined;
  }

  /** The connections stay open for the next question; after a failure they are made anew. */
  private async ask<T>(question: (open: Open) => Promise<T>): Promise<T> {
    const open = (this.open ??= openOf(this.address));
    try {
      return await question(open);
    } catch (error) {
      open.cluster.close();
      if (this.open === open) this.open = undefined;
      throw error;
    }
  }
}

function openOf(address: KafkaAddress): Open {
  const cluster = new Cluster(address);
  return {
    cluster,
    tail: { checkpoints: new CheckpointTail(cluster), consumers: new ConsumersTail(cluster) },
  };
}
