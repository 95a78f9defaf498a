import { setTimeout as sleep } from 'node:timers/promises';
import { InterlockError } from '../../../src/errors.js';
import type { LabDc } from '../options.js';
import { taskPart } from '../part.js';
import type { LabContext, Part } from '../part.js';
import { gatewayAdmin } from './gateway.js';

const TIMEOUT_MS = 30_000;

/** Waits until the rule centers have given every gateway its rules: before, a gateway answers 503. */
export function routingPart(
  lab: LabContext,
  gateways: readonly { dc: LabDc; gateway: string }[],
  dependsOn: readonly string[],
): Part {
  return taskPart({
    name: 'routing',
    dependsOn,
    run: async () => {
      await Promise.all(gateways.map(({ dc, gateway }) => hasRules(lab, dc, gateway)));
    },
  });
}

async function hasRules(lab: LabContext, dc: LabDc, gateway: string): Promise<void> {
  const admin = gatewayAdmin(lab, dc, gateway);
  const deadline = Date.now() + TIMEOUT_MS;
  try {
    while ((await admin.status()).epoch === null) {
      if (Date.now() > deadline) {
        throw new InterlockError(
          'Unavailable',
          `${dc}-${gateway} has no rules after ${TIMEOUT_MS / 1000} s; see ${lab.files.log(`${dc}-rule-center`)}`,
        );
      }
      await sleep(50);
    }
  } finally {
    await admin.close();
  }
}
