import type { Api } from './connection.js';
import { KafkaError } from './protocol-errors.js';

export interface NewTopic {
  name: string;
  partitions: number;
  configs: Record<string, string>;
}

export interface TopicResult {
  topic: string;
  error: KafkaError | undefined;
}

const TIMEOUT_MS = 12_000;

function result(topic: string, what: string, code: number, message: string | null): TopicResult {
  return { topic, error: code === 0 ? undefined : new KafkaError(code, `${what} ${topic}`, message) };
}

/** With as many replicas as the cluster gives by default. @param validateOnly nothing is made: what would become of it */
export function createTopics(topics: readonly NewTopic[], validateOnly = false): Api<TopicResult[]> {
  return {
    key: 19,
    version: 4,
    name: 'CreateTopics',
    write: (w) => {
      w.array(topics, ({ name, partitions, configs }) => {
        w.string(name).int32(partitions).int16(-1).int32(0);
        w.array(Object.entries(configs), ([key, value]) => w.string(key).string(value));
      });
      w.int32(TIMEOUT_MS).bool(validateOnly);
    },
    read: (r) => {
      r.throttle();
      return r.array(() => result(r.string(), 'creating topic', r.int16(), r.nullableString()));
    },
  };
}

/** @param topics each with how many partitions it shall have */
export function createPartitions(
  topics: readonly { name: string; partitions: number }[],
): Api<TopicResult[]> {
  return {
    key: 37,
    version: 1,
    name: 'CreatePartitions',
    write: (w) => {
      w.array(topics, ({ name, partitions }) => w.string(name).int32(partitions).int32(-1));
      w.int32(TIMEOUT_MS).bool(false);
    },
    read: (r) => {
      r.throttle();
      return r.array(() => result(r.string(), 'adding partitions to topic', r.int16(), r.nullableString()));
    },
  };
}

export interface TopicConfig {
  name: string;
  value: string | null;
  /** Set for this topic, and not by the cluster's default. */
  ofTopic: boolean;
}

const TOPIC = 2;
const OF_TOPIC = 1;

export function describeConfigs(
  topics: readonly string[],
): Api<{ topic: string; error: KafkaError | undefined; configs: TopicConfig[] }[]> {
  return {
    key: 32,
    version: 2,
    name: 'DescribeConfigs',
    write: (w) => {
      w.array(topics, (topic) => w.int8(TOPIC).string(topic).int32(-1));
      w.bool(false);
    },
    read: (r) => {
      r.throttle();
      return r.array(() => {
        const [code, message] = [r.int16(), r.nullableString()];
        r.int8();
        const topic = r.string();
        const configs = r.array(() => {
          const [name, value] = [r.string(), r.nullableString()];
          r.bool();
          const source = r.int8();
          r.bool();
          r.array(() => {
            r.string();
            r.nullableString();
            r.int8();
          });
          return { name, value, ofTopic: source === OF_TOPIC };
        });
        return { topic, error: result(topic, 'the configuration of', code, message).error, configs };
      });
    },
  };
}

/** @param changes null takes a setting away */
export function alterConfigs(
  changes: readonly { topic: string; configs: Record<string, string | null> }[],
): Api<TopicResult[]> {
  return {
    key: 44,
    version: 0,
    name: 'IncrementalAlterConfigs',
    write: (w) => {
      w.array(changes, ({ topic, configs }) => {
        w.int8(TOPIC).string(topic);
        w.array(Object.entries(configs), ([name, value]) =>
          w
            .string(name)
            .int8(value === null ? 1 : 0)
            .string(value),
        );
      });
      w.bool(false);
    },
    read: (r) => {
      r.throttle();
      return r.array(() => {
        const [code, message] = [r.int16(), r.nullableString()];
        r.int8();
        return result(r.string(), 'the configuration of', code, message);
      });
    },
  };
}
