import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import type { ConsumedRecord, FencedConsumer, Interlock } from '../../../src/sdk/index.js';
import { messageOf } from '../../../src/errors.js';
import { COUPON_CENTRAL, EVENTS } from '../schema.sql.js';
import type { ShopDatabase, ShopKey } from './database.js';
import type { ShopEvent } from './events.js';

const GROUP = 'projection';
const LOOK_MS = 500;

export interface ProjectionOptions {
  interlock: Interlock;
  kafka: Kafka;
  /** The other data center. */
  peer: string;
  db: ShopDatabase;
  onError: (message: string) => void;
}

/** Handles the shop's events where their units are owned: each once and in order, into tables that a checker reads. */
export class Projection {
  private readonly consumer: FencedConsumer;
  private readonly stopping = new AbortController();
  private running: Promise<void> | undefined;
  private started = false;

  constructor(private readonly options: ProjectionOptions) {
    const { interlock, kafka, peer, onError } = options;
    this.consumer = interlock.kafka(kafka).consumer({
      ...{ groupId: GROUP, topics: topics(), peer },
      routingKey: ({ value }) => keyOf(JSON.parse(value!.toString()) as ShopEvent),
      handler: (record) => this.handle(record),
      onWarning: onError,
    });
  }

  /** Begins as soon as the links have made the copies. */
  start(): void {
    this.running = this.begin();
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await this.running;
    if (this.started) await this.consumer.stop();
  }

  private async begin(): Promise<void> {
    const { kafka, peer, onError } = this.options;
    const { signal } = this.stopping;
    const admin = kafka.admin();
    const wanted = topics().flatMap((topic) => [topic, `${peer}.${topic}`]);
    while (!signal.aborted) {
      try {
        await admin.connect();
        const there = new Set(await admin.listTopics());
        if (wanted.every((topic) => there.has(topic))) {
          this.started = true;
          await this.consumer.start();
          break;
        }
      } catch (error) {
        onError(`projection: ${messageOf(error)}`);
      }
      await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined);
    }
    await admin.disconnect();
  }

  /** Keeps what had been handled of the key before: the checker finds a gap, a repeat and a wrong order in it. */
  private async handle({ value, redelivered }: ConsumedRecord): Promise<void> {
    const { db, interlock } = this.options;
    const event = JSON.parse(value!.toString()) as ShopEvent;
    const { kind, key, requestId, step, seq } = event;
    const { columns } = EVENTS[kind];
    const names = columns.join(', ');
    const places = columns.map(() => '?').join(', ');
    await db.transaction(keyOf(event), async (tx) => {
      const by = [requestId, interlock.dc, db.unitOf(keyOf(event)), tx.epoch];
      await tx.query(
        `INSERT INTO shop.${kind}_handled (${names}, step, seq, seq_before, redelivered, request_id, dc, unit, epoch, written_at)
         SELECT ${places}, ?, ?, COALESCE(MAX(seq), 0), ?, ?, ?, ?, ?, NOW(6) FROM shop.${kind}_seen
         WHERE ${columns.map((column) => `${column} = ?`).join(' AND ')}`,
        [...key, step, seq, redelivered ? 1 : 0, ...by, ...key],
      );
      await tx.query(
        `INSERT INTO shop.${kind}_seen (${names}, seq, request_id, dc, unit, epoch, written_at)
         VALUES (${places}, ?, ?, ?, ?, ?, NOW(6))
         ON DUPLICATE KEY UPDATE seq = GREATEST(seq, ?), request_id = ?, dc = ?, unit = ?, epoch = ?, written_at = NOW(6)`,
        [...key, seq, ...by, seq, ...by],
      );
    });
  }
}

function topics(): string[] {
  return Object.values(EVENTS).map(({ topic }) => topic);
}

function keyOf({ kind, key }: ShopEvent): ShopKey {
  return kind === 'coupon' ? { central: COUPON_CENTRAL } : { region: key[0]!, userId: key[1]! };
}
