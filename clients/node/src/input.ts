import { Malformed } from './reader.js';

const header = 4; // bytes of a length

/**
 * Input finds the frames in what comes. A frame that comes whole is handed over in place: its bytes are valid until
 * the function returns. A frame in parts is put together in a buffer of its own.
 */
export class Input {
  private readonly head = Buffer.alloc(header);
  private headLength = 0;
  private part: Buffer | undefined; // a frame that has not come whole, without its length
  private filled = 0; // bytes of it

  constructor(private readonly frame: (buf: Buffer, from: number, to: number, owned: boolean) => void) {}

  /** Takes the first n bytes of a buffer. */
  add(buf: Buffer, n: number, most: number): void {
    let at = 0;
    while (at < n) {
      if (this.part !== undefined) {
        at += this.fill(this.part, buf, at, n);
        continue;
      }
      if (this.headLength === 0 && n - at >= header) {
        const length = lengthOf(buf, at, most);
        const to = at + header + length;
        if (to <= n) {
          this.frame(buf, at + header, to, false);
          at = to;
          continue;
        }
        at += header;
        this.begin(length);
        continue;
      }
      this.head[this.headLength++] = buf[at++]!;
      if (this.headLength === header) {
        this.headLength = 0;
        this.begin(lengthOf(this.head, 0, most));
      }
    }
  }

  private begin(length: number): void {
    this.part = Buffer.allocUnsafeSlow(length);
    this.filled = 0;
  }

  /** Copies what belongs to the part, and returns how many bytes that are. */
  private fill(part: Buffer, buf: Buffer, at: number, n: number): number {
    const take = Math.min(n - at, part.length - this.filled);
    buf.copy(part, this.filled, at, at + take);
    this.filled += take;
    if (this.filled === part.length) {
      this.part = undefined;
      this.frame(part, 0, part.length, true);
    }
    return take;
  }
}

function lengthOf(b: Buffer, at: number, most: number): number {
  const length = (b[at]! << 24 | b[at + 1]! << 16 | b[at + 2]! << 8 | b[at + 3]!) >>> 0;
  if (length === 0 || length > most) {
    throw new Malformed(`the sidecar's answer is malformed: a frame of ${length} bytes`);
  }
  return length;
}
