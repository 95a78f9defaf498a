import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { LinkHost } from '../../replicators/host/link-host.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import type { LinkStatus } from '../../replicators/core/contract.js';

/** A thread whose links do nothing: each says its thread's number as its position, and breaks the thread or blocks it where its name says so. */
const script = new URL(
  `data:text/javascript,${encodeURIComponent(`
    import { parentPort, threadId } from 'node:worker_threads';
    parentPort.on('message', (order) => {
      const link = order.link ?? order.config.link;
      const say = (what) => parentPort.postMessage({ link, ...what });
      if (order.type === 'stop') say({ type: 'ended', error: null });
      else if (link === 'final') say({ type: 'ended', error: { code: 'LinkStopped', message: 'no', retryable: false, details: {} } });
      else if (link === 'breaks') setTimeout(() => { throw new Error('out of order'); }, 200);
      else say({ type: 'status', status: { position: String(threadId) } });
    });
  `)}`,
);

function run(host: LinkHost, link: string) {
  const abort = new AbortController();
  let started: (thread: string) => void;
  const thread = new Promise<string>((resolve) => (started = resolve));
  const ended = host.run(
    { link } as LinkConfig,
    { onStatus: ({ position }: LinkStatus) => started(position), onMarker: () => undefined },
    abort.signal,
  );
  ended.catch(() => undefined);
  return { thread, ended, stop: () => abort.abort() };
}

test('links share a few threads, and have one of their own while there are enough', async () => {
  const host = new LinkHost(script, 2);
  const links = Array.from({ length: 6 }, (_, i) => run(host, `link ${i}`));
  const threads = await Promise.all(links.map(({ thread }) => thread));
  expect(new Set(threads).size).toBe(2);
  expect(threads[0]).not.toBe(threads[1]);
  expect(threads.filter((thread) => thread === threads[0])).toHaveLength(3);
  // The end of one leaves the others of its thread alone.
  links[0]!.stop();
  expect(await links[0]!.ended).toMatchObject({ position: threads[0] });
  const again = run(host, 'link 0');
  expect(await again.thread).toBe(threads[0]);
  for (const { stop } of [...links, again]) stop();
  await Promise.all([...links, again].map(({ ended }) => ended));
});

test('a thread that breaks ends the attempts of its links, which may be made again, and no other', async () => {
  const host = new LinkHost(script, 2);
  const breaks = run(host, 'breaks');
  const apart = run(host, 'apart');
  const beside = run(host, 'beside');
  const apartToo = run(host, 'apart, too');
  const third = run(host, 'third');
  await Promise.all([apart.thread, beside.thread, third.thread]);
  expect(await third.thread).toBe(await beside.thread);
  for (const { ended } of [breaks, beside, third])
    await expect(ended).rejects.toMatchObject({ code: 'Internal', retryable: true });
  expect(await run(host, 'final').ended.catch((error: unknown) => error)).toMatchObject({
    code: 'LinkStopped',
    retryable: false,
  });
  const again = run(host, 'beside');
  expect(await again.thread).not.toBe(await beside.thread);
  for (const { stop } of [apart, apartToo, again]) stop();
  expect(await apart.ended).toMatchObject({ position: await apart.thread });
  await Promise.all([apartToo.ended, again.ended]);
});

test('a spare thread takes the next link, and a new one is made when a thread has ended', async () => {
  const host = new LinkHost(
    new URL(script.href + encodeURIComponent(`;parentPort.postMessage({ type: 'loaded' });`)),
    2,
  );
  await host.keepSpare(['mysql']);
  const first = run(host, 'first');
  const second = run(host, 'second');
  // Threads are numbered in the order in which they begin.
  const [spare, other] = [Number(await first.thread), Number(await second.thread)];
  expect(other).toBe(spare + 1);
  first.stop();
  await first.ended;
  // What begins now comes after the spare that was made when the first ended.
  const later = new Worker('', { eval: true });
  expect(later.threadId).toBe(other + 2);
  await host.keepSpare(['mysql']);
  const third = run(host, 'third');
  expect(Number(await third.thread)).toBe(other + 1);
  await later.terminate();
  for (const { stop } of [second, third]) stop();
  await Promise.all([second.ended, third.ended]);
});
