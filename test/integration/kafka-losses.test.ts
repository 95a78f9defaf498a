import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { InterlockError } from '../../src/errors.js';
import { startTestKafka } from '../support/kafka.js';
import {
  differences,
  kafkaLinkConfig,
  kafkaSettled,
  readPartition,
  removeRecords,
  runKafkaLink,
  startKafkaPair,
  writeTestMarker,
  initialiseTestLink,
} from '../support/kafka-replication.js';
import type { KafkaPair, RunningKafkaLink } from '../support/kafka-replication.js';
import { freePort } from '../support/mysql.js';
import { relay } from '../support/relay.js';
import type { Relay } from '../support/relay.js';
import { until } from '../support/replication.js';

let pair: KafkaPair;
const running: RunningKafkaLink[] = [];
/** In front of each broker: what its clients are told. */
const relays: Relay[] = [];

beforeAll(async () => {
  const servers = await Promise.all(
    [0, 1].map(async () => {
      const port = await freePort();
      const front = await relay(port);
      relays.push(front);
      return startTestKafka({ port, advertisedPort: front.port });
    }),
  );
  pair = await startKafkaPair({}, servers);
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((link) => link.stop()));
});
afterAll(async () => {
  await pair?.stop();
  for (const front of relays) front.close();
});

const run = async (...args: Parameters<typeof runKafkaLink>): Promise<RunningKafkaLink> => {
  const link = await runKafkaLink(...args);
  running.push(link);
  return link;
};
const send = (topic: string, from: number, to: number): Promise<unknown> =>
  pair.a.producer.send({
    topic,
    messages: Array.from({ length: to - from }, (_, i) => ({ value: String(from + i) })),
  });
const values = async (topic: string): Promise<(string | null)[]> =>
  (await readPartition(pair.b, topic)).map(({ value }) => value);

describe('a Kafka link whose source', () => {
  it('has removed records stops and names the range, or goes on behind it', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-gap' }] });
    const config = kafkaLinkConfig(pair, 'a', 't-gap');
    await initialiseTestLink(config, 'earliest');
    await send('t-gap', 0, 5);
    const first = await run(config, null);
    await kafkaSettled(first);
    await first.stop();
    await send('t-gap', 5, 20);
    await removeRecords(pair.a, 't-gap', 12);
    const second = await run(config, null, null);
    const error = await second.ended;
    expect(error).toBeInstanceOf(InterlockError);
    expect(error).toMatchObject({ code: 'NeedsOperator', details: { state: 'gap', from: 5, to: 12 } });
    expect((error as Error).message).toContain('t-gap-0 from 5 to 11');
    expect(second.status().state).toBe('gap');
    const third = await run({ ...config, onGap: 'go-on' }, null);
    await kafkaSettled(third);
    expect(third.status().kafka?.gaps).toEqual([{ topic: 't-gap', partition: 0, from: 5, to: 12 }]);
    expect(await values('dc-a.t-gap')).toEqual(['0', '1', '2', '3', '4', ...range(12, 20)]);
    await third.stop();
    const fourth = await run(config, null);
    expect(fourth.status().kafka?.gaps).toEqual([{ topic: 't-gap', partition: 0, from: 5, to: 12 }]);
  });

  it.each([
    ['has fewer records', 3, false],
    ['has grown past what was copied', 30, false],
    ['was never seen to be gone', 0, true],
  ])('has a topic made anew stops before it mixes the two, when that %s', async (_how, records, running) => {
    const topic = `t-anew-${records}`;
    await pair.a.admin.createTopics({ topics: [{ topic }] });
    const config = kafkaLinkConfig(pair, 'a', topic);
    await initialiseTestLink(config, 'earliest');
    await send(topic, 0, 10);
    const first = await run(config, null);
    await kafkaSettled(first);
    if (!running) await first.stop();
    await pair.a.admin.deleteTopics({ topics: [topic] });
    await until(async () => !(await pair.a.admin.listTopics()).includes(topic), 'it is gone');
    await until(
      () => pair.a.admin.createTopics({ topics: [{ topic }] }).catch(() => false),
      'it is made anew',
    );
    if (records > 0) await send(topic, 100, 100 + records);
    const second = running ? first : await run(config, null, null);
    expect(await second.ended).toMatchObject({ code: 'NeedsOperator', details: { state: 'diverged' } });
    expect(second.status().state).toBe('diverged');
    expect(await values(`dc-a.${topic}`)).toEqual(range(0, 10));
  });

  it('has removed old markers has lost nothing: the link goes on', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-markers' }] });
    const config = kafkaLinkConfig(pair, 'a', 't-markers');
    const first = await run(config, 'earliest');
    await kafkaSettled(first);
    // Behind a marker stands the end of its transaction: nothing is behind for ever.
    await until(() => first.status().lagMs === 0, 'the marker and what is behind it is read', 30_000);
    await first.stop();
    await writeTestMarker(config);
    await removeRecords(pair.a, 'interlock.markers', -1);
    await send('t-markers', 0, 3);
    const second = await run(config, null);
    await kafkaSettled(second);
    expect(second.status().kafka?.gaps).toEqual([]);
    expect(await values('dc-a.t-markers')).toEqual(range(0, 3));
  });

  it('had removed records before the link saw the topic begins behind them, and knows from then on what is lost', async () => {
    for (const topic of ['t-late-one', 't-late-two', 't-late-three'])
      await pair.a.admin.createTopics({ topics: [{ topic }] });
    const config = kafkaLinkConfig(pair, 'a', 't-late-one');
    const first = await run(config, 'earliest');
    await kafkaSettled(first);
    await first.stop();
    await send('t-late-two', 0, 10);
    await removeRecords(pair.a, 't-late-two', 6);
    const wider = { ...config, include: ['t-late*'] };
    const second = await run(wider, null);
    await kafkaSettled(second);
    expect(await values('dc-a.t-late-two')).toEqual(range(6, 10));
    expect(second.status().kafka).toMatchObject({
      gaps: [],
      late: [{ topic: 't-late-two', partition: 0, from: 6 }],
    });
    await second.stop();
    // It was empty when the link saw it.
    await send('t-late-three', 0, 5);
    await removeRecords(pair.a, 't-late-three', 4);
    const third = await run(wider, null, null);
    expect(await third.ended).toMatchObject({ details: { state: 'gap', from: 0, to: 4 } });
  });

  it.each([
    ['while it runs', true],
    ['while it does not', false],
  ])(
    'is copied into a topic that somebody deletes %s stops: what it had is not there any more',
    async (_when, live) => {
      const topic = `t-copy-gone-${String(live)}`;
      await pair.a.admin.createTopics({ topics: [{ topic }] });
      const config = kafkaLinkConfig(pair, 'a', topic);
      const first = await run(config, 'earliest');
      await send(topic, 0, 10);
      await kafkaSettled(first);
      if (!live) await first.stop();
      await pair.b.admin.deleteTopics({ topics: [`dc-a.${topic}`] });
      await send(topic, 10, 12);
      const second = live ? first : await run(config, null, null);
      const error = await Promise.race([second.ended, kafkaSettled(second).then(() => 'it goes on')]);
      expect(error).toMatchObject({ code: 'NeedsOperator', details: { state: 'diverged' } });
      expect((error as Error).message).toContain(`dc-a.${topic}`);
      // Made by hand, it takes what comes.
      await pair.b.admin.createTopics({ topics: [{ topic: `dc-a.${topic}` }] });
      const third = await run(config, null);
      await kafkaSettled(third);
      expect(await values(`dc-a.${topic}`)).toEqual(range(10, 12));
    },
  );

  it('or target falls silent goes on when the network is there again', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-silent', numPartitions: 2 }] });
    const link = await run(kafkaLinkConfig(pair, 'a', 't-silent'), 'earliest');
    let sent = 0;
    for (const front of [relays[1]!, relays[0]!]) {
      await send('t-silent', sent, (sent += 20));
      await kafkaSettled(link);
      front.silence();
      // The source takes records while the target is silent.
      if (front === relays[1]) await send('t-silent', sent, (sent += 20));
      await until(
        () => link.status().state === 'starting',
        'the link hears that it is silent',
        90_000,
        () => JSON.stringify(link.status()),
      );
      expect(link.status().lagMs).toBeGreaterThan(0);
      front.heal();
      await until(() => link.status().state === 'streaming', 'it goes on', 90_000);
    }
    await send('t-silent', sent, (sent += 20));
    await kafkaSettled(link);
    expect(await differences(pair, 'a', 't-silent', 2)).toEqual({ records: sent, wrong: [] });
  });
});

function range(from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, i) => String(from + i));
}
