/** Bytes on the wire that wait to be applied, of one link and of all links of a process. */
const OF_ONE = 8 * 1024 * 1024;
const OF_ALL = 64 * 1024 * 1024;

/**
 * How much a link of this thread may keep waiting. Hazard: fifty links with a stalled target each, every one within its own bound, are more than
 * the process may take; the more there are, the less each may have. Each thread has its part of the whole.
 */
export class QueueBudget {
  private links = 0;
  /** That share the process. */
  threads = 1;

  /** @returns what ends the share */
  join(): () => void {
    this.links += 1;
    return () => (this.links -= 1);
  }

  share = (): number => Math.min(OF_ONE, OF_ALL / this.threads / Math.max(this.links, 1));
}

export const queueBudget = new QueueBudget();
