import { InterlockError, messageOf } from '../../src/errors.js';
import { readCheckpoint } from './checkpoint.js';
import { Cluster } from './client/cluster.js';
import { commitOffsets, fetchOffsets, listGroups } from './client/groups-api.js';
import type { CommittedOffset } from './client/groups-api.js';
import { offsetInCopy } from './copy-lookup.js';
import type { KafkaLinkConfig } from './link-config.js';
import { SourcePartition } from './source-partition.js';
import { TopicFilter } from './topic-filter.js';

/** What a link writes beside a position, so that it knows its own: `interlock <link> <offset at the source>`. */
export const OURS = 'interlock ';
/** A coordinator forgets positions that nobody has written for days. */
const AGAIN_MS = 60 * 60_000;

export type GroupState =
  /** The copy has the group's position. */
  | 'translated'
  /** The group has gone further at the target by itself, or as far. */
  | 'own'
  /** The group has members at the target: they say where it is. */
  | 'active';

export interface GroupPosition {
  group: string;
  topic: string;
  partition: number;
  /** At the source. */
  offset: number;
  copy: string;
  /** In the copy; null: not known yet. */
  translated: number | null;
  /** What the target has for the group; null: nothing. */
  committed: number | null;
  state: GroupState;
}

interface DuePosition {
  commit: CommittedOffset;
  position: GroupPosition;
}

export interface TranslatedPartition {
  partition: SourcePartition;
  /** Of the copy: node id; undefined: not known yet. */
  leader: number | undefined;
}

/**
 * The positions of the source's groups in what a link carries, and what the target has for them; nothing is changed.
 * For a person: it asks both clusters, and looks up in the copies what is not written there yet.
 */
export async function listGroupPositions(config: KafkaLinkConfig): Promise<GroupPosition[]> {
  const [source, target] = [new Cluster(config.source), new Cluster(config.target)];
  try {
    const { checkpoint } = await readCheckpoint(target, config.link);
    if (checkpoint === undefined) {
      throw new InterlockError(
        'Refused',
        `${config.link} has no checkpoint; run: interlock replicate start ${config.link} --from now`,
      );
    }
    const filter = new TopicFilter(config);
    const copies = new Map<string, TranslatedPartition>();
    for (const at of checkpoint.positions.filter(({ topic }) => filter.carries(topic))) {
      const copy = filter.copyOf(at.topic);
      const partition = new SourcePartition(config.from, at.topic, at.partition, copy, at);
      copies.set(partition.name, { partition, leader: undefined });
    }
    const names = [...new Set([...copies.values()].map(({ partition }) => partition.copy))];
    for (const { name, partitions } of names.length === 0 ? [] : (await target.metadata(names)).topics)
      for (const at of copies.values())
        if (at.partition.copy === name)
          at.leader = partitions.find(({ partition }) => partition === at.partition.partition)?.leader;
    const translator = new GroupTranslator(config.link, config.from, source, target, (topic, partition) =>
      copies.get(`${topic}-${partition}`),
    );
    return await translator.look();
  } finally {
    source.close();
    target.close();
  }
}

/** Keeps the positions of the source's groups, as positions in the copies, at the target: for a plain consumer there. */
export class GroupTranslator {
  /** `group topic partition` → what was translated last. */
  private readonly done = new Map<string, { offset: number; translated: number; at: number }>();
  /** Of the last round. */
  positions: GroupPosition[] = [];
  lastError: string | null = null;

  constructor(
    private readonly link: string,
    private readonly dc: string,
    private readonly source: Cluster,
    private readonly target: Cluster,
    private readonly partitionOf: (topic: string, partition: number) => TranslatedPartition | undefined,
  ) {}

  /** One round. What cannot be asked now is left to the next; the copying does not wait for it. */
  async round(): Promise<void> {
    try {
      let failure: string | null = null;
      this.positions = await this.look(
        (at, group, due) => this.commit(at, group, due),
        (error) => (failure ??= messageOf(error)),
      );
      this.lastError = failure;
    } catch (error) {
      this.lastError = messageOf(error);
    }
  }

  /**
   * @param commit what is done with positions that the target does not have as they should be
   * @param onFailure of one group; without it, the look ends
   */
  async look(
    commit: (coordinator: number, group: string, due: DuePosition[]) => Promise<void> = async () => undefined,
    onFailure?: (error: unknown) => void,
  ): Promise<GroupPosition[]> {
    const groups = (
      await Promise.all((await this.source.nodes()).map((node) => this.source.call(node, listGroups())))
    ).flat();
    const positions: GroupPosition[] = [];
    for (const group of new Set(groups)) {
      try {
        positions.push(...(await this.translate(group, commit)));
      } catch (error) {
        if (onFailure === undefined) throw error;
        onFailure(error);
      }
    }
    return positions;
  }

  private async translate(
    group: string,
    commit: (coordinator: number, group: string, due: DuePosition[]) => Promise<void>,
  ): Promise<GroupPosition[]> {
    const coordinator = await this.source.coordinator('group', group);
    const offsets = (await this.source.call(coordinator, fetchOffsets(group))).filter(
      // One that the other link has translated is no position of the group.
      ({ topic, partition, metadata }) =>
        !metadata.startsWith(OURS) && this.partitionOf(topic, partition) !== undefined,
    );
    if (offsets.length === 0) return [];
    const at = await this.target.coordinator('group', group);
    const existing = new Map(
      (await this.target.call(at, fetchOffsets(group))).map((found) => [keyOf(found), found]),
    );
    const positions: GroupPosition[] = [];
    const due: DuePosition[] = [];
    for (const committed of offsets) {
      const position = await this.position(group, committed);
      if (position === undefined) continue;
      positions.push(position);
      const found = existing.get(`${position.copy} ${position.partition}`);
      position.committed = found?.offset ?? null;
      const { translated } = position;
      if (translated === null) continue;
      const ours = found === undefined || found.metadata.startsWith(OURS);
      if (!ours && found.offset >= translated) {
        position.state = 'own';
        continue;
      }
      const key = `${group} ${keyOf(committed)}`;
      const done = this.done.get(key);
      const fresh = done !== undefined && performance.now() - done.at < AGAIN_MS;
      if (fresh && found?.offset === translated) continue;
      due.push({
        position,
        commit: {
          topic: position.copy,
          partition: position.partition,
          offset: translated,
          leaderEpoch: -1,
          metadata: `${OURS}${this.link} ${committed.offset}`,
        },
      });
    }
    if (due.length > 0) await commit(at, group, due);
    return positions;
  }

  /** Exact for what is copied, and never ahead of it. */
  private async position(group: string, committed: CommittedOffset): Promise<GroupPosition | undefined> {
    const found = this.partitionOf(committed.topic, committed.partition);
    if (found === undefined) return undefined;
    const { partition, leader } = found;
    const { topic, copy } = partition;
    const offset = Math.min(committed.offset, partition.position);
    const key = `${group} ${keyOf(committed)}`;
    const done = this.done.get(key);
    let translated = done?.offset === offset ? done.translated : partition.index.find(offset);
    if (translated === undefined && leader !== undefined && leader >= 0) {
      const of = { dc: this.dc, topic, partition: partition.partition, copy, leader };
      translated = await offsetInCopy(this.target, of, offset);
    }
    if (translated !== undefined && done?.offset !== offset)
      this.done.set(key, { offset, translated, at: -Infinity });
    return {
      ...{ group, topic, partition: partition.partition, offset: committed.offset, copy },
      ...{ translated: translated ?? null, committed: null, state: 'translated' },
    };
  }

  private async commit(coordinator: number, group: string, due: DuePosition[]): Promise<void> {
    // Hazard: a member that joins now must not be moved. Guard: the coordinator refuses positions of nobody for a group with members.
    const results = await this.target.call(
      coordinator,
      commitOffsets(
        group,
        due.map(({ commit }) => commit),
      ),
    );
    const errors = new Map(results.map((result) => [keyOf(result), result.error]));
    for (const { commit, position } of due) {
      if (errors.get(keyOf(commit)) !== 0) {
        position.state = 'active';
        continue;
      }
      position.committed = commit.offset;
      const done = this.done.get(`${group} ${position.topic} ${position.partition}`);
      if (done !== undefined) done.at = performance.now();
    }
  }
}

function keyOf({ topic, partition }: { topic: string; partition: number }): string {
  return `${topic} ${partition}`;
}
