import { InterlockError } from '../../src/errors.js';
import { formatLinkId, parseLinkId } from '../core/contract.js';
import { readCheckpoint } from './checkpoint.js';
import { requireLineage } from './lineage.js';
import type { LinkConfig } from './link-config.js';
import { Passage } from './verify/passage.js';
import { Side } from './verify/side.js';

const PASS_MS = 30_000;

/**
 * The link of the other direction, which brings to a copy's source what is written on its target. Hazard: until it has, a row that was deleted
 * on the target is one that the target lacks, a new one is surplus, and a changed one differs.
 */
export class OtherDirection {
  private readonly link: string;
  private readonly from: Side;
  private readonly to: Side;

  constructor(private readonly config: Pick<LinkConfig, 'link' | 'from' | 'to' | 'source' | 'target'>) {
    const { kind, store, from, to } = parseLinkId(config.link)!;
    this.link = formatLinkId({ kind, store, from: to, to: from });
    this.from = new Side(config.to, config.target);
    this.to = new Side(config.from, config.source);
  }

  /** Whether anything can be on its way: it has a checkpoint, and can go on from there. */
  async flows(): Promise<boolean> {
    const checkpoint = await readCheckpoint(await this.to.reader(), this.link);
    if (checkpoint === undefined) return false;
    const { flavour } = this.from.server;
    const lineage = { link: this.link, from: this.config.to, flavour, mend: { diverged: '', purged: '' } };
    try {
      await requireLineage(lineage, await this.from.reader(), checkpoint.position);
      return true;
    } catch (error) {
      if (error instanceof InterlockError && error.code === 'NeedsOperator') return false;
      throw error;
    }
  }

  /** Returns when all that the copy's target had when it was called is in its source. @throws InterlockError Unavailable */
  async passed(signal: AbortSignal): Promise<void> {
    const passage = new Passage(this.link, this.from, this.to, signal);
    try {
      if ((await passage.pass(PASS_MS)) !== undefined) return;
    } finally {
      await passage.clear();
    }
    throw new InterlockError(
      'Unavailable',
      `${this.config.link}: rows that nobody owns differ, and what ${this.config.to} has written of them may be on its way: the copy waits for ${this.link}, which has not passed a marker in ${PASS_MS / 1000} s. Resume it; one that is never to run again: DELETE FROM interlock.link_checkpoint WHERE link = '${this.link}' on ${this.config.from}`,
      { retryable: true, details: { link: this.config.link, waitsFor: this.link } },
    );
  }

  destroy(): void {
    this.from.close();
    this.to.close();
  }
}
