import { startProgram } from '../../support/programs.js';
import type { Program } from '../../support/programs.js';

const RESPAWN_MS = 100;
const DUEL_MS = 120_000;

/** Keeps one process with the link running, as Temporal does: one that is gone is started again. */
export class LinkSupervisor {
  /** Processes that were started. */
  starts = 0;
  /** Processes that ended because another one had taken the link over. */
  superseded = 0;
  /** What the link stopped on, when it does not go on by itself. */
  failure: string | undefined;
  private program!: Program;
  private stopped = false;
  private duelling = false;
  private readonly seen: Program[] = [];

  constructor(
    private readonly name: string,
    private readonly configFile: string,
    private readonly script = 'test/support/link-process.js',
    /** What an operator does when a link has stopped on these words; undefined: nothing. Does not reject. */
    private readonly operator: (words: string) => Promise<void> | undefined = () => undefined,
  ) {
    this.program = this.spawn();
  }

  private spawn(): Program {
    this.starts += 1;
    const program = startProgram(this.script, [this.configFile]);
    this.seen.push(program);
    void program.ended.then(() => this.onEnd(program));
    return program;
  }

  private onEnd(program: Program): void {
    const how = /^ended (\w+) (\w+) (.*)$/m.exec(program.output());
    const superseded = how?.[1] === 'HeldByOther';
    const mending = how?.[1] === 'NeedsOperator' ? this.operator(how[3]!) : undefined;
    // A process that was killed says nothing; what the link stopped on, nobody may pass over.
    if (superseded) this.superseded += 1;
    else if (how !== null && how[2] === 'final' && mending === undefined)
      this.failure ??= `${this.name}: ${how[1]}: ${how[3]}`;
    else if (how === null && program.child.signalCode === null && !this.stopped)
      this.failure ??= `${this.name}: its process ended:\n${program.output().slice(-2000)}`;
    if (this.duelling || program !== this.program || this.stopped || this.failure !== undefined) return;
    const again = (): void => {
      if (program === this.program && !this.stopped) this.program = this.spawn();
    };
    setTimeout(() => void Promise.resolve(mending).then(again), RESPAWN_MS);
  }

  kill(): void {
    this.program.child.kill('SIGKILL');
  }

  pause(): () => void {
    const { child } = this.program;
    child.kill('SIGSTOP');
    return () => void child.kill('SIGCONT');
  }

  /**
   * A second process runs the link beside the first, paused or not. One of them takes it over, mostly the second; the other must find out by
   * itself, and end.
   */
  async duel(paused: boolean): Promise<void> {
    const first = this.program;
    const wake = paused ? this.pause() : () => undefined;
    const second = this.spawn();
    this.duelling = true;
    const streaming = second.prints('state streaming', DUEL_MS).catch(() => undefined);
    await Promise.race([streaming, second.ended]);
    wake();
    const timer = setTimeout(() => {
      this.failure ??= `${this.name}: two processes run it, and neither notices`;
      first.child.kill('SIGKILL');
    }, DUEL_MS);
    await Promise.race([first.ended, second.ended]);
    clearTimeout(timer);
    this.duelling = false;
    this.program = isGone(first) ? second : first;
    if (isGone(this.program)) this.onEnd(this.program);
  }

  /** Waits until a process of the link says that the marker is committed. */
  async reaches(marker: string, timeoutMs: number): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (!this.seen.some((program) => program.output().includes(`marker ${marker}`))) {
      if (this.failure !== undefined) throw new Error(this.failure);
      if (Date.now() > deadline)
        throw new Error(
          `${this.name} does not reach its marker in ${timeoutMs} ms:\n${this.program.output().slice(-2000)}`,
        );
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.seen.map((program) => program.kill('SIGKILL')));
  }
}

function isGone({ child }: Program): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}
