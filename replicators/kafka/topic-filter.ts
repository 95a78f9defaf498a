import { copyName, DEFAULT_NAMING } from '../../src/kafka/copy-naming.js';
import type { KafkaLinkConfig } from './link-config.js';

/** Which topics of the source a link carries, and what their copies are called. */
export class TopicFilter {
  private readonly include: RegExp[];
  private readonly exclude: RegExp[];
  private readonly naming: string;
  /** What copies at the source are called that came from the target. */
  private readonly copies: RegExp | undefined;

  constructor(
    private readonly config: Pick<KafkaLinkConfig, 'from' | 'to' | 'include' | 'exclude' | 'naming'>,
  ) {
    this.include = config.include.map(toRegExp);
    this.exclude = config.exclude.map(toRegExp);
    this.naming = config.naming ?? DEFAULT_NAMING;
    if (this.naming.includes('{from}')) this.copies = toRegExp(copyName(this.naming, config.to, '*'));
  }

  /** Copies are known by the origin in their records; by their names only no copies of copies are made. */
  carries(topic: string): boolean {
    if (topic.startsWith('interlock.') || topic.startsWith('__')) return false;
    if (this.copies?.test(topic) === true) return false;
    return this.include.some((r) => r.test(topic)) && !this.exclude.some((r) => r.test(topic));
  }

  copyOf(topic: string): string {
    return copyName(this.naming, this.config.from, topic);
  }
}

function toRegExp(pattern: string): RegExp {
  return new RegExp(`^${pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replace(/\*/g, '.*')}$`);
}
