import { decode } from '@msgpack/msgpack';

/** Malformed means that the bytes are no answer of the protocol. */
export class Malformed extends Error {}

const no = (what: string): Malformed => new Malformed(`the sidecar's answer is malformed: ${what}`);

const maxDepth = 16;

/**
 * Reader reads msgpack in place. It reads the hot answers; decode of the library reads maps. The bytes are those of
 * the connection: what outlives the call is copied.
 */
export class Reader {
  buf: Buffer = Buffer.alloc(0);
  pos = 0;
  end = 0;
  /** The place of what bytes() has read. */
  from = 0;
  to = 0;
  /** The two halves of what u64() has read, unsigned. */
  hi = 0;
  lo = 0;
  /** Whether the buffer has this frame only, and nothing will overwrite it. */
  owned = false;

  of(buf: Buffer, pos: number, end: number): this {
    this.buf = buf;
    this.pos = pos;
    this.end = end;
    return this;
  }

  private take(n: number): number {
    const at = this.pos;
    if (at + n > this.end) {
      throw no('it ends early');
    }
    this.pos = at + n;
    return at;
  }

  array(): number {
    const c = this.buf[this.take(1)]!;
    if (c >= 0x90 && c <= 0x9f) {
      return c & 0x0f;
    }
    if (c === 0xdc) {
      return this.buf.readUInt16BE(this.take(2));
    }
    if (c === 0xdd) {
      return this.buf.readUInt32BE(this.take(4));
    }
    throw no(`0x${c.toString(16)} in place of an array`);
  }

  /** Reads an unsigned number below 2^53. */
  uint(): number {
    const c = this.buf[this.take(1)]!;
    if (c < 0x80) {
      return c;
    }
    const b = this.buf;
    switch (c) {
      case 0xcc: return b[this.take(1)]!;
      case 0xcd: {
        const at = this.take(2);
        return b[at]! << 8 | b[at + 1]!;
      }
      case 0xce: return this.u32(this.take(4));
      default: {
        this.pos--;
        this.u64();
        const v = this.hi * 0x100000000 + this.lo;
        if (v > Number.MAX_SAFE_INTEGER) {
          throw no('a number is too large');
        }
        return v;
      }
    }
  }

  private u32(at: number): number {
    const b = this.buf;
    return (b[at]! << 24 | b[at + 1]! << 16 | b[at + 2]! << 8 | b[at + 3]!) >>> 0;
  }

  /** Reads an unsigned 64-bit number into hi and lo. */
  u64(): void {
    const c = this.buf[this.pos];
    if (c === 0xcf || c === 0xd3) {
      this.take(1);
      const at = this.take(8);
      this.hi = this.u32(at);
      this.lo = this.u32(at + 4);
      if (c === 0xd3 && this.hi >= 0x80000000) {
        throw no('a negative number');
      }
      return;
    }
    this.hi = 0;
    this.lo = c !== undefined && c >= 0xd0 && c <= 0xd2 ? this.positive() : this.small();
  }

  private small(): number {
    const c = this.buf[this.take(1)]!;
    if (c < 0x80) {
      return c;
    }
    switch (c) {
      case 0xcc: return this.buf[this.take(1)]!;
      case 0xcd: return this.buf.readUInt16BE(this.take(2));
      case 0xce: return this.u32(this.take(4));
      default: throw no(`0x${c.toString(16)} in place of a number`);
    }
  }

  private positive(): number {
    const v = this.i64();
    if (v < 0n) {
      throw no('a negative number');
    }
    return Number(v);
  }

  /** Reads an unsigned 64-bit number. */
  version(): bigint {
    this.u64();
    return BigInt(this.hi) << 32n | BigInt(this.lo);
  }

  /** Reads a signed 64-bit number. */
  i64(): bigint {
    const c = this.buf[this.pos];
    if (c === undefined || this.pos >= this.end) {
      throw no('it ends early');
    }
    if (c >= 0xe0) {
      this.pos++;
      return BigInt(c - 0x100);
    }
    if (c >= 0xd0 && c <= 0xd3) {
      this.pos++;
      const n = 1 << (c - 0xd0);
      const at = this.take(n);
      return n === 8 ? this.buf.readBigInt64BE(at) : BigInt(this.buf.readIntBE(at, n));
    }
    return BigInt.asIntN(64, this.version());
  }

  /** Reads bin or str; from and to are its place. */
  bytes(): void {
    const c = this.buf[this.take(1)]!;
    let n: number;
    if (c >= 0xa0 && c <= 0xbf) {
      n = c & 0x1f;
    } else if (c === 0xc4 || c === 0xd9) {
      n = this.buf[this.take(1)]!;
    } else if (c === 0xc5 || c === 0xda) {
      n = this.buf.readUInt16BE(this.take(2));
    } else if (c === 0xc6 || c === 0xdb) {
      n = this.u32(this.take(4));
    } else {
      throw no(`0x${c.toString(16)} in place of bytes`);
    }
    this.from = this.take(n);
    this.to = this.pos;
  }

  text(): string {
    this.bytes();
    return this.buf.toString('utf8', this.from, this.to);
  }

  /** Skips some elements. */
  skip(elements: number, depth = 0): void {
    if (depth > maxDepth) {
      throw no('it is too deep');
    }
    for (let i = 0; i < elements; i++) {
      const c = this.buf[this.take(1)]!;
      if (c >= 0x80 && c <= 0x8f) {
        this.skip(2 * (c & 0x0f), depth + 1);
      } else if (c >= 0x90 && c <= 0x9f) {
        this.skip(c & 0x0f, depth + 1);
      } else if (c >= 0xa0 && c <= 0xbf) {
        this.take(c & 0x1f);
      } else if (c >= 0xc0 && c <= 0xdf) {
        this.skipMarked(c, depth);
      }
    }
  }

  private skipMarked(c: number, depth: number): void {
    const fixed = fixedSizes[c - 0xc0]!;
    if (fixed >= 0) {
      this.take(fixed);
      return;
    }
    const size = -fixed; // of the length
    const n = this.buf.readUIntBE(this.take(size), size);
    if (c >= 0xdc) {
      this.skip(c >= 0xde ? 2 * n : n, depth + 1);
    } else {
      this.take(c >= 0xc7 && c <= 0xc9 ? n + 1 : n);
    }
  }

  /** Decodes the rest of the frame, one value, by the library. */
  rest(): unknown {
    const at = this.pos;
    this.skip(1);
    try {
      return decode(this.buf.subarray(at, this.pos), { useBigInt64: true });
    } catch (e) {
      throw no(String(e));
    }
  }
}

/** The bytes that follow a mark from 0xc0 on; negative: the bytes of the length that follows it. */
const fixedSizes = [
  0, 0, 0, 0, -1, -2, -4, -1, -2, -4, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17, -1, -2, -4, -2, -4, -2, -4,
];
