import type { Applied } from './applier.js';
import type { Block } from './block.js';
import { textOf } from './connection.js';
import type { RedisConnection } from './connection.js';
import type { Judge } from './judge.js';
import type { MendedKey, MendedValue, Mends } from './mends.js';
import { ReplyError } from './resp/reply-reader.js';
import type { Reply } from './resp/reply-reader.js';
import { PASSAGE_KEY } from './markers.js';
import type { SourceStream } from './source-stream.js';

/** Asked for in one transaction of the source, which does nothing else meanwhile. */
const KEYS_AT_ONCE = 500;
const BYTES_AT_ONCE = 8 * 1024 * 1024;
/** A larger value would hold the source up, and is not written in one command. */
const MOST_BYTES = 64 * 1024 * 1024;

/** Of these, a repair would be too large too. */
const TOO_LARGE =
  '`interlock verify redis` tells whether it differs: if so, have the application write it, or `interlock replicate resync`';

/** What the source says for a while only. */
const PASSING = new Set(['LOADING', 'BUSY', 'MISCONF', 'NOREPLICAS', 'OOM']);

export interface MendingParts {
  judge: Judge;
  mends: Mends;
  stream: SourceStream;
  /** For questions. */
  source: RedisConnection;
  /** Values have come: the stream goes on. */
  pump: () => void;
  onError: (error: Error) => void;
}

/** Finds the keys that may be wrong on the target, and asks the source for them: see `Mends`. */
export class Mending {
  private asks = false;

  constructor(private readonly parts: MendingParts) {}

  /**
   * @param late the block was applied so late that its keys may have expired on the target before. `copied`: the source's value counts for each key. Else
   *   for those with a unit, which the source alone writes: what the target has of the others may be newer, and only its answer tells
   */
  applied(block: Block, { unprolonged }: Applied, late: 'copied' | 'late' | null): void {
    const { judge, stream, mends } = this.parts;
    const { offset } = block.start;
    const found: MendedKey[] = [...unprolonged];
    if (late !== null)
      for (const one of block.commands.prolonged)
        if (late === 'copied' || judge.unitOf(one.key) !== undefined) found.push(one);
    for (const { key, db } of found)
      if (!mends.add(key, db, offset))
        stream.unmended(
          null,
          'more keys than are kept in mind were made to live longer while the link was behind',
        );
  }

  /** Asks for the next keys, unless others are asked for. */
  ask(): void {
    if (this.asks || this.parts.mends.next(1).length === 0) return;
    this.asks = true;
    this.askNext().then(
      () => {
        this.asks = false;
        this.parts.pump();
      },
      (error: unknown) => this.parts.onError(error as Error),
    );
  }

  private async askNext(): Promise<void> {
    const { mends, stream, source } = this.parts;
    const candidates = mends.next(KEYS_AT_ONCE);
    const sizes = ask(candidates, (key) => [['MEMORY', 'USAGE', key]]);
    const said = await source.askAll(sizes.questions);
    const keys: MendedKey[] = [];
    let bytes = 0;
    for (const [i, one] of candidates.entries()) {
      // Who may not ask for sizes is told by what follows.
      const size = Number(said[sizes.at[i]!]) || 0;
      if (size > MOST_BYTES) {
        stream.block.mendsDone.push(mends.drop(one));
        stream.unmended(
          one,
          `its value takes ${size} bytes: too many to be taken from the source again`,
          TOO_LARGE,
        );
        continue;
      }
      if (keys.length > 0 && bytes + size > BYTES_AT_ONCE) break;
      bytes += size;
      keys.push(one);
    }
    if (keys.length === 0) return;
    const marker = mends.ask(keys);
    const dumps = ask(keys, (key) => [
      ['DUMP', key],
      ['PEXPIRETIME', key],
    ]);
    const replies = await source.askAll([
      ['MULTI'],
      ...dumps.questions,
      ['SET', PASSAGE_KEY, JSON.stringify(marker)],
      ['EXEC'],
    ]);
    const exec = replies.at(-1)!;
    const answers = Array.isArray(exec) ? exec : [];
    const error = [...replies, ...answers].find((reply): reply is ReplyError => reply instanceof ReplyError);
    if (error === undefined) {
      mends.answer(keys.map((one, i) => valueOf(one, answers[dumps.at[i]!]!, answers[dumps.at[i]! + 1]!)));
      stream.mend();
    } else if (PASSING.has(error.code)) stream.askAgain();
    else stream.abandon(`the source refuses to give values again: ${error.message}`);
  }
}

type Question = readonly (string | Buffer | number)[];

/** The questions for each key in its database, and the number of the first for each; database 0 is selected behind them. */
function ask(
  keys: readonly MendedKey[],
  of: (key: Buffer) => Question[],
): { questions: Question[]; at: number[] } {
  const questions: Question[] = [];
  const at: number[] = [];
  let selected = 0;
  for (const { db, key } of keys) {
    if (db !== selected) questions.push(['SELECT', db]);
    selected = db;
    at.push(questions.length);
    questions.push(...of(key));
  }
  if (selected !== 0) questions.push(['SELECT', 0]);
  return { questions, at };
}

function valueOf({ db, key }: MendedKey, payload: Reply, expireAt: Reply): MendedValue {
  const expireAtMs = Number(textOf(expireAt));
  return {
    ...{ db, key, payload: Buffer.isBuffer(payload) ? payload : null },
    expireAtMs: expireAtMs < 0 ? null : expireAtMs,
  };
}
