import { setTimeout as sleep } from 'node:timers/promises';
import { heartbeat } from '@temporalio/activity';
import { parseLinkId } from '../replicators/core/contract.js';
import type { KafkaMember } from '../replicators/kafka/member.js';
import { InterlockError, isInterlockError, messageOf } from '../src/errors.js';
import type { Member } from '../src/kafka/consumer-records.js';
import type { InstanceView } from '../src/rule-center/api.js';
import type { LinkMarker, WriteDisableInput } from '../workflows/contract.js';
import { within } from './announce.js';
import type { DatacenterDeps } from './dependencies.js';
import { allOrForemost } from './failures.js';
import { kafkaMember, relaysOf } from './links.js';

const ASK_LIMIT_MS = 3_000;
/** What an instance may take to finish what is under way; then its producers and consumers are fenced in Kafka, and that is undone or comes again. */
const ACKNOWLEDGE_MS = 500;
/** For what happens in other processes: a rule center, instances, relays. */
const POLL_MS = 10;
const HEARTBEAT_MS = 1_000;

/**
 * The Kafka part of the steps 4 and 5, when the units are fenced in every other store: from here on no outbox row and no event of theirs begins.
 * When the relays have sent the rows of before, and the producers of the SDK have finished or are fenced, nothing of these units is added to a topic
 * any more: the positions of the consumers are handed over, and the markers are written. So who meets a marker at the target has all of it.
 * Nothing here has to be undone: a producer or a consumer that lives takes its id again, a hand-over counts only where the units open, and a
 * marker that nobody waits for says nothing.
 */
export async function writeKafkaBaseline(
  deps: DatacenterDeps,
  input: WriteDisableInput,
): Promise<(LinkMarker & { position: string })[]> {
  const { epoch, units, holder } = input;
  const links = kafkaLinks(deps, input);
  if (links.length === 0) return [];
  const begunAt = performance.now();
  const deadline = begunAt + input.drainTimeoutMs;
  // Each step, when it had ended: from the fence of the other stores.
  const steps: Record<string, number> = {};
  const ended = (step: string): void => void (steps[step] = Math.round(performance.now() - begunAt));
  const beat = setInterval(heartbeat, HEARTBEAT_MS);
  try {
    const sources = links.map(({ member }) => member);
    const producers = endProducers(deps, input, sources);
    await allOrForemost([
      relaysDrained(deps, input, deadline).then(() => ended('relays')),
      producers.then(() => ended('producers')),
    ]);
    const hasAcknowledged = await producers;
    const undecidedMs = deadline - performance.now();
    const handedOver = await allOrForemost(
      links.map(({ link: { link }, member, target }) =>
        member.handOverConsumers(target, { link, epoch, units, hasAcknowledged, undecidedMs, ended }),
      ),
    );
    const { workflowId, runId } = holder;
    const written = await allOrForemost(
      links.map(async ({ link, member }) => ({
        ...link,
        position: await member.writeMarker({ id: link.markerId, workflowId, runId }),
      })),
    );
    ended('markers');
    const groups = handedOver.flatMap((one) => one.groups);
    const consumers = handedOver.flatMap((one) => one.fenced);
    deps.log.info({ epoch, groups, fenced: consumers, stepsMs: steps }, 'baseline of Kafka written');
    return written;
  } finally {
    clearInterval(beat);
  }
}

/** Beside the fence of the other stores. Proves nothing, and never fails. */
export async function prepareKafka(deps: DatacenterDeps, input: WriteDisableInput): Promise<void> {
  try {
    const links = kafkaLinks(deps, input);
    const members = links.flatMap(({ member, target }) => [member, target]);
    await Promise.allSettled([
      ...members.map((member) => member.prepare()),
      // Read but for the last of it, too: where the links began.
      ...links.map(({ link, target }) => target.checkpointMarkers([link.link])),
    ]);
  } catch (error) {
    deps.log.info({ epoch: input.epoch, error: messageOf(error) }, 'Kafka is not prepared for the fence');
  }
}

function kafkaLinks(
  deps: DatacenterDeps,
  { from, to, links }: WriteDisableInput,
): { link: LinkMarker; member: KafkaMember; target: KafkaMember }[] {
  return links.flatMap((link) => {
    const member = kafkaMember(deps, from, link.link);
    return member === undefined ? [] : [{ link, member, target: kafkaMember(deps, to, link.link)! }];
  });
}

/** The relays of the source have met the marker that its store's fence has in the binlog: all rows of before are in Kafka. */
async function relaysDrained(
  deps: DatacenterDeps,
  { from, links, drainTimeoutMs }: WriteDisableInput,
  deadline: number,
): Promise<void> {
  const awaited = relaysOf(deps.topology, from).flatMap((relay) => {
    const { store } = parseLinkId(relay)!;
    const marker = links.find(({ link }) => {
      const id = parseLinkId(link);
      return id?.kind === 'mysql' && id.store === store;
    });
    return marker === undefined
      ? []
      : [{ relay, member: kafkaMember(deps, from, relay)!, id: marker.markerId }];
  });
  if (awaited.length === 0) return;
  const arrivals = deps.markers.await(awaited.map(({ id }) => id));
  try {
    for (;;) {
      const missing: string[] = [];
      for (const { relay, member, id } of awaited) {
        const [found] = await member.checkpointMarkers([relay]);
        if (found?.marker !== id) missing.push(relay);
      }
      if (missing.length === 0) return;
      if (performance.now() > deadline)
        throw new InterlockError(
          'LinkStopped',
          `${missing.join(', ')} did not relay what was written before the fence in ${drainTimeoutMs} ms: see \`interlock replicate status\``,
          { details: { links: missing } },
        );
      await arrivals.next(POLL_MS);
    }
  } finally {
    arrivals.end();
  }
}

/**
 * Before anything is fenced: ends the producers and consumers of processes that are gone, or that are paused and have lost their lease, so that the window
 * is not spent on them. One that wakes up takes its id again, and asks for the rules.
 */
export async function endAbandoned(deps: DatacenterDeps): Promise<void> {
  const members = [...(deps.kafka.get(deps.dc)?.values() ?? [])];
  if (members.length === 0) return;
  const living = await deps.ruleCenters.get(deps.dc)!.instances(AbortSignal.timeout(ASK_LIMIT_MS));
  const isLiving = isAmong(living);
  await allOrForemost(members.map((member) => member.endAbandoned(isLiving)));
}

/**
 * Every producer of the SDK has finished what it sends of these units, or Kafka refuses it.
 * @returns whether an instance has acknowledged the fence: then its consumers have finished, too
 */
async function endProducers(
  deps: DatacenterDeps,
  input: WriteDisableInput,
  members: readonly KafkaMember[],
): Promise<(instance: Member) => boolean> {
  await publishFence(deps, input);
  const instances = await acknowledged(deps, input);
  const hasAcknowledged = isAmong(instances.filter(({ epoch }) => epoch >= input.epoch));
  const fenced = await allOrForemost(
    [...new Set(members)].map((member) => member.fenceProducers(hasAcknowledged)),
  );
  const ids = fenced.flat();
  if (ids.length > 0) deps.log.info({ epoch: input.epoch, producers: ids }, 'producers fenced in Kafka');
  return hasAcknowledged;
}

function isAmong(instances: readonly Member[]): (instance: Member) => boolean {
  return ({ application, instance }) =>
    instances.some((one) => one.application === application && one.instance === instance);
}

/**
 * Hazard: a producer that was fenced takes its id again and asks the rule center, which does not know of the fence yet: it would write behind the
 * baseline. Guard: the rule center has the fence's epoch, or a higher one, before any producer is fenced; without its word there is no baseline.
 */
async function publishFence(
  deps: DatacenterDeps,
  { from, epoch, rules, units }: WriteDisableInput,
): Promise<void> {
  const ruleCenter = deps.ruleCenters.get(from)!;
  const published = ruleCenter
    .publish(rules, { signal: AbortSignal.timeout(ASK_LIMIT_MS), committed: true })
    .then(
      () => true,
      (error: unknown) => {
        if (isInterlockError(error, 'StaleEpoch')) return true;
        throw error;
      },
    );
  published.catch(() => undefined);
  // Its answer comes when the gateways have the rules, too.
  while ((await within(published, POLL_MS)) !== true) {
    const seen = await ruleCenter.owns(units[0]!, AbortSignal.timeout(ASK_LIMIT_MS));
    if (seen.epoch >= epoch) return;
  }
}

/** The living instances, when all have the fence's epoch, or have had the time for it. */
async function acknowledged(
  deps: DatacenterDeps,
  { from, epoch }: WriteDisableInput,
): Promise<InstanceView[]> {
  const ruleCenter = deps.ruleCenters.get(from)!;
  const deadline = performance.now() + ACKNOWLEDGE_MS;
  for (;;) {
    const instances = await ruleCenter.instances(AbortSignal.timeout(ASK_LIMIT_MS));
    const missing = instances.filter((one) => one.epoch < epoch);
    if (missing.length === 0) return instances;
    if (performance.now() > deadline) {
      deps.log.info({ epoch, instances: missing }, `fence not acknowledged in ${ACKNOWLEDGE_MS} ms`);
      return instances;
    }
    await sleep(POLL_MS);
  }
}
