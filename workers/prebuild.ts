import { workflowBundle } from './bundle.js';

/** Part of the build: the first worker to start finds the workflows' bundle ready. */
await workflowBundle((line) => process.stderr.write(`${line}\n`));
