import { Cluster } from './client/cluster.js';
import { fetchOffsets, listGroups } from './client/groups-api.js';
import type { CommittedOffset } from './client/groups-api.js';
import { OURS } from './groups.js';
import { ConsumersTail } from './consumers-tail.js';
import type { ConsumersGap } from './consumers-tail.js';
import type { KafkaLinkConfig } from './link-config.js';
import { TopicFilter } from './topic-filter.js';

/** Where a group is in a topic, and in the copy of it. */
export interface GroupReport {
  link: string;
  /** Of the group. */
  dc: string;
  group: string;
  topic: string;
  partition: number;
  /** Committed here. */
  offset: number;
  copyDc: string;
  copy: string;
  /** Committed in the copy; null: nothing. */
  translated: number | null;
  /** The offset here that `translated` stands for; null: the group has committed it by itself. */
  translatedFrom: number | null;
  /** `behind`: what the group has committed since is still to be copied, or translated. */
  state: 'translated' | 'behind' | 'own' | 'missing';
}

/** The groups of a link's source, as both clusters have them now. Changes nothing. */
export async function groupReport(config: KafkaLinkConfig): Promise<GroupReport[]> {
  const { link, from, to } = config;
  const source = new Cluster(config.source);
  const target = new Cluster(config.target);
  const filter = new TopicFilter(config);
  try {
    const nodes = await source.nodes();
    const groups = (await Promise.all(nodes.map((node) => source.call(node, listGroups())))).flat();
    const reports: GroupReport[] = [];
    for (const group of [...new Set(groups)].sort()) {
      const committed = (await offsetsOf(source, group)).filter(
        // A position that the other link has translated is no position of the group.
        ({ topic, metadata }) => filter.carries(topic) && !metadata.startsWith(OURS),
      );
      if (committed.length === 0) continue;
      const there = new Map((await offsetsOf(target, group)).map((one) => [keyOf(one), one]));
      for (const { topic, partition, offset } of committed) {
        const copy = filter.copyOf(topic);
        const found = there.get(keyOf({ topic: copy, partition }));
        const translatedFrom = ownOffset(found?.metadata, link);
        reports.push({
          ...{ link, dc: from, group, topic, partition, offset, copyDc: to, copy },
          ...{ translated: found?.offset ?? null, translatedFrom },
          state: stateOf(found, translatedFrom, offset),
        });
      }
    }
    return reports.sort((a, b) => (orderOf(a) < orderOf(b) ? -1 : 1));
  } finally {
    source.close();
    target.close();
  }
}

/** What the groups of the SDK's consumers at a link's source have left out, since it was not there any more. */
export async function consumerGaps({
  from,
  source,
}: Pick<KafkaLinkConfig, 'from' | 'source'>): Promise<(ConsumersGap & { dc: string })[]> {
  const cluster = new Cluster(source);
  try {
    const tail = new ConsumersTail(cluster);
    await tail.read(0);
    return tail.gaps().map((gap) => ({ dc: from, ...gap }));
  } finally {
    cluster.close();
  }
}

async function offsetsOf(cluster: Cluster, group: string): Promise<CommittedOffset[]> {
  return cluster.call(await cluster.coordinator('group', group), fetchOffsets(group));
}

function ownOffset(metadata: string | undefined, link: string): number | null {
  const prefix = `${OURS}${link} `;
  return metadata?.startsWith(prefix) === true ? Number(metadata.slice(prefix.length)) : null;
}

function stateOf(
  found: CommittedOffset | undefined,
  translatedFrom: number | null,
  offset: number,
): GroupReport['state'] {
  if (found === undefined) return 'missing';
  if (translatedFrom === null) return 'own';
  return translatedFrom >= offset ? 'translated' : 'behind';
}

function keyOf({ topic, partition }: { topic: string; partition: number }): string {
  return `${topic} ${partition}`;
}

function orderOf({ group, topic, partition }: GroupReport): string {
  return `${group} ${topic} ${String(partition).padStart(8, '0')}`;
}
