import { setTimeout as sleep } from 'node:timers/promises';
import { InterlockError } from '../../../src/errors.js';
import type { Cluster } from './cluster.js';
import { unavailable } from './connection.js';
import { byLeader, produce } from './data-api.js';
import type { PartitionRef, Produced } from './data-api.js';
import { FENCED, KafkaError, isKafkaError } from './protocol-errors.js';
import type { BatchBuilder } from './record-batch.js';
import { addPartitions, endTransaction, initProducerId } from './transaction-api.js';
import type { ProducerIdentity } from './transaction-api.js';

export interface Outgoing extends PartitionRef {
  /** Node id. */
  leader: number;
  builder: BatchBuilder;
  /** Its records in another form. */
  encoded?: { codec: number; payload: Buffer };
  /** Called with the offset of its first record when the broker has it. */
  onOffset?: (baseOffset: number) => void;
}

const PURPOSE = 'produce';
/** What a broker may take to have it on its replicas; then so long for the answer. */
const PRODUCE_MS = 6_000;
/** Until the coordinator has undone what the process before had open. */
const TAKE_MS = 90_000;
/** Until the markers of the transaction before are written. */
const MARKERS_MS = 30_000;
/** Between two looks whether they are: records wait for it. */
const MARKERS_LOOK_MS = 4;
const IN_FLIGHT_BYTES = 8 * 2 ** 20;
/** As many as a broker remembers of a producer. */
const IN_FLIGHT = 5;
/** Of the partitions of one request; a broker takes 100 MB by default. */
const REQUEST_BYTES = 16 * 2 ** 20;
const CONCURRENT = 51;

/**
 * A transactional producer. It repeats nothing: whatever fails, the transaction is left to the next `take`, which undoes it; so nobody has to
 * know what a broker did with a request that it has not answered.
 */
export class TransactionalProducer {
  private readonly sequences = new Map<string, number>();
  private readonly inFlight = new Set<Promise<void>>();
  private bytes = 0;
  private readonly requests = new Map<number, number>();
  private added = new Set<string>();
  private failure: InterlockError | undefined;

  private constructor(
    private readonly cluster: Cluster,
    private readonly transactionalId: string,
    private readonly coordinator: number,
    readonly identity: ProducerIdentity,
  ) {}

  /**
   * Takes the transactional id: what another process had open with it is undone, and no write of that process is taken from then on.
   * @param held what this process took last: it is taken only when nobody else has since
   * @throws HeldByOther
   */
  static async take(
    cluster: Cluster,
    transactionalId: string,
    timeoutMs: number,
    held?: ProducerIdentity,
  ): Promise<TransactionalProducer> {
    const deadline = performance.now() + TAKE_MS;
    for (let wait = 2; ; wait = Math.min(wait * 2, 200)) {
      try {
        const coordinator = await cluster.coordinator('transaction', transactionalId);
        const identity = await cluster.call(coordinator, initProducerId(transactionalId, timeoutMs, held));
        return new TransactionalProducer(cluster, transactionalId, coordinator, identity);
      } catch (error) {
        if (error instanceof KafkaError && FENCED.has(error.number))
          throw heldByOther(transactionalId, error);
        // Still undoing, or the coordinator's log is being read.
        if (!isKafkaError(error, CONCURRENT, 14, 15, 16) || performance.now() > deadline) throw error;
        await sleep(wait);
      }
    }
  }

  get isEmpty(): boolean {
    return this.added.size === 0;
  }

  /** Sends batches as part of the transaction, at most one of a partition; returns when there is room for more, not when they are there. */
  async send(batches: readonly Outgoing[]): Promise<void> {
    if (batches.length === 0) return;
    await this.add(batches);
    for (const [leader, of] of byLeader(batches)) {
      let request: Outgoing[] = [];
      let size = 0;
      for (const batch of of) {
        if (size > 0 && size + batch.builder.size > REQUEST_BYTES) {
          await this.request(leader, request, size);
          [request, size] = [[], 0];
        }
        request.push(batch);
        size += batch.builder.size;
      }
      await this.request(leader, request, size);
    }
  }

  private async request(leader: number, batches: Outgoing[], size: number): Promise<void> {
    while (
      this.inFlight.size > 0 &&
      (this.bytes + size > IN_FLIGHT_BYTES || (this.requests.get(leader) ?? 0) >= IN_FLIGHT)
    ) {
      await Promise.race(this.inFlight);
    }
    if (this.failure !== undefined) throw this.failure;
    const connection = await this.cluster.broker(leader, PURPOSE);
    // What waits at a broker that throttles makes the transaction older than it may become.
    await connection.unmuted();
    this.requireNoFailure();
    const { id, epoch } = this.identity;
    const partitions = batches.map(({ topic, partition, builder, encoded }) => {
      const key = keyOf(topic, partition);
      const baseSequence = this.sequences.get(key) ?? 0;
      this.sequences.set(key, (baseSequence + builder.count) % 2 ** 31);
      return {
        topic,
        partition,
        batch: builder.finish({ producerId: id, producerEpoch: epoch, baseSequence }, encoded),
      };
    });
    this.bytes += size;
    this.requests.set(leader, (this.requests.get(leader) ?? 0) + 1);
    const answered = connection
      .call(produce(this.transactionalId, partitions, PRODUCE_MS), PRODUCE_MS * 2)
      .then((answers) => this.answered(batches, answers))
      .catch((error: unknown) => {
        this.failure ??= this.told(error);
      })
      .finally(() => {
        this.bytes -= size;
        this.requests.set(leader, this.requests.get(leader)! - 1);
        this.inFlight.delete(answered);
      });
    this.inFlight.add(answered);
  }

  private requireNoFailure(): void {
    if (this.failure !== undefined) throw this.failure;
  }

  private answered(batches: readonly Outgoing[], answers: readonly Produced[]): void {
    const byKey = new Map(answers.map((answer) => [keyOf(answer.topic, answer.partition), answer]));
    for (const batch of batches) {
      const answer = byKey.get(keyOf(batch.topic, batch.partition));
      if (answer === undefined)
        throw new InterlockError('Internal', `no answer for ${batch.topic}-${batch.partition}`);
      if (answer.error !== 0)
        throw new KafkaError(answer.error, `writing to ${batch.topic}-${batch.partition}`, answer.message);
      batch.onOffset?.(answer.baseOffset);
    }
  }

  private async add(batches: readonly Outgoing[]): Promise<void> {
    const missing = batches.filter(({ topic, partition }) => !this.added.has(keyOf(topic, partition)));
    if (missing.length === 0) return;
    const deadline = performance.now() + MARKERS_MS;
    for (let wait = 1; ; wait = Math.min(wait * 2, MARKERS_LOOK_MS)) {
      try {
        await this.cluster.call(
          this.coordinator,
          addPartitions(this.transactionalId, this.identity, missing),
        );
        break;
      } catch (error) {
        // The markers of the transaction before are still being written.
        if (!isKafkaError(error, CONCURRENT) || performance.now() > deadline) throw this.told(error);
        await sleep(wait);
      }
    }
    for (const { topic, partition } of missing) this.added.add(keyOf(topic, partition));
  }

  /** Waits for all that was sent. */
  async flush(): Promise<void> {
    while (this.inFlight.size > 0) await Promise.all(this.inFlight);
    if (this.failure !== undefined) throw this.failure;
  }

  /** Returns when all that was sent will be seen, and nothing of it can be undone. */
  async commit(): Promise<void> {
    await this.flush();
    if (this.added.size === 0) return;
    try {
      await this.cluster.call(this.coordinator, endTransaction(this.transactionalId, this.identity, true));
    } catch (error) {
      throw this.told(error);
    }
    this.added = new Set();
  }

  private told(error: unknown): InterlockError {
    if (error instanceof KafkaError && FENCED.has(error.number))
      return heldByOther(this.transactionalId, error);
    return error instanceof InterlockError ? error : unavailable(String(error));
  }
}

function keyOf(topic: string, partition: number): string {
  return `${topic}-${partition}`;
}

function heldByOther(transactionalId: string, cause: KafkaError): InterlockError {
  return new InterlockError(
    'HeldByOther',
    `the transactional id ${transactionalId} was taken over by another process; this one has committed nothing since, and stops`,
    { cause, details: { transactionalId } },
  );
}
