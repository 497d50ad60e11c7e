/** A value that the writer can say in msgpack. A string is text; bytes are bin. */
export type Arg = null | boolean | number | bigint | string | Uint8Array | readonly Arg[] | ReadonlyMap<string, Arg>;

const smallest = 64 << 10;
const kept = 1 << 20; // a longer buffer is dropped after its use

/** Writer collects the requests of one tick in one buffer. */
export class Writer {
  buf = Buffer.allocUnsafeSlow(smallest);
  n = 0;
  /** Where the elements after the timeout begin in the latest frame. */
  body = 0;

  /** Makes room for some more bytes. */
  reserve(more: number): void {
    const need = this.n + more;
    if (need <= this.buf.length) {
      return;
    }
    const larger = Buffer.allocUnsafeSlow(Math.max(need, 2 * this.buf.length));
    this.buf.copy(larger, 0, 0, this.n);
    this.buf = larger;
  }

  /** Empties the writer. If the bytes are still in use, it goes on with another buffer. */
  reset(inUse: boolean): void {
    this.n = 0;
    if (inUse || this.buf.length > kept) {
      this.buf = Buffer.allocUnsafeSlow(smallest);
    }
  }

  /** Leaves room for the length, and begins `[id, op, timeout`, an array of n elements. Needs 32 bytes of room. */
  begin(elements: number, id: number, op: number, timeout: number): number {
    const at = this.n;
    this.buf[at + 4] = 0x90 | elements;
    this.n = at + 5;
    this.uint(id);
    this.buf[this.n++] = op;
    this.uint(timeout);
    this.body = this.n;
    return at;
  }

  /** Writes the length of the frame that began at a place. */
  end(at: number): void {
    const length = this.n - at - 4;
    const b = this.buf;
    b[at] = length >>> 24;
    b[at + 1] = length >>> 16;
    b[at + 2] = length >>> 8;
    b[at + 3] = length;
  }

  /** Writes what was written before. */
  raw(b: Uint8Array): void {
    this.reserve(b.length);
    this.buf.set(b, this.n);
    this.n += b.length;
  }

  /** Writes an unsigned number below 2^53. The caller has made room of 9 bytes. */
  uint(v: number): void {
    const b = this.buf;
    if (v < 0x80) {
      b[this.n++] = v;
    } else if (v < 0x100) {
      b[this.n++] = 0xcc;
      b[this.n++] = v;
    } else if (v < 0x10000) {
      b[this.n++] = 0xcd;
      b[this.n++] = v >>> 8;
      b[this.n++] = v;
    } else if (v < 0x100000000) {
      b[this.n++] = 0xce;
      this.n = b.writeUInt32BE(v, this.n);
    } else {
      b[this.n++] = 0xcf;
      this.n = b.writeBigUInt64BE(BigInt(v), this.n);
    }
  }

  /** Writes a key as bin. A string is written as UTF-8. */
  key(key: string | Uint8Array): void {
    if (typeof key !== 'string') {
      this.bin(key);
      return;
    }
    const length = key.length;
    if (length > 85) { // its bytes may need a longer header
      this.bin(Buffer.from(key));
      return;
    }
    this.reserve(2 + 3 * length);
    const b = this.buf;
    const at = this.n;
    let n = at + 2;
    for (let i = 0; i < length; i++) {
      const c = key.charCodeAt(i);
      if (c >= 0x80) {
        n = at + 2 + b.write(key, at + 2);
        break;
      }
      b[n++] = c;
    }
    b[at] = 0xc4;
    b[at + 1] = n - at - 2;
    this.n = n;
  }

  bin(v: Uint8Array): void {
    const length = v.length;
    this.reserve(5 + length);
    const b = this.buf;
    if (length < 0x100) {
      b[this.n++] = 0xc4;
      b[this.n++] = length;
    } else if (length < 0x10000) {
      b[this.n++] = 0xc5;
      this.n = b.writeUInt16BE(length, this.n);
    } else {
      b[this.n++] = 0xc6;
      this.n = b.writeUInt32BE(length, this.n);
    }
    b.set(v, this.n);
    this.n += length;
  }

  /** Writes anything. */
  arg(v: Arg): void {
    this.reserve(9);
    if (v === null) {
      this.buf[this.n++] = 0xc0;
    } else if (typeof v === 'number' || typeof v === 'bigint') {
      this.int(v);
    } else if (typeof v === 'string') {
      this.text(v);
    } else if (typeof v === 'boolean') {
      this.buf[this.n++] = v ? 0xc3 : 0xc2;
    } else if (v instanceof Uint8Array) {
      this.bin(v);
    } else if (v instanceof Map) {
      this.buf[this.n++] = 0x80 | v.size;
      for (const [name, value] of v as ReadonlyMap<string, Arg>) {
        this.arg(name);
        this.arg(value);
      }
    } else {
      this.array(v as readonly Arg[]);
    }
  }

  private array(v: readonly Arg[]): void {
    if (v.length < 16) {
      this.buf[this.n++] = 0x90 | v.length;
    } else {
      this.buf[this.n++] = 0xdc;
      this.n = this.buf.writeUInt16BE(v.length, this.n);
    }
    for (const element of v) {
      this.arg(element);
    }
  }

  private text(v: string): void {
    const length = Buffer.byteLength(v);
    this.reserve(5 + length);
    if (length < 32) {
      this.buf[this.n++] = 0xa0 | length;
    } else if (length < 0x100) {
      this.buf[this.n++] = 0xd9;
      this.buf[this.n++] = length;
    } else {
      this.buf[this.n++] = 0xda;
      this.n = this.buf.writeUInt16BE(length, this.n);
    }
    this.n += this.buf.write(v, this.n);
  }

  private int(v: number | bigint): void {
    const b = this.buf;
    if (v >= 0) {
      if (v <= Number.MAX_SAFE_INTEGER) {
        this.uint(Number(v));
      } else {
        b[this.n++] = 0xcf;
        this.n = b.writeBigUInt64BE(BigInt(v), this.n);
      }
    } else if (v >= -32) {
      b[this.n++] = 0x100 + Number(v);
    } else if (v >= -0x80) {
      b[this.n++] = 0xd0;
      this.n = b.writeInt8(Number(v), this.n);
    } else if (v >= -0x8000) {
      b[this.n++] = 0xd1;
      this.n = b.writeInt16BE(Number(v), this.n);
    } else if (v >= -0x80000000) {
      b[this.n++] = 0xd2;
      this.n = b.writeInt32BE(Number(v), this.n);
    } else {
      b[this.n++] = 0xd3;
      this.n = b.writeBigInt64BE(BigInt(v), this.n);
    }
  }
}
