const PREFIX = 'interlock-producer:';

/** The transactional id of an application instance's producer. A switchover knows it from the instance's lease, or finds it in Kafka. */
export function producerTransactionalId(application: string, instance: string): string {
  return `${PREFIX}${application}/${instance}`;
}

/** Undefined: it is of no producer of the SDK. */
export function parseProducerId(
  transactionalId: string,
): { application: string; instance: string } | undefined {
  if (!transactionalId.startsWith(PREFIX)) return undefined;
  const slash = transactionalId.indexOf('/');
  if (slash < 0) return undefined;
  return {
    application: transactionalId.slice(PREFIX.length, slash),
    instance: transactionalId.slice(slash + 1),
  };
}
