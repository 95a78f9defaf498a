import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { labDown, labInfo, labKill, labLog, labStart, labUp } from '../../infra/lab/lab.js';
import type { LabInfo } from '../../infra/lab/lab.js';
import { labDirectory } from '../../infra/lab/options.js';
import type { LabShape } from '../../infra/lab/options.js';
import { InterlockError } from '../errors.js';
import { EXIT, durationFlag, integerFlag, print, printJson, progress, table } from './output.js';

interface LabFlags {
  state?: string;
  json?: boolean;
}

interface UpFlags extends LabFlags {
  mysql?: LabShape['mysql'];
  stores?: number;
  redis?: number;
  kafka?: number;
  gateways?: number;
  rtt?: number;
  portBase?: number;
}

/** `interlock lab …`: two data centers on this machine. */
export function register(program: Command): void {
  const lab = program
    .command('lab')
    .description(
      'two data centers on this machine: MySQL, Redis, Kafka, gateway, rule center and worker each, and a Temporal',
    );
  const command = (name: string, description: string): Command =>
    lab
      .command(name)
      .description(description)
      .option('--state <dir>', 'where the lab lives (default: $INTERLOCK_LAB, else ~/.cache/interlock/lab)')
      .option('--json', 'one JSON document on stdout');

  command('up', 'makes and starts it; starts what does not run')
    .option('--mysql <flavour>', 'mysql or mariadb')
    .option('--stores <n>', 'MySQL stores per DC', integerFlag('--stores', 1, 4))
    .option('--redis <n>', 'Redis stores per DC', integerFlag('--redis', 0, 4))
    .option('--kafka <n>', 'Kafka stores per DC (0 without it)', integerFlag('--kafka', 0, 1))
    .option('--gateways <n>', 'gateways per DC', integerFlag('--gateways', 1, 8))
    .option('--rtt <time>', 'round-trip time between the DCs, such as 10ms', durationFlag('--rtt'))
    .option('--port-base <n>', 'choose new ports from here on', integerFlag('--port-base', 1024, 60_000))
    .action(async (flags: UpFlags) => {
      const shape: Partial<LabShape> = {
        ...(flags.mysql === undefined ? {} : { mysql: flags.mysql }),
        ...(flags.stores === undefined ? {} : { stores: flags.stores }),
        ...(flags.redis === undefined ? {} : { redis: flags.redis }),
        ...(flags.kafka === undefined ? {} : { kafka: flags.kafka }),
        ...(flags.gateways === undefined ? {} : { gatewaysPerDc: flags.gateways }),
        ...(flags.rtt === undefined ? {} : { rttMs: flags.rtt }),
      };
      const info = await labUp({
        shape,
        progress,
        ...(flags.state === undefined ? {} : { directory: flags.state }),
        ...(flags.portBase === undefined ? {} : { portBase: flags.portBase }),
      });
      if (flags.json === true) printJson(info);
      else printLab(info);
    });

  command('down', 'ends all of it; what it stored stays')
    .option('--wipe', 'also forget its data, ports and secrets')
    .action(async (flags: LabFlags & { wipe?: boolean }) => {
      await labDown({ ...at(flags), wipe: flags.wipe === true, progress });
      if (flags.json === true)
        printJson({ directory: labDirectory(flags.state), wiped: flags.wipe === true });
      else
        print(
          flags.wipe === true ? 'The lab is gone.' : 'The lab is down; `interlock lab up` starts it again.',
        );
    });

  command('status', 'what runs, and where').action((flags: LabFlags) => {
    const info = existing(flags);
    if (flags.json === true) printJson(info);
    else printLab(info);
    if (info.parts.some((part) => part.status !== 'running')) process.exitCode = EXIT.failed;
  });

  command('env', 'what a shell needs to use it: eval "$(interlock lab env)"').action((flags: LabFlags) => {
    const { env } = existing(flags);
    if (flags.json === true) printJson(env);
    else for (const [name, value] of Object.entries(env)) print(`export ${name}=${quoted(value)}`);
  });

  command('logs <name>', 'the end of a part’s log')
    .option('-n, --lines <n>', 'how many lines', integerFlag('--lines', 1, 100_000), 100)
    .option('-f, --follow', 'go on with what is added')
    .action(async (name: string, flags: LabFlags & { lines: number; follow?: boolean }) => {
      const file = labLog(name, flags.state);
      if (!existsSync(file))
        throw new InterlockError('Refused', `${name} has not written a log yet (${file})`);
      if (flags.json === true) {
        if (flags.follow === true) {
          throw new InterlockError(
            'BadInput',
            '--follow: a log that goes on is no JSON document; leave out one of --follow and --json',
            {
              details: { field: '--follow' },
            },
          );
        }
        const lines = (await readFile(file, 'utf8')).replace(/\n$/, '').split('\n');
        printJson({ name, lines: lines.slice(-flags.lines) });
        return;
      }
      const args = ['-n', String(flags.lines), ...(flags.follow === true ? ['-F'] : []), file];
      await new Promise<void>((resolve, reject) => {
        const tail = spawn('tail', args, { stdio: 'inherit' });
        tail.once('error', reject);
        tail.once('exit', () => resolve());
      });
    });

  command('kill <name>', 'kills one part, as a crash would')
    .option('--signal <name>', 'another signal, such as SIGTERM, SIGSTOP or SIGCONT', 'SIGKILL')
    .action(async (name: string, flags: LabFlags & { signal: string }) => {
      const signal = SIGNALS.find((known) => known === flags.signal);
      if (signal === undefined) {
        throw new InterlockError(
          'BadInput',
          `--signal ${flags.signal}: expected one of ${SIGNALS.join(', ')}`,
          {
            details: { field: 'signal' },
          },
        );
      }
      await labKill(name, { ...at(flags), signal });
      if (flags.json === true) printJson({ part: name, signal });
      else print(`${name}: ${signal} sent`);
    });

  command('start <name>', 'starts one part').action(async (name: string, flags: LabFlags) => {
    await labStart(name, { ...at(flags), progress });
    if (flags.json === true) printJson({ part: name, status: 'running' });
    else print(`${name} runs`);
  });
}

const SIGNALS = ['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGSTOP', 'SIGCONT', 'SIGHUP'] as const;

function existing(flags: LabFlags): LabInfo {
  const info = labInfo(flags.state);
  if (info === null) {
    throw new InterlockError(
      'Refused',
      `there is no lab in ${labDirectory(flags.state)}; \`interlock lab up\` makes one`,
    );
  }
  return info;
}

/** As a word of a POSIX shell. */
function quoted(value: string): string {
  return `'${value.replaceAll("'", "'\\''")}'`;
}

function at(flags: LabFlags): { directory?: string } {
  return flags.state === undefined ? {} : { directory: flags.state };
}

function printLab(info: LabInfo): void {
  print(
    table([
      ['PART', 'DC', 'KIND', 'STATUS', 'PID', 'ADDRESS'],
      ...info.parts.map((part) => [
        part.name,
        part.dc ?? '–',
        part.kind,
        part.status,
        part.pid === null ? '–' : String(part.pid),
        part.address ?? '–',
      ]),
    ]),
  );
  print('');
  if (info.webUi !== null) print(`Temporal Web UI  ${info.webUi}`);
  print(`Topology         ${info.topology}`);
  print(`To use it        export INTERLOCK_TOPOLOGY=${info.topology}   (or: eval "$(interlock lab env)")`);
}
