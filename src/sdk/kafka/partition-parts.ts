import type { Kafka, KafkaMessage } from 'kafkajs';
import type { Member, Subscription } from '../../kafka/consumer-records.js';
import type { GroupProgress } from '../../kafka/hand-over.js';
import type { DcId, UnitId } from '../../routing/units.js';
import type { RulesSource } from '../rules-source.js';
import type { ConsumerStates } from './consumer-states.js';

export interface PartitionParts {
  kafka: Kafka;
  dc: DcId;
  /** This instance. */
  holder: Member;
  rules: RulesSource;
  states: ConsumerStates;
  subscription: Subscription;
  group: GroupProgress;
  origin: DcId;
  partition: number;
  /** Where it begins when nothing is known of it. */
  firstOffset: () => Promise<number>;
  /** Of the topic that is read: the first offset that it still has, and the one behind its last. */
  range: () => Promise<{ first: number; end: number }>;
  /** Of the topic that is read: the next one to fetch. */
  seek: (offset: number) => void;
  setPaused: (paused: boolean) => void;
  unitOf: (message: KafkaMessage) => UnitId;
  /** Told before a range is passed whose records are not there, in offsets of the origin. */
  onGap: (from: number, to: number) => Promise<void>;
  handle: (message: KafkaMessage, offset: number, redelivered: boolean) => Promise<void>;
  /** Until when this process was paused last, by the monotonic clock. */
  wokeAt: () => number;
  /** Its state was committed: others may wait for that. */
  onCommitted: () => void;
  onWarning: (message: string, error: unknown) => void;
}

/** What eachBatch of kafkajs gives, as far as it is used here. */
export interface FetchedBatch {
  fetchedOffset: number;
  messages: KafkaMessage[];
  /** Behind the last one, filtered ones too. */
  next: number;
  /** As far as is known, the member still is one of the group. */
  isAlive: () => boolean;
  /** All of it is read: the client fetches what follows. */
  resolve: () => void;
}
