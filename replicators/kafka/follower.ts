import type { InterlockError } from '../../src/errors.js';
import { asInterlockError } from './source-reader.js';
import type { SourceReader, SourceTopics } from './source-reader.js';
import type { TargetWriter } from './target-writer.js';

/** Keeps a link at the topics that the source has. */
export class Follower {
  /** Found by the last look, and not adopted yet. */
  private seen: SourceTopics | undefined;
  private looking: Promise<void> | undefined;

  constructor(
    private readonly reader: SourceReader,
    private readonly writer: TargetWriter,
    private readonly events: { onSeen: () => void; onFailure: (error: InterlockError) => void },
  ) {}

  get hasSeen(): boolean {
    return this.seen !== undefined;
  }

  /** Besides the copying: brokers may take longer to say what topics they have than a record may be on its way. */
  lookAhead(): void {
    if (this.looking !== undefined) return;
    this.look().then(
      () => this.events.onSeen(),
      (error: unknown) => this.events.onFailure(asInterlockError(error)),
    );
  }

  /** As the source is now. */
  async follow(): Promise<void> {
    await this.look();
    await this.adopt();
  }

  /** Between two transactions. */
  async adopt(): Promise<void> {
    const { seen } = this;
    this.seen = undefined;
    if (seen === undefined) return;
    // Hazard: without a position, one that has lost its first records later would seem to have begun behind them.
    for (const begun of await this.reader.adopt(seen)) this.writer.reached(begun);
  }

  /** One at a time: an older one must not be adopted after a newer one. */
  private async look(): Promise<void> {
    while (this.looking !== undefined) await this.looking;
    this.looking = this.reader
      .look()
      .then((seen) => void (this.seen = seen))
      .finally(() => (this.looking = undefined));
    await this.looking;
  }
}
