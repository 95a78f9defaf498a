import { describe, expect, it } from 'vitest';
import { steadyPartitioner } from '../../src/sdk/kafka/connection.js';

describe('the partition of a message', () => {
  const of = (count: number): { partitionId: number }[] =>
    Array.from({ length: count }, (_, partitionId) => ({ partitionId }));

  it.each([
    ['with a key', 'ann'],
    ['without one', null],
  ])('stays when its request is repeated after the topic has got more, %s', (_what, key) => {
    const partitioner = steadyPartitioner();
    const messages = Array.from({ length: 20 }, (_, i) => ({ key: key && `${key}${i}`, value: String(i) }));
    const choose = (count: number): number[] =>
      messages.map((message) => partitioner({ topic: 't', partitionMetadata: of(count), message }));
    const first = choose(3);
    expect(new Set(first).size).toBe(3);
    expect(choose(7)).toEqual(first);
  });

  it('that names one is that one', () => {
    const message = { key: 'ann', value: 'x', partition: 2 };
    expect(steadyPartitioner()({ topic: 't', partitionMetadata: of(3), message })).toBe(2);
  });
});
