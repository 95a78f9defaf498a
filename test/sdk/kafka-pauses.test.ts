import { describe, expect, it } from 'vitest';
import { Pauses } from '../../src/sdk/kafka/pauses.js';

function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

describe('pauses of a process', () => {
  it('one that stood still knows it before it goes on, also when its timer was first', async () => {
    const pauses = new Pauses();
    pauses.watch();
    const before = performance.now();
    standStill(300);
    expect(pauses.wokeAt()).toBeGreaterThan(before);
    const first = pauses.wokeAt();
    standStill(300);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(pauses.wokeAt()).toBeGreaterThan(first);
    pauses.end();
  });
});
