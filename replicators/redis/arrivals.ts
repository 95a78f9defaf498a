const STEP_MS = 5;

/** When the source's bytes came, by this machine's clock: says how old the oldest is that was not applied. */
export class Arrivals {
  private readonly entries: { end: number; at: number }[] = [];
  private first = 0;
  /** Everything up to here has come. */
  received: number;

  constructor(offset: number) {
    this.received = offset;
  }

  came(bytes: number, now: number): void {
    this.received += bytes;
    const last = this.entries.at(-1);
    if (last !== undefined && now - last.at < STEP_MS && this.entries.length > this.first + 1)
      last.end = this.received;
    else this.entries.push({ end: this.received, at: now });
  }

  applied(offset: number): void {
    while (this.first < this.entries.length && this.entries[this.first]!.end <= offset) this.first += 1;
    if (this.first === this.entries.length || this.first > 1024) {
      this.entries.splice(0, this.first);
      this.first = 0;
    }
  }

  /** Undefined: all that came is applied. */
  get oldestAt(): number | undefined {
    return this.entries[this.first]?.at;
  }
}
