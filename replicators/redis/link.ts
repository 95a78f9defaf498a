import type { BaselineReached, LinkStatus } from '../core/contract.js';
import type { StopPoint } from '../core/stop-points.js';
import type { RedisLinkConfig } from './link-config.js';

export interface LinkEvents {
  /** `tableRows`: commands applied since the link was started, by database (`db0`). */
  onStatus: (status: LinkStatus, tableRows: Record<string, number>) => void;
  /** After the EXEC that contains the marker. */
  onMarker: (baseline: BaselineReached, to: { workflowId: string; runId: string }) => void;
}

/** Signatures first: the body follows. */
export class RedisLink {
  constructor(
    readonly config: RedisLinkConfig,
    readonly events: LinkEvents,
    readonly stopAt: (point: StopPoint) => void,
  ) {}

  /** Runs until `signal` is aborted (returns) or the link has to stop (throws an InterlockError that is not retryable). */
  async run(_signal: AbortSignal): Promise<void> {}

  /** Ends the attempt whatever it waits for: its sessions go, with what they had open. */
  disconnect(_why: string): void {}
}
