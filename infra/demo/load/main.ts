/**
 * The load generator as a process of its own, so that what else its starter does is not seen as latency. Started by LoadProcess; takes
 * its options as JSON in the first argument and commands over the IPC channel. It ends when its starter does; without a channel it puts
 * on its load until it is ended.
 */
import { messageOf } from '../../../src/errors.js';
import { LoadGenerator } from './generator.js';
import type { LoadOptions } from './generator.js';
import type { LoadAnswer, LoadCommand } from './process.js';

const load = new LoadGenerator(JSON.parse(process.argv[2] ?? '') as LoadOptions);

async function carryOut(command: LoadCommand['do']): Promise<void> {
  if (command === 'start') load.start();
  if (command === 'pause') await load.pause();
  if (command === 'settle') await load.settle();
  if (command === 'stop') await load.stop();
}

process.on('message', (message: LoadCommand) => {
  void carryOut(message.do)
    .then(() => undefined, messageOf)
    .then((error) => {
      const answer: LoadAnswer = { id: message.id, counts: load.counts, error: error ?? null };
      process.send?.(answer, () => {
        if (message.do === 'stop') process.exit(0);
      });
    });
});
process.on('disconnect', () => process.exit(1));
if (process.send === undefined) load.start();
// A Ctrl-C goes to the whole group of the terminal: the starter decides when the load ends.
process.on('SIGINT', () => undefined);
