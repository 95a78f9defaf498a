import { setTimeout as sleep } from 'node:timers/promises';
import { parseLinkId } from '../replicators/core/contract.js';
import type { KafkaMember } from '../replicators/kafka/member.js';
import { InterlockError, isInterlockError } from '../src/errors.js';
import type { InstanceView } from '../src/rule-center/api.js';
import type { LinkMarker, WriteDisableInput } from '../workflows/contract.js';
import { within } from './announce.js';
import type { DatacenterDeps } from './dependencies.js';
import { allOrForemost } from './failures.js';

/** A gateway that is slower than this does not hold up the fence of the producers. */
const GATEWAYS_MS = 300;
const ASK_LIMIT_MS = 3_000;
/** What an instance may take to finish its sends; then its producers are fenced in Kafka, and what is under way is undone. */
const ACKNOWLEDGE_MS = 200;
const ACKNOWLEDGE_POLL_MS = 10;

/**
 * The Kafka part of the steps 4 and 5, when the units are fenced in every other store: from here on no outbox row and no event of theirs begins.
 * The producers of the SDK have finished or are fenced; then the markers are written: whoever meets one takes the ends of all topics after that.
 * Nothing here has to be undone: a producer that lives takes its id again, and a marker that nobody waits for says nothing.
 */
export async function writeKafkaBaseline(
  deps: DatacenterDeps,
  input: WriteDisableInput,
): Promise<(LinkMarker & { position: string })[]> {
  const links = input.links.flatMap((link) => {
    const member = kafkaMember(deps, input.from, link.link);
    return member === undefined ? [] : [{ link, member }];
  });
  if (links.length === 0) return [];
  await publishFence(deps, input);
  const instances = await acknowledged(deps, input);
  const hasAcknowledged = (producer: { application: string; instance: string }): boolean =>
    instances.some(
      ({ application, instance, epoch }) =>
        epoch >= input.epoch && application === producer.application && instance === producer.instance,
    );
  const fenced = await allOrForemost(
    [...new Set(links.map(({ member }) => member))].map((member) => member.fenceProducers(hasAcknowledged)),
  );
  const ids = fenced.flat();
  if (ids.length > 0) deps.log.info({ epoch: input.epoch, producers: ids }, 'producers fenced in Kafka');
  const { workflowId, runId } = input.holder;
  return allOrForemost(
    links.map(async ({ link, member }) => ({
      ...link,
      position: await member.writeMarker({ id: link.markerId, workflowId, runId }),
    })),
  );
}

/** The Kafka store of a DC that a link belongs to; undefined: it is a link of another kind. */
export function kafkaMember(
  { kafka }: Pick<DatacenterDeps, 'kafka'>,
  dc: string,
  link: string,
): KafkaMember | undefined {
  const id = parseLinkId(link);
  if (id?.kind !== 'kafka') return undefined;
  const member = kafka.get(dc)?.get(id.store);
  if (member === undefined)
    throw new InterlockError('BadInput', `${dc} has no kafka store ${JSON.stringify(id.store)}`);
  return member;
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
