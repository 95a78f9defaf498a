import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { expect, test } from 'vitest';
import { rulesHash } from '../../src/routing/hash.js';
import { RuleBook } from '../../src/rule-center/rule-book.js';
import { Watchers } from '../../src/rule-center/watchers.js';
import { rules1 } from './fakes.js';

/** A response whose reader takes `room` writes, and then nothing until `drain`. */
class FakeResponse extends EventEmitter {
  sent: number[] = [];
  room = Number.POSITIVE_INFINITY;
  writeHead(): void {}
  end(): void {
    this.emit('close');
  }
  write(text: string): boolean {
    const id = /^id: (\d+)$/m.exec(text)?.[1];
    if (id !== undefined) this.sent.push(Number(id));
    return --this.room > 0;
  }
}

test('a reader that has stopped reading costs one document, and gets the newest when it reads again', () => {
  const book = new RuleBook();
  const offer = (epoch: number): void => {
    const rules = { ...rules1, epoch };
    book.offer({ rules, hash: rulesHash(rules) });
  };
  const watchers = new Watchers(book);
  const [slow, fast] = [new FakeResponse(), new FakeResponse()];
  slow.room = 3;
  watchers.add(slow as unknown as ServerResponse, 0);
  watchers.add(fast as unknown as ServerResponse, 0);
  for (let epoch = 1; epoch <= 9; epoch++) offer(epoch);
  expect(fast.sent).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  // The first write is the head of the stream.
  expect(slow.sent).toEqual([1, 2]);
  slow.room = Number.POSITIVE_INFINITY;
  slow.emit('drain');
  expect(slow.sent).toEqual([1, 2, 9]);
  offer(10);
  expect(slow.sent).toEqual([1, 2, 9, 10]);
  slow.emit('drain');
  expect(slow.sent).toEqual([1, 2, 9, 10]);
  slow.emit('close');
  expect(watchers.size).toBe(1);
  watchers.close();
  offer(11);
  expect(fast.sent.at(-1)).toBe(10);
  expect(watchers.size).toBe(0);
});
