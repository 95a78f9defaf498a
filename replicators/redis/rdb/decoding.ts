import type { DecodedValue } from './events.js';
import { NEED_MORE } from './window.js';
import type { Window } from './window.js';

/** Gives undefined where the window has to be filled before it can go on, and a piece of the value where one is ready. */
export type Decoding<Result = void> = Generator<DecodedValue | undefined, Result>;

/** `read` on the window, once all that it reads is there. It must change nothing before it has read all. */
export function* whole<T>(window: Window, read: () => T): Generator<undefined, T> {
  for (;;) {
    const start = window.pos;
    try {
      return read();
    } catch (error) {
      if (error !== NEED_MORE) throw error;
      window.pos = start;
      yield undefined;
    }
  }
}
