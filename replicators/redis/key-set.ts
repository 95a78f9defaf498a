const FIRST = 1 << 12;

/**
 * The keys of a full synchronisation, as 64-bit hashes: about 16 bytes a key. Two keys of one hash (one in 10^19 pairs) count as the same, so that a
 * key that should go stays.
 */
export class KeySet {
  private high = new Uint32Array(FIRST);
  private low = new Uint32Array(FIRST);
  size = 0;

  add(db: number, key: Buffer): void {
    if (this.size * 4 > this.high.length * 3) this.grow();
    const [high, low] = hash(db, key);
    if (this.put(high, low)) this.size += 1;
  }

  has(db: number, key: Buffer): boolean {
    const [high, low] = hash(db, key);
    const at = this.find(high, low);
    return this.high[at] !== 0 || this.low[at] !== 0;
  }

  private put(high: number, low: number): boolean {
    const at = this.find(high, low);
    if (this.high[at] !== 0 || this.low[at] !== 0) return false;
    this.high[at] = high;
    this.low[at] = low;
    return true;
  }

  private find(high: number, low: number): number {
    const mask = this.high.length - 1;
    let at = low & mask;
    while ((this.high[at] !== 0 || this.low[at] !== 0) && (this.high[at] !== high || this.low[at] !== low))
      at = (at + 1) & mask;
    return at;
  }

  private grow(): void {
    const { high, low } = this;
    this.high = new Uint32Array(high.length * 2);
    this.low = new Uint32Array(high.length * 2);
    for (let i = 0; i < high.length; i++) if (high[i] !== 0 || low[i] !== 0) this.put(high[i]!, low[i]!);
  }
}

/** Never [0, 0], which marks an empty place. */
function hash(db: number, key: Buffer): [number, number] {
  let a = 0x9e3779b9 ^ db;
  let b = 0x85ebca6b ^ key.length;
  for (let i = 0; i < key.length; i++) {
    const byte = key[i]!;
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b ^ byte, 0xcc9e2d51);
    b = (b << 15) | (b >>> 17);
  }
  a = Math.imul(a ^ (a >>> 16), 0x85ebca6b);
  a = Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
  b = Math.imul(b ^ (b >>> 15), 0x2c1b3c6d);
  b = Math.imul(b ^ (b >>> 12), 0x297a2d39);
  const high = (a ^ (a >>> 16)) >>> 0;
  const low = (b ^ (b >>> 15)) >>> 0;
  return high === 0 && low === 0 ? [0, 1] : [high, low];
}
