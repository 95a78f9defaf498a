import { Context } from '@temporalio/activity';
import type { Connection } from 'mysql2/promise';
import { linkConfigOf } from '../replicators/mysql/configure.js';
import { verifyTable } from '../replicators/mysql/verify/verifier.js';
import { InterlockError, messageOf } from '../src/errors.js';
import { newest } from '../src/fence/init.js';
import type { Rules } from '../src/routing/rules.js';
import type { SecretReference } from '../src/topology/schema.js';
import type { VerificationActivities, VerifyReport } from '../workflows/verification-contract.js';
import type { ControlDeps } from './dependencies.js';
import { allOrForemost, withFailures } from './failures.js';
import { compareStore, planStores } from './redis-verification.js';
import { planVerification } from './verification-plan.js';

export interface VerificationDeps extends Pick<ControlDeps, 'topology' | 'stores' | 'readLinkStatus'> {
  secret: (reference: SecretReference) => string;
}

/** The workflow is told how far a table is at least this often. */
const SLICE_MS = 10_000;
const BEAT_MS = 1_000;

/** The activities of verifications; on the control task queue. They reach both DCs. */
export function createVerificationActivities(deps: VerificationDeps): VerificationActivities {
  return withFailures<VerificationActivities>({
    async planVerification(request) {
      const rules = await rulesInForce(deps);
      return request.redis === undefined
        ? planVerification(deps, rules, request)
        : planStores(deps.topology, rules, request);
    },

    async compareTable({ table, links, units, repair, keep, keepLength, progress }) {
      return beating(progress, (from, watch) =>
        verifyTable(
          {
            table,
            links: links.map((link) => linkConfigOf(deps.topology, link, deps.secret)),
            rules: () => rulesInForce(deps),
            linkStatus: deps.readLinkStatus,
            ...(units !== null && { units: new Set(units) }),
            ...{ repairs: repair, keep, keepLength, ...watch },
          },
          from,
          SLICE_MS,
        ),
      );
    },

    async compareStore(input) {
      return beating(input.progress, async (from, watch) =>
        compareStore(deps, await rulesInForce(deps), input, from, SLICE_MS, watch),
      );
    },

    async recordVerification(report) {
      const all = [...deps.stores.values()];
      const kept = await Promise.allSettled(all.map((dc) => keepReport(dc.control.pool, report)));
      if (kept.some(({ status }) => status === 'fulfilled')) return;
      const reasons = kept.map((one) => (one.status === 'rejected' ? messageOf(one.reason) : ''));
      throw new InterlockError('Unavailable', `no control store took the report: ${reasons.join('; ')}`, {
        retryable: true,
      });
    },
  });
}

/**
 * Runs a comparison from where the attempt before was, with its progress in the heartbeat. Cancelled or shut down, it answers how far it is: another
 * slice goes on from there, here or elsewhere.
 */
async function beating<T>(
  progress: T,
  compare: (from: T, watch: { onProgress: (now: T) => void; signal: AbortSignal }) => Promise<T>,
): Promise<T> {
  const context = Context.current();
  let last = (context.info.heartbeatDetails as T | undefined) ?? progress;
  context.heartbeat(last);
  const beat = setInterval(() => context.heartbeat(last), BEAT_MS);
  try {
    const onProgress = (now: T): void => {
      last = now;
      context.heartbeat(now);
    };
    return await compare(last, { onProgress, signal: context.cancellationSignal });
  } finally {
    clearInterval(beat);
  }
}

async function rulesInForce(deps: VerificationDeps): Promise<Rules> {
  const stored = newest(await allOrForemost([...deps.stores.values()].map((dc) => dc.rules.current())));
  if (stored === undefined)
    throw new InterlockError('NoRules', 'there are no rules yet: run `interlock rules init`');
  return stored.rules;
}

async function keepReport(pool: Pick<Connection, 'query'>, report: VerifyReport): Promise<void> {
  await pool.query(
    `INSERT INTO interlock.verification (run_id, document, created_at) VALUES (?, ?, UTC_TIMESTAMP(6))
     ON DUPLICATE KEY UPDATE document = VALUES(document)`,
    [report.runId, JSON.stringify(report)],
  );
}
