import { messageOf } from '../../../src/errors.js';
import type { Relay } from '../../support/relay.js';
import type { LinkSupervisor } from './link-supervisor.js';
import type { Random } from './random.js';

export interface Victims {
  links: Record<string, LinkSupervisor>;
  servers: Record<
    string,
    { pid: () => number; kill: (signal: 'SIGKILL') => Promise<void>; restart: () => Promise<void> }
  >;
  /** Between a link and one of its servers. */
  relays: Record<string, Relay>;
}

export interface FaultCounts {
  'link killed': number;
  'link paused': number;
  'two processes of a link': number;
  'server killed': number;
  'server paused': number;
  'connections reset': number;
  'network black-holed': number;
}
type Fault = keyof FaultCounts;

/** Kills among the faults. */
export const killsOf = (counts: FaultCounts): number => counts['link killed'] + counts['server killed'];

const GAP_MS = { least: 100, most: 1_200 };
const MOST_AT_ONCE = 2;
const WEIGHTS: readonly (readonly [number, Fault])[] = [
  [10, 'link killed'],
  [4, 'server killed'],
  [3, 'two processes of a link'],
  [3, 'connections reset'],
  [2, 'link paused'],
  [1, 'server paused'],
  [1, 'network black-holed'],
];

/** Random faults, one after the other and two at once; the same ones for the same seed, as far as they do not depend on how long a server starts. */
export class FaultInjector {
  readonly counts: FaultCounts = {
    'link killed': 0,
    'link paused': 0,
    'two processes of a link': 0,
    'server killed': 0,
    'server paused': 0,
    'connections reset': 0,
    'network black-holed': 0,
  };
  private readonly busy = new Map<string, Promise<void>>();
  private failure: Error | undefined;

  constructor(
    private readonly victims: Victims,
    private readonly random: Random,
    private readonly say: (line: string) => void,
  ) {}

  /** Until `done` says so, and everything is mended. */
  async run(done: (counts: FaultCounts) => boolean): Promise<void> {
    while (!done(this.counts) && this.failure === undefined) {
      this.begin();
      await sleep(this.random.between(GAP_MS.least, GAP_MS.most));
      while (this.busy.size >= MOST_AT_ONCE) await Promise.race(this.busy.values());
    }
    await Promise.all(this.busy.values());
    if (this.failure !== undefined) throw this.failure;
  }

  private begin(): void {
    const { victims, random } = this;
    const fault = random.weighted(WEIGHTS);
    const names = Object.keys(
      fault.includes('server') ? victims.servers : /link/.test(fault) ? victims.links : victims.relays,
    );
    const name = names[random.int(names.length)]!;
    const ms = random.between(200, 2_500);
    // Longer than a link waits for a sign of life.
    const longMs = random.between(1_000, 9_000);
    const flag = random.int(2) === 1;
    // One fault at a time per victim; what depends on how long others take must not change what is drawn.
    if (this.busy.has(name)) return;
    this.counts[fault] += 1;
    this.say(`${fault}: ${name}`);
    const running = this.inflict(fault, name, ms, longMs, flag)
      .catch((error: unknown) => {
        this.failure ??= new Error(`${fault}: ${name}: ${messageOf(error)}`, { cause: error });
      })
      .then(() => void this.busy.delete(name));
    this.busy.set(name, running);
  }

  private async inflict(
    fault: Fault,
    name: string,
    ms: number,
    longMs: number,
    flag: boolean,
  ): Promise<void> {
    const { links, servers, relays } = this.victims;
    switch (fault) {
      case 'link killed':
        links[name]!.kill();
        return;
      case 'link paused': {
        const wake = links[name]!.pause();
        await sleep(longMs);
        wake();
        return;
      }
      case 'two processes of a link':
        await links[name]!.duel(flag);
        return;
      case 'server killed':
        await servers[name]!.kill('SIGKILL');
        if (flag) await sleep(ms);
        await servers[name]!.restart();
        return;
      case 'server paused':
        process.kill(servers[name]!.pid(), 'SIGSTOP');
        await sleep(longMs);
        process.kill(servers[name]!.pid(), 'SIGCONT');
        return;
      case 'connections reset':
        relays[name]!.reset();
        return;
      case 'network black-holed':
        relays[name]!.silence();
        await sleep(longMs);
        relays[name]!.heal();
        return;
    }
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
