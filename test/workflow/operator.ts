import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { interlock } from '../cli/command-line.js';
import type { Ran } from '../cli/command-line.js';
import { exampleDocument } from '../support/topology.js';
import { QUEUE } from './harness.js';
import type { Bench } from './harness.js';
import type { World } from './model.js';

/** Types command lines, as an operator of a world's topology does. Its control stores do not answer. */
export class Operator {
  private constructor(
    private readonly bench: Bench,
    private readonly directory: string,
  ) {}

  static async of(bench: Bench): Promise<Operator> {
    return new Operator(bench, await mkdtemp(path.join(tmpdir(), 'interlock-cli-')));
  }

  /** Workers for the data centers of the topologies, which have a task queue each. */
  async work(): Promise<void> {
    for (const dc of ['dc-a', 'dc-b']) await this.bench.work(`interlock-${dc}`);
  }

  leave(): Promise<void> {
    return rm(this.directory, { recursive: true, force: true });
  }

  /** `interlock switch NAME`. */
  async types(world: World, name: string, ...flags: string[]): Promise<Ran> {
    const file = path.join(this.directory, `${world.topology}.yaml`);
    const temporal = { address: this.bench.env.address, controlTaskQueue: QUEUE };
    const document = JSON.stringify({ ...exampleDocument(), name: world.topology, temporal });
    await writeFile(file, document.replace(/"port":2([12])003/g, '"port":$1'));
    return interlock('switch', name, '--topology', file, ...flags);
  }

  /** `interlock switch NAME --json`. */
  async asks<T>(
    world: World,
    name: string,
    ...flags: string[]
  ): Promise<{ exitCode: number; document: T; stderr: string }> {
    const { exitCode, stdout, stderr } = await this.types(world, name, '--json', ...flags);
    if (stdout === '') throw new Error(`switch ${name} printed no document: ${stderr}`);
    return { exitCode, document: JSON.parse(stdout) as T, stderr };
  }
}
