import { setTimeout as sleep } from 'node:timers/promises';
import { parseLinkId } from '../replicators/core/contract.js';
import type { KafkaMember } from '../replicators/kafka/member.js';
import { InterlockError, isInterlockError } from '../src/errors.js';
import type { InstanceView } from '../src/rule-center/api.js';
import type { LinkMarker, WriteDisableInput } from '../workflows/contract.js';
import { within } from './announce.js';
import type { DatacenterDeps } from './dependencies.js';
import { allOrForemost } from './failures.js';
import { kafkaMember, relaysOf } from './links.js';

/** A gateway that is slower than this does not hold up the fence of the producers. */
const GATEWAYS_MS = 300;
const ASK_LIMIT_MS = 3_000;
/** What an instance may take to finish its sends; then its producers are fenced in Kafka, and what is under way is undone. */
const ACKNOWLEDGE_MS = 200;
const ACKNOWLEDGE_POLL_MS = 10;
/** Within the time-out of the fence's activity. A relay that takes longer keeps the units from moving: the source opens again. */
const RELAY_MS = 8_000;
/** For relays that run in another process; those of this one say when they have committed a marker. */
const RELAY_POLL_MS = 10;

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
  const { from, to, epoch, units, holder } = input;
  const links = input.links.flatMap((link) => {
    const member = kafkaMember(deps, from, link.link);
    return member === undefined ? [] : [{ link, member, target: kafkaMember(deps, to, link.link)! }];
  });
  if (links.length === 0) return [];
  await allOrForemost([
    relaysDrained(deps, input),
    endProducers(
      deps,
      input,
      links.map(({ member }) => member),
    ),
  ]);
  const handedOver = await allOrForemost(
    links.map(({ member, target }) => member.handOverConsumers(target, { epoch, units })),
  );
  for (const groups of handedOver)
    if (groups.length > 0) deps.log.info({ epoch, groups }, 'consumers handed over');
  const { workflowId, runId } = holder;
  return allOrForemost(
    links.map(async ({ link, member }) => ({
      ...link,
      position: await member.writeMarker({ id: link.markerId, workflowId, runId }),
    })),
  );
}

/** The relays of the source have met the marker that its store's fence has in the binlog: all rows of before are in Kafka. */
async function relaysDrained(deps: DatacenterDeps, { from, links }: WriteDisableInput): Promise<void> {
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
  const deadline = performance.now() + RELAY_MS;
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
          `${missing.join(', ')} did not relay what was written before the fence in ${RELAY_MS} ms: see \`interlock replicate status\``,
          { details: { links: missing } },
        );
      await arrivals.next(RELAY_POLL_MS);
    }
  } finally {
    arrivals.end();
  }
}

/**
 * Before anything is fenced: ends the producers of processes that are gone, or that are paused and have lost their lease, so that the window is not
 * spent on them. One that wakes up takes its id again, and asks for the rules.
 */
export async function endAbandonedProducers(deps: DatacenterDeps): Promise<void> {
  const members = [...(deps.kafka.get(deps.dc)?.values() ?? [])];
  if (members.length === 0) return;
  const living = await deps.ruleCenters.get(deps.dc)!.instances(AbortSignal.timeout(ASK_LIMIT_MS));
  const isLiving = (producer: { application: string; instance: string }): boolean =>
    living.some((one) => one.application === producer.application && one.instance === producer.instance);
  await allOrForemost(members.map((member) => member.fenceProducers(isLiving)));
}

/** Every producer of the SDK has finished what it sends of these units, or Kafka refuses it. */
async function endProducers(
  deps: DatacenterDeps,
  input: WriteDisableInput,
  members: readonly KafkaMember[],
): Promise<void> {
  await publishFence(deps, input);
  const instances = await acknowledged(deps, input);
  const hasAcknowledged = (producer: { application: string; instance: string }): boolean =>
    instances.some(
      ({ application, instance, epoch }) =>
        epoch >= input.epoch && application === producer.application && instance === producer.instance,
    );
  const fenced = await allOrForemost(
    [...new Set(members)].map((member) => member.fenceProducers(hasAcknowledged)),
  );
  const ids = fenced.flat();
  if (ids.length > 0) deps.log.info({ epoch: input.epoch, producers: ids }, 'producers fenced in Kafka');
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
  if ((await within(published, GATEWAYS_MS)) === true) return;
  const seen = await ruleCenter.owns(units[0]!, AbortSignal.timeout(ASK_LIMIT_MS));
  if (seen.epoch < epoch) await published;
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
    if (instances.every((one) => one.epoch >= epoch) || performance.now() > deadline) return instances;
    await sleep(ACKNOWLEDGE_POLL_MS);
  }
}
