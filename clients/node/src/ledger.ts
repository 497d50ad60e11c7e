const slots = 1 << 16; // as many as the sidecar's: keys that share a slot here share it there

/** Reports whether a version reaches another. A version is two unsigned halves. */
export function reaches(hi: number, lo: number, otherHi: number, otherLo: number): boolean {
  return hi > otherHi || hi === otherHi && lo >= otherLo;
}

/**
 * Ledger remembers, in 1.5 MiB, the last known change of every key. It is a direct-mapped table: of keys that share a
 * slot the one that was noted last has its version there, and the slot's floor stands for all others. So a collision
 * costs a miss, and never serves an outdated value.
 */
export class Ledger {
  // Of each slot: the hash's halves, the version's, the floor's.
  private readonly table = new Uint32Array(6 * slots);

  /** Reports whether a value may be served that was attested at a version. */
  admits(hashHi: number, hashLo: number, hi: number, lo: number): boolean {
    const t = this.table;
    const at = 6 * (hashLo & (slots - 1));
    const own = t[at] === hashHi >>> 0 && t[at + 1] === hashLo >>> 0 ? at + 2 : at + 4;
    return reaches(hi, lo, t[own]!, t[own + 1]!);
  }

  /** Notes that a key has changed at a version. Notes may come in any order, and more than once. */
  note(hashHi: number, hashLo: number, hi: number, lo: number): void {
    const t = this.table;
    const at = 6 * (hashLo & (slots - 1));
    if (t[at] !== hashHi >>> 0 || t[at + 1] !== hashLo >>> 0) {
      if (reaches(t[at + 2]!, t[at + 3]!, t[at + 4]!, t[at + 5]!)) {
        t[at + 4] = t[at + 2]!;
        t[at + 5] = t[at + 3]!;
      }
      t[at] = hashHi;
      t[at + 1] = hashLo;
      t[at + 2] = t[at + 4]!;
      t[at + 3] = t[at + 5]!;
    }
    if (reaches(hi, lo, t[at + 2]!, t[at + 3]!)) {
      t[at + 2] = hi;
      t[at + 3] = lo;
    }
  }
}
