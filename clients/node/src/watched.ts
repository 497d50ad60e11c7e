import { Malformed } from './reader.js';
import { bigOf, mapOf, numberOf } from './welcome.js';

const eventSize = 17; // kind, hash, version
const kinds = 3;

/** Is told of an event. detail is the partitions' bits of kind 1, the namespace of kind 2. */
export type OnEvent = (
  kind: number, hashHi: number, hashLo: number, versionHi: number, versionLo: number, detail: Uint8Array | string,
) => void;

/** Watched is an answer to WATCH. */
export class Watched {
  readonly epoch: bigint;
  readonly after: number;
  readonly seq: number;
  readonly head: number;
  readonly reset: boolean;
  readonly behind: number; // ms
  private readonly fixed: Buffer;
  private readonly details: readonly unknown[];

  constructor(body: unknown) {
    const m = mapOf(body);
    this.epoch = bigOf(m, 'epoch');
    this.after = numberOf(m, 'after');
    this.seq = numberOf(m, 'seq');
    this.head = numberOf(m, 'head');
    this.reset = m['reset'] === true;
    this.behind = numberOf(m, 'behind_ms');
    const events = Array.isArray(m['events']) ? m['events'] as unknown[] : [];
    const fixed = events[0] ?? new Uint8Array(0);
    const details = events[1] ?? [];
    if (!(fixed instanceof Uint8Array) || fixed.length % eventSize !== 0 || !Array.isArray(details)) {
      throw new Malformed('the sidecar\'s answer is malformed: its events');
    }
    this.fixed = Buffer.from(fixed); // a copy: the answer's bytes are the connection's
    this.details = details;
  }

  get events(): number {
    return this.fixed.length / eventSize;
  }

  /** Tells all events. It returns false if there is one of a later version, which outdates everything. */
  each(on: OnEvent): boolean {
    const b = this.fixed;
    let known = true;
    let detail = 0;
    for (let at = 0; at < b.length; at += eventSize) {
      const kind = b[at]!;
      if (kind >= kinds) {
        known = false;
        continue;
      }
      let of: Uint8Array | string = '';
      if (kind > 0) {
        const d = this.details[detail++];
        const element: unknown = Array.isArray(d) ? d[kind - 1] : undefined;
        if (kind === 1 && !(element instanceof Uint8Array) || kind === 2 && typeof element !== 'string') {
          throw new Malformed('the sidecar\'s answer is malformed: the detail of an event');
        }
        of = typeof element === 'string' ? element : Uint8Array.from(element as Uint8Array);
      }
      on(kind, b.readUInt32BE(at + 1), b.readUInt32BE(at + 5), b.readUInt32BE(at + 9), b.readUInt32BE(at + 13), of);
    }
    return known;
  }
}
