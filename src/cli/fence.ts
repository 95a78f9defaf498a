import { userInfo } from 'node:os';
import { Option } from 'commander';
import type { Command } from 'commander';
import { InterlockError, messageOf } from '../errors.js';
import { openAllStores } from '../fence/connect.js';
import { diagnose } from '../fence/diagnosis.js';
import type { Diagnosis, Finding } from '../fence/diagnosis.js';
import { release, releaseHolder } from '../fence/release.js';
import type { BlockerPolicy } from '../fence/types.js';
import type { Rules } from '../routing/rules.js';
import { RuleCenterClient } from '../rule-center/client.js';
import { loadTopology, resolveSecret } from '../topology/load.js';
import type { Topology } from '../topology/schema.js';
import { EXIT, print, printJson, progress, table, topologyFile, topologyOption } from './output.js';

interface StatusOptions {
  topology?: string;
  json?: boolean;
}

interface ReleaseFlags extends StatusOptions {
  reason?: string;
  assertTargetFenced?: string;
  blockers: BlockerPolicy;
}

const ANNOUNCE_LIMIT_MS = 2_000;
const FOREIGN = {
  mysql: 'were asserted on another server',
  redis: 'have no state, or one of before the server was restarted or replaced,',
} as const;

/** `interlock fence status | release`: from the stores alone, so that both work with Temporal and the rule centers down. */
export function register(program: Command): void {
  const fence = program
    .command('fence')
    .description('which units are write-disabled, by whom, and the way out (works without Temporal)');
  topologyOption(fence.command('status'))
    .description('what the stores of both data centers say; exit code 3 when something needs an operator')
    .option('--json', 'print one JSON document')
    .action(status);
  topologyOption(fence.command('release'))
    .description(
      'open again what is write-disabled, after the proof that nobody else has opened it; complete what has switched',
    )
    .option('--reason <text>', 'kept with the rules')
    .option(
      '--assert-target-fenced <reason>',
      'your word that a data center that does not answer takes no writes; kept with the rules',
    )
    .addOption(
      new Option(
        '--blockers <policy>',
        'transactions that hold a unit past 2 s: kill their connections, or give up and name them',
      )
        .choices(['kill', 'give-up'])
        .default('kill'),
    )
    .option('--json', 'print one JSON document')
    .action(releaseAll);
}

async function status(options: StatusOptions): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  const stores = openAllStores(topology, resolveSecret);
  try {
    const diagnosis = await diagnose(stores);
    const troubled = isTroubled(diagnosis);
    if (options.json) {
      const { findings, stores: views, rules, current, unreachable } = diagnosis;
      printJson({
        epoch: current?.rules.epoch ?? null,
        rules,
        stores: views,
        unreachable,
        problems: [...foreignLines(diagnosis), ...readOnlyLines(diagnosis), ...unreachableLines(diagnosis)],
        findings: findings.map((finding) => ({ ...finding, todo: todo(finding) })),
      });
    } else printStatus(diagnosis);
    if (troubled) process.exitCode = EXIT.needsOperator;
  } finally {
    await Promise.all([...stores.values()].map((one) => one.close()));
  }
}

function printStatus(diagnosis: Diagnosis): void {
  const rows = [['store', 'open', 'write-disabled', 'remote', 'server']];
  for (const view of diagnosis.stores) {
    const { open, write_disabled: disabled, remote } = view.counts;
    const name = `${view.dc} ${view.kind}/${view.store}${view.control ? ' (control)' : ''}`;
    if (view.problem === null)
      rows.push([name, String(open), String(disabled), String(remote), view.server ?? '']);
    else rows.push([name, '?', '?', '?', view.problem]);
  }
  print(table(rows));
  for (const line of foreignLines(diagnosis)) print(line);
  for (const { dc, epoch } of behind(diagnosis)) {
    print(
      `${dc} has rules of epoch ${epoch ?? 'none'}, epoch ${diagnosis.current!.rules.epoch} is in force: \`interlock fence release\`.`,
    );
  }
  for (const finding of diagnosis.findings) {
    const holder =
      finding.holder === null ? 'no run' : `${finding.holder.workflowId}, run ${finding.holder.runId}`;
    print(
      `${finding.text}: ${words(finding)} since epoch ${finding.epoch}, held by ${holder}. ${todo(finding)}`,
    );
  }
  for (const { dc, store, readOnly, counts } of diagnosis.stores) {
    if (readOnly?.on === true && readOnly.wanted && counts.open + counts.write_disabled === 0)
      print(
        `${dc} mysql/${store}: read_only since epoch ${readOnly.epoch}: ${dc} was switched away from as a whole; the next switchover to it turns it off.`,
      );
  }
  for (const line of [...readOnlyLines(diagnosis), ...unreachableLines(diagnosis)]) print(line);
  if (!isTroubled(diagnosis)) {
    print(
      `Nothing is write-disabled; every unit is open in one data center. Rules of epoch ${diagnosis.current!.rules.epoch}.`,
    );
  }
}

function isTroubled(diagnosis: Diagnosis): boolean {
  return (
    diagnosis.findings.length > 0 ||
    diagnosis.unreachable.length > 0 ||
    behind(diagnosis).length > 0 ||
    foreignLines(diagnosis).length > 0 ||
    readOnlyLines(diagnosis).length > 0
  );
}

/** Stores with units whose states do not count, as they are of another server, and what to do, in sentences. */
function foreignLines({ stores }: Diagnosis): string[] {
  return stores
    .filter(({ foreign }) => foreign > 0)
    .map(
      ({ dc, kind, store, foreign }) =>
        `${dc} ${kind}/${store}: ${foreign} units ${FOREIGN[kind]} and take no writes: its rule center asserts them again when nothing speaks against it; else compare both data centers, then \`interlock rules reassert --dc ${dc}\`.`,
    );
}

/** Servers whose `read_only` is not as it should be, and what to do, in sentences. */
function readOnlyLines({ stores }: Diagnosis): string[] {
  return stores.flatMap(({ dc, store, readOnly, counts }) => {
    const at = `${dc} mysql/${store}`;
    if (readOnly === null) return [];
    if (readOnly.wanted && counts.open > 0)
      return [
        `${at}: read_only for the whole data center, and ${counts.open} units are open in it: its rule center turns it off; else \`interlock fence release\`.`,
      ];
    if (readOnly.wanted && !readOnly.on)
      return [
        `${at}: the data center is write-disabled as a whole, and read_only is off (a restart?): its rule center turns it on; else \`interlock fence release\`.`,
      ];
    if (readOnly.on && !readOnly.wanted && !readOnly.settled)
      return [
        `${at}: read_only is not off yet: its rule center turns it off; else \`interlock fence release\`.`,
      ];
    if (readOnly.on && !readOnly.wanted && counts.open > 0)
      return [
        `${at}: read_only is on, not by Interlock, and ${counts.open} units are open in it: nobody can write them. SET GLOBAL read_only = OFF.`,
      ];
    return [];
  });
}

/** What does not answer, and what to do, in sentences. */
function unreachableLines({ unreachable, stores }: Diagnosis): string[] {
  const lines = unreachable.map((dc) => {
    const silent = stores.filter((view) => view.dc === dc && view.problem !== null);
    const names = silent.map((view) => `${view.kind}/${view.store}`).join(', ');
    return `${dc}: ${names} can't be reached, so nothing is known about its units.`;
  });
  if (lines.length > 0) {
    lines.push(
      'Check that these servers run (lab: `interlock lab up`) and that the topology has their addresses and secrets, then run `interlock fence status` again.',
    );
  }
  return lines;
}

function words({ kind, owner, other }: Finding): string {
  switch (kind) {
    case 'held':
      return `write-disabled in ${owner}, not open in ${other}`;
    case 'half-switched':
      return `open in ${owner}, not yet handed over in ${other}`;
    case 'ownerless':
      return `open nowhere; ${owner} owns them`;
    case 'inconsistent':
      return `open in ${owner}, where not every store and rule says so`;
    case 'open-in-both':
      return `OPEN IN BOTH DATA CENTERS`;
    case 'unknown':
      return `write-disabled in ${owner}, and ${other} does not answer`;
  }
}

function todo({ kind, other }: Finding): string {
  switch (kind) {
    case 'held':
    case 'half-switched':
      return 'A running switchover ends this by itself (`interlock switch status`); if none runs: `interlock fence release`.';
    case 'ownerless':
    case 'inconsistent':
      return '`interlock fence release` mends it.';
    case 'open-in-both':
      return 'Stop the writers of one, compare the data, then close it there by hand.';
    case 'unknown':
      return `Bring ${other} back, or make sure that nothing writes there and run \`interlock fence release --assert-target-fenced "REASON"\`.`;
  }
}

function behind(diagnosis: Diagnosis): Diagnosis['rules'] {
  const epoch = diagnosis.current?.rules.epoch;
  return diagnosis.rules.filter((one) => !diagnosis.unreachable.includes(one.dc) && one.epoch !== epoch);
}

async function releaseAll(options: ReleaseFlags): Promise<void> {
  for (const [flag, value] of [
    ['--reason', options.reason],
    ['--assert-target-fenced', options.assertTargetFenced],
  ] as const) {
    if (value !== undefined && (value.trim() === '' || value.length > 400)) {
      throw new InterlockError('BadInput', `${flag}: expected a reason of 1 to 400 characters`, {
        details: { field: flag, value },
      });
    }
  }
  const { topology } = await loadTopology(topologyFile(options));
  const stores = openAllStores(topology, resolveSecret);
  try {
    const startedBy = userInfo().username;
    const result = await release(stores, {
      holder: releaseHolder(startedBy, new Date()),
      reason: `fence release by ${startedBy}${options.reason === undefined ? '' : `: ${options.reason}`}`,
      ...(options.assertTargetFenced === undefined ? {} : { assertTargetFenced: options.assertTargetFenced }),
      blockers: options.blockers,
      say: progress,
    });
    if (result.released.length > 0) await announce(topology, result.rules, result.unreachable);
    if (options.json) printJson({ ...result, rules: undefined, epoch: result.rules.epoch });
    else if (result.released.length === 0)
      print('Nothing to release: every unit is open in one data center.');
    else
      for (const one of result.released)
        print(`${one.text}: ${one.how}${one.owner === null ? '' : ` in ${one.owner}`}, epoch ${one.epoch}.`);
  } finally {
    await Promise.all([...stores.values()].map((one) => one.close()));
  }
}

/** The rule centers find the rules in their stores by themselves; told, their gateways have them at once. */
async function announce(topology: Topology, rules: Rules, unreachable: readonly string[]): Promise<void> {
  await Promise.all(
    Object.entries(topology.datacenters).map(async ([dc, { ruleCenter }]) => {
      if (unreachable.includes(dc)) return;
      const client = new RuleCenterClient({
        dc,
        url: ruleCenter.url,
        token: resolveSecret(ruleCenter.token),
      });
      try {
        await client.publish(rules, { signal: AbortSignal.timeout(ANNOUNCE_LIMIT_MS) });
      } catch (error) {
        progress(
          `${dc}: the rule center was not told (${messageOf(error)}); it will find epoch ${rules.epoch} by itself`,
        );
      } finally {
        await client.close();
      }
    }),
  );
}
