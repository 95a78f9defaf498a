import { compiled } from '../../project.js';
import type { LabDc } from '../options.js';
import type { Command, LabContext } from '../part.js';

/** A command of `interlock` that runs in a DC: it sees the DC's topology. */
export function interlockProgram(lab: LabContext, dc: LabDc, command: string, ...flags: string[]): Command {
  return {
    program: process.execPath,
    args: [
      '--enable-source-maps',
      compiled('src', 'cli', 'main.js'),
      command,
      ...['--dc', dc, '--topology', lab.files.topologyOf(dc)],
      ...flags,
    ],
  };
}
