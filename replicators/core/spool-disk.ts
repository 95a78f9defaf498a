import { randomUUID } from 'node:crypto';
import { openSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { InterlockError, messageOf } from '../../src/errors.js';

/** The worker's disk, for what is too large for its memory. Its failures are InterlockError Unavailable, retryable: it is full, or gone. */
export class SpoolDisk {
  private readonly directory = tmpdir();

  /** @param what cannot be done when it fails: `a large transaction cannot be spooled` */
  constructor(private readonly what: string) {}

  /** @returns the descriptor of a file without a name, private to the process: it is gone with its process, however that ends */
  open(): number {
    return this.try(() => {
      const file = path.join(this.directory, `interlock-spool-${randomUUID()}`);
      const fd = openSync(file, 'wx+', 0o600);
      unlinkSync(file);
      return fd;
    });
  }

  try<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      return this.failed(error);
    }
  }

  failed(error: unknown): never {
    const { what, directory } = this;
    throw new InterlockError(
      'Unavailable',
      `${what} in ${directory}: ${messageOf(error)}. Free space there, or start the worker with TMPDIR at another disk`,
      { cause: error, retryable: true, details: { what: 'spool', directory } },
    );
  }
}
