/** Who waits in this process for a marker, and the links that meet it: the fenced window has no time for a poll. */
export class MarkerArrivals {
  private readonly waiting = new Map<string, Arrivals>();

  /** Waits for any of these markers until `end()`. */
  await(markerIds: readonly string[]): Arrivals {
    const arrivals = new Arrivals(() => {
      for (const id of markerIds) this.waiting.delete(id);
    });
    for (const id of markerIds) this.waiting.set(id, arrivals);
    return arrivals;
  }

  /** A link of this process has committed a marker. Returns when who waited for it is done with it; at once when nobody does. */
  async arrived(markerId: string): Promise<void> {
    const arrivals = this.waiting.get(markerId);
    arrivals?.wake();
    await arrivals?.ended;
  }
}

export class Arrivals {
  readonly ended: Promise<void>;
  private resolveEnded!: () => void;
  private awake = false;
  private waiter: (() => void) | undefined;

  constructor(private readonly forget: () => void) {
    this.ended = new Promise((resolve) => (this.resolveEnded = resolve));
  }

  /** Returns when a marker has come since the last call, or after `limitMs`. */
  async next(limitMs: number): Promise<void> {
    if (!this.awake) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, limitMs);
        this.waiter = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.awake = false;
  }

  wake(): void {
    this.awake = true;
    this.waiter?.();
  }

  end(): void {
    this.forget();
    this.resolveEnded();
  }
}
