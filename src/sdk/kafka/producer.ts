import type { Kafka, Message, RecordMetadata, TopicMessages } from 'kafkajs';
import { InterlockError, isInterlockError, messageOf } from '../../errors.js';
import type { Router } from '../../routing/rules.js';
import type { DcId, UnitId } from '../../routing/units.js';
import { afterEffects, assertNotRefused, contexts, Effects, REFUSALS } from '../context.js';
import type { RulesSource } from '../rules-source.js';
import { unitsOfTargets } from '../target.js';
import type { Target } from '../target.js';
import { CommitLost, isFenced, ProducerConnection } from './connection.js';
import { refusalOf } from './writable.js';

export interface ProducerOptions {
  /** Whose a message is. Default: the ambient routing key of `interlock.run` or the HTTP middleware. */
  routingKey?: (message: Message, topic: string) => Target;
}

export interface FencedProducerParts {
  kafka: Kafka;
  dc: DcId;
  transactionalId: string;
  rules: RulesSource;
  options: ProducerOptions;
}

/** One call of `sendBatch`. */
interface Send {
  topicMessages: TopicMessages[];
  units: UnitId[];
  messages: number;
  resolve: (written: RecordMetadata[]) => void;
  reject: (error: Error) => void;
  done: Promise<void>;
}

/** Messages of one Kafka transaction. */
const MOST_MESSAGES = 1_000;
const MOST_FENCES = 3;

/**
 * A transactional producer that a switchover can fence. Sends that come while a transaction is under way share the next one. A unit that the rules
 * fence is refused; sends of it that are under way are finished before this instance acknowledges the fence; when the instance does not acknowledge,
 * the switchover takes the transactional id, and Kafka refuses what comes later, however long the process was paused.
 */
export class FencedProducer {
  readonly transactionalId: string;
  private readonly waiting: Send[] = [];
  private readonly inFlight = new Set<Send>();
  private connection: ProducerConnection | undefined;
  private running: Promise<void> | undefined;
  private readonly forget: () => void;
  private closed = false;

  constructor(private readonly parts: FencedProducerParts) {
    this.transactionalId = parts.transactionalId;
    this.forget = parts.rules.onRules((router) => this.drained(router));
  }

  /** As `sendBatch`, to one topic. */
  send({ topic, messages }: { topic: string; messages: Message[] }): Promise<RecordMetadata[]> {
    return this.sendBatch({ topicMessages: [{ topic, messages }] });
  }

  /**
   * Returns when all messages are committed. Errors: WriteDisabled, NotOwner, PartiallyExecuted, Unavailable, NoRules, BadInput (nothing was
   * sent), CommitUnknown.
   */
  async sendBatch({ topicMessages }: { topicMessages: TopicMessages[] }): Promise<RecordMetadata[]> {
    const ambient = contexts.getStore();
    const effects = new Effects(ambient?.effects);
    try {
      assertNotRefused(effects);
      if (this.parts.rules.current() === undefined) await this.parts.rules.refresh();
      const router = this.router();
      const units = this.unitsOf(topicMessages, router);
      // Between this check and `inFlight` nothing is awaited: a fence finds the send, or the send finds the fence.
      this.refuse(units, router);
      const messages = topicMessages.reduce((sum, one) => sum + one.messages.length, 0);
      let kept = true;
      effects.commitBegins();
      try {
        return await this.queued(topicMessages, units, messages);
      } catch (error) {
        kept = isInterlockError(error, 'CommitUnknown');
        throw error;
      } finally {
        effects.commitEnds(kept);
      }
    } catch (error) {
      throw afterEffects(error, effects, REFUSALS);
    }
  }

  /** Finishes what is under way. */
  async disconnect(): Promise<void> {
    this.closed = true;
    while (this.running !== undefined) await this.running;
    this.forget();
    await this.connection?.close();
    this.connection = undefined;
  }

  private queued(
    topicMessages: TopicMessages[],
    units: UnitId[],
    messages: number,
  ): Promise<RecordMetadata[]> {
    if (this.closed) throw new InterlockError('Refused', 'the producer was disconnected');
    return new Promise((resolve, reject) => {
      let settled!: () => void;
      const done = new Promise<void>((end) => (settled = end));
      const send: Send = {
        ...{ topicMessages, units, messages, done },
        resolve: (written) => (this.inFlight.delete(send), settled(), resolve(written)),
        reject: (error) => (this.inFlight.delete(send), settled(), reject(error)),
      };
      this.inFlight.add(send);
      this.waiting.push(send);
      this.running ??= this.run();
    });
  }

  private async run(): Promise<void> {
    while (this.waiting.length > 0) {
      let count = 0;
      for (let messages = 0; count < this.waiting.length; count++) {
        messages += this.waiting[count]!.messages;
        if (count > 0 && messages > MOST_MESSAGES) break;
      }
      await this.commit(this.waiting.splice(0, count));
    }
    // In the same turn as the look at `waiting`: a send that comes later begins anew.
    this.running = undefined;
  }

  private async commit(sends: Send[]): Promise<void> {
    for (let fences = 0; ;) {
      try {
        this.connection ??= await ProducerConnection.open(
          ...([this.parts.kafka, this.transactionalId, this.parts.rules] as const),
        );
      } catch (error) {
        return rejectAll(sends, this.unavailable(error));
      }
      sends = this.stillWritable(sends);
      if (sends.length === 0) return;
      try {
        const written = await this.connection.commit(sends.flatMap((send) => send.topicMessages));
        for (const send of sends) send.resolve(written.filter((one) => isOf(one, send)));
        return;
      } catch (error) {
        const lost = this.connection;
        this.connection = undefined;
        await lost.close().catch(() => undefined);
        if (error instanceof CommitLost) return rejectAll(sends, this.unknown(error));
        // Nothing of it was committed. The rules that the next take brings say whose the units are now.
        if (isFenced(error) && fences++ < MOST_FENCES) continue;
        if (sends.length === 1) return rejectAll(sends, this.unavailable(error));
        // One message that Kafka refuses must not take the others with it.
        for (const send of sends) await this.commit([send]);
        return;
      }
    }
  }

  private stillWritable(sends: Send[]): Send[] {
    const router = this.router();
    return sends.filter((send) => {
      const refusal = firstRefusal(send.units, router, this.parts.dc);
      if (refusal !== undefined) send.reject(refusal);
      return refusal === undefined;
    });
  }

  /** Resolves when no send is under way that these rules refuse. */
  private async drained(router: Router): Promise<void> {
    const refused = [...this.inFlight].filter(
      ({ units }) => firstRefusal(units, router, this.parts.dc) !== undefined,
    );
    await Promise.all(refused.map(({ done }) => done));
  }

  private refuse(units: readonly UnitId[], router: Router): void {
    const refusal = firstRefusal(units, router, this.parts.dc);
    if (refusal !== undefined) throw refusal;
  }

  private unitsOf(topicMessages: readonly TopicMessages[], router: Router): UnitId[] {
    const { routingKey } = this.parts.options;
    if (topicMessages.every(({ messages }) => messages.length === 0))
      throw new InterlockError('BadInput', 'send: messages: expected at least one', {
        details: { field: 'messages' },
      });
    let targets: Target[];
    if (routingKey !== undefined) {
      targets = topicMessages.flatMap(({ topic, messages }) =>
        messages.map((message) => routingKey(message, topic)),
      );
    } else {
      const ambient = contexts.getStore()?.target;
      if (ambient === undefined)
        throw new InterlockError(
          'BadInput',
          'send: no routing key: give producer({ routingKey }) or use interlock.run(key, …) or the HTTP middleware',
          { details: { field: 'key' } },
        );
      targets = Array.isArray(ambient) ? (ambient as Target[]) : [ambient as Target];
    }
    return unitsOfTargets(targets, () => router).map(({ unit }) => unit);
  }

  private router(): Router {
    const router = this.parts.rules.current();
    if (router !== undefined) return router;
    throw new InterlockError('NoRules', 'no rules are known yet: nobody knows whose the messages are', {
      retryable: true,
    });
  }

  private unavailable(error: unknown): InterlockError {
    return new InterlockError('Unavailable', `Kafka: nothing was sent: ${messageOf(error)}`, {
      cause: error,
      retryable: true,
      details: { what: 'kafka', transactionalId: this.transactionalId },
    });
  }

  private unknown(error: CommitLost): InterlockError {
    return new InterlockError(
      'CommitUnknown',
      `Kafka: ${error.message} (${messageOf(error.cause)}). The messages may have been committed`,
      { cause: error, details: { transactionalId: this.transactionalId } },
    );
  }
}

function firstRefusal(units: readonly UnitId[], router: Router, dc: DcId): InterlockError | undefined {
  for (const unit of units) {
    const refusal = refusalOf(unit, router, dc);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

function isOf({ topicName }: RecordMetadata, { topicMessages }: Send): boolean {
  return topicMessages.some(({ topic }) => topic === topicName);
}

function rejectAll(sends: readonly Send[], error: InterlockError): void {
  for (const send of sends) send.reject(error);
}
