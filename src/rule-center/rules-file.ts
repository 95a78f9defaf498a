import { mkdir, open, readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import { InterlockError, messageOf } from '../errors.js';
import { rulesHash } from '../routing/hash.js';
import { validateRules } from '../routing/validate.js';
import type { RulesDocument } from './api.js';

/** The last rules on disk: with them a rule center serves while its store is down. Written whole, under another name first. */
export class RulesFile {
  readonly file: string;
  private writing: Promise<void> = Promise.resolve();

  constructor(directory: string, topology: string, dc: string) {
    this.file = path.join(directory, `rules-${topology}-${dc}.json`);
  }

  /**
   * The rules on disk; undefined when there are none.
   * @throws InterlockError BadInput: the file is damaged or was changed by hand; the message names it.
   */
  async load(): Promise<RulesDocument | undefined> {
    let text: string;
    try {
      text = await readFile(this.file, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw this.damaged(error);
    }
    try {
      const document = JSON.parse(text) as { rules?: unknown; hash?: unknown };
      const rules = validateRules(document.rules);
      const hash = rulesHash(rules);
      if (hash !== document.hash) throw new Error('its hash does not match its rules');
      return { rules, hash };
    } catch (error) {
      throw this.damaged(error);
    }
  }

  /** Writes a document; one at a time, in the order of the calls. */
  async save(json: string): Promise<void> {
    const write = this.writing.then(async () => {
      const partial = `${this.file}.partial`;
      await mkdir(path.dirname(this.file), { recursive: true });
      const out = await open(partial, 'w', 0o600);
      try {
        await out.writeFile(json);
        await out.sync();
      } finally {
        await out.close();
      }
      await rename(partial, this.file);
    });
    this.writing = write.catch(() => undefined);
    return write;
  }

  /** Returns when no write is under way: whoever comes next to this file has it for itself. */
  async settled(): Promise<void> {
    await this.writing;
  }

  private damaged(error: unknown): InterlockError {
    return new InterlockError('BadInput', `${this.file}: ${messageOf(error)}; the copy on disk is not used`, {
      cause: error,
      details: { file: this.file },
    });
  }
}
