import type { Reading } from './clock.js';

/** The values of one namespace, by key. */
export type KeptByKey = Map<string, Kept>;

/** Kept is a value that the sidecar has returned. It does not change, but for its place. */
export class Kept {
  visited = false; // since the hand last passed
  newer: Kept | undefined;
  older: Kept | undefined;

  constructor(
    readonly among: KeptByKey, // those of its namespace
    readonly key: string,
    readonly hashHi: number,
    readonly hashLo: number,
    /** Text and numbers as they are; else the bytes. */
    readonly value: string | number | bigint | Buffer,
    readonly flags: number,
    readonly versionHi: number,
    readonly versionLo: number,
    readonly asOfHi: number,
    readonly asOfLo: number,
    readonly ttl: number, // ms; 0: no expiry
    readonly asked: Reading,
    readonly cost: number,
  ) {}
}

/** The memory of a value beside its key and its bytes; rounded up. */
export const overhead = 400; // bytes

/** What bytes in a buffer of their own take more: the process grew by 860 for each of 100,000 values. */
export const bufferOverhead = 460; // bytes

/**
 * KeptValues keeps values up to a number of bytes. It evicts by SIEVE (Zhang et al., NSDI 2024): a hand moves from the
 * oldest value to the newest, and removes the first that was not read since it last passed.
 */
export class KeptValues {
  bytes = 0;
  entries = 0;
  private newest: Kept | undefined;
  private oldest: Kept | undefined;
  private hand: Kept | undefined; // undefined: at the oldest

  constructor(readonly limit: number) {}

  put(k: Kept): void {
    const old = k.among.get(k.key);
    if (old !== undefined) {
      this.remove(old);
    }
    k.among.set(k.key, k);
    k.older = this.newest;
    if (this.newest !== undefined) {
      this.newest.newer = k;
    } else {
      this.oldest = k;
    }
    this.newest = k;
    this.entries++;
    this.bytes += k.cost;
    while (this.bytes > this.limit) {
      this.evict();
    }
  }

  private evict(): void {
    let at = this.hand ?? this.oldest!;
    while (at.visited) {
      at.visited = false;
      at = at.newer ?? this.oldest!;
    }
    this.hand = at;
    this.remove(at);
  }

  remove(k: Kept): void {
    if (this.hand === k) {
      this.hand = k.newer;
    }
    if (k.newer !== undefined) {
      k.newer.older = k.older;
    } else {
      this.newest = k.older;
    }
    if (k.older !== undefined) {
      k.older.newer = k.newer;
    } else {
      this.oldest = k.newer;
    }
    k.newer = k.older = undefined;
    this.entries--;
    this.bytes -= k.cost;
    k.among.delete(k.key);
  }

  clear(spaces: Iterable<{ readonly values: KeptByKey }>): void {
    for (const space of spaces) {
      space.values.clear();
    }
    this.newest = this.oldest = this.hand = undefined;
    this.bytes = this.entries = 0;
  }
}
