import { type Clock, jumped, passed, read, type Reading } from './clock.js';
import { decodeValue, Encoding } from './encoding.js';
import { Follower } from './follower.js';
import { bufferOverhead, Kept, type KeptByKey, KeptValues, overhead } from './kept.js';
import { Ledger, reaches } from './ledger.js';
import type { Reader } from './reader.js';
import { Tally } from './tally.js';
import type { Watched } from './watched.js';
import type { Welcome } from './welcome.js';
import * as xxh3 from './xxh3.js';

/** Space is a namespace in the near cache. */
export class Space {
  readonly values: KeptByKey = new Map();
  seedHi = 0; // valid once there is a stream
  seedLo = 0;
  flushHi = 0; // a value that was written before this version is gone
  flushLo = 0;
  readonly tally: Tally; // of what was read from here
  constructor(readonly near: Near, readonly name: string) {
    this.tally = new Tally(name);
  }
}

/** Stream is a sequence of events without a gap. A value that was asked for under another stream is not kept. */
class Stream {
  lease: Reading | undefined; // all events up to then are applied
  behind = 0; // ms by which the sidecar itself may lag
  readonly log = new Follower();
  constructor(readonly epoch: bigint) {}
}

/** Asked is when a read was sent, and the stream of that time. */
export interface Asked {
  readonly at: Reading;
  readonly stream: Stream;
}

/** The statistics of a near cache. */
export interface NearStats {
  /** Whether the sidecar is followed; if not, nothing is served. */
  following: boolean;
  hits: number;
  misses: number;
  /** Values that were found, and were outdated or no longer surely current. */
  refused: number;
  entries: number;
  bytes: number;
  limit: number;
  events: number;
  resets: number;
  /** Jumps of the clocks, after which everything was dropped. */
  jumps: number;
}

const maxValue = 64 << 10; // bytes of a kept value
const maxSpaces = 256;
const partitions = 16384;
const scratch = Buffer.alloc(1024);

/**
 * Near keeps values, and follows the sidecar to learn which are outdated: see "Keeping values" in docs/PROTOCOL.md of
 * the project. What is checked at a hit decides; what is dropped before only saves memory.
 */
export class Near {
  stream: Stream | undefined;
  readonly stats = { hits: 0, misses: 0, refused: 0, events: 0, resets: 0, jumps: 0 };
  readonly values: KeptValues;
  private readonly ledger = new Ledger();
  private readonly floors = new Float64Array(partitions).fill(-1); // older requests' values are outdated
  private readonly spaces = new Map<string, Space>();
  private seed = 0n;
  private heardHi = 0; // the highest version that this client has heard of
  private heardLo = 0;
  /** Is called after the stream has ended, and is to begin another. */
  restart: () => void = () => {};

  constructor(readonly bytes: number, readonly bound: number, readonly clock: Clock) {
    this.values = new KeptValues(bytes);
  }

  /** Returns the space of a namespace, or undefined if there are too many: its values are not kept then. */
  space(name: string): Space | undefined {
    let s = this.spaces.get(name);
    if (s === undefined && this.spaces.size < maxSpaces) {
      s = new Space(this, name);
      this.spaces.set(name, s);
      this.reseed(s);
    }
    return s;
  }

  tallies(): Tally[] {
    return [...this.spaces.values()].map((s) => s.tally);
  }

  private reseed(s: Space): void {
    const b = Buffer.from(s.name);
    xxh3.hash(b, b.length, Number(this.seed >> 32n) | 0, Number(this.seed & 0xffffffffn) | 0);
    s.seedHi = xxh3.hi;
    s.seedLo = xxh3.lo;
  }

  /** Applies an answer to a WATCH that was sent at a moment. */
  apply(sent: Reading, w: Watched, welcome: Welcome): void {
    let s = this.stream;
    if (s !== undefined && s.lease !== undefined && jumped(s.lease, sent.mono, sent.wall)) {
      this.pause();
      return;
    }
    if (w.reset || s === undefined) {
      this.stats.resets++;
      s = this.begin(w, welcome);
      if (s !== undefined) {
        s.lease = s.log.polled(sent, w.head);
        this.values.clear(this.spaces.values());
      }
      this.stream = s;
      return;
    }
    if (!w.each((kind, hashHi, hashLo, hi, lo, detail) => this.event(kind, hashHi, hashLo, hi, lo, detail))) {
      this.drop(); // an event of a later version
    }
    this.stats.events += w.events;
    s.log.polled(sent, w.head);
    // The lease is extended only after the events that it covers are applied.
    if (s.log.advance(w.after, w.seq)) {
      s.behind = w.behind;
      s.lease = s.log.lease;
    } else { // events are missing before these: only a reset helps
      this.end();
      this.restart();
    }
  }

  /** Returns a new stream; undefined if the events' hash is not known. */
  private begin(w: Watched, welcome: Welcome): Stream | undefined {
    if (welcome.hash.name !== 'xxh3' || welcome.hash.partitions !== partitions) {
      this.end();
      return undefined;
    }
    this.seed = welcome.hash.seed;
    for (const space of this.spaces.values()) {
      this.reseed(space);
    }
    const s = new Stream(welcome.epoch);
    s.behind = w.behind;
    s.log.reset(w.seq);
    return s;
  }

  /** Drops all values and the stream. */
  end(): void {
    this.stream = undefined;
    this.values.clear(this.spaces.values());
  }

  /** A clock has jumped: the machine may have slept. */
  private pause(): void {
    this.stats.jumps++;
    this.end();
    this.restart();
  }

  private event(kind: number, hashHi: number, hashLo: number, hi: number, lo: number, detail: unknown): void {
    this.heard(hi, lo);
    if (kind === 0) {
      this.ledger.note(hashHi, hashLo, hi, lo);
    } else if (kind === 1) {
      const bits = detail as Uint8Array;
      const now = this.clock.mono();
      for (let p = 0; p < Math.min(8 * bits.length, partitions); p++) {
        if ((bits[p >> 3]! >> (p & 7) & 1) !== 0) {
          this.floors[p] = now;
        }
      }
    } else {
      for (const space of this.spaces.values()) {
        if ((detail === '' || detail === space.name) && reaches(hi, lo, space.flushHi, space.flushLo)) {
          space.flushHi = hi;
          space.flushLo = lo;
        }
      }
    }
  }

  heard(hi: number, lo: number): void {
    if (reaches(hi, lo, this.heardHi, this.heardLo)) {
      this.heardHi = hi;
      this.heardLo = lo;
    }
  }

  /** Outdates all values that were asked for until now. */
  drop(): void {
    this.floors.fill(this.clock.mono());
  }

  /** Returns the key's value if it may be served. */
  get(space: Space, key: string): Kept | undefined {
    const s = this.stream;
    if (s === undefined || s.lease === undefined) {
      return undefined;
    }
    const k = space.values.get(key);
    if (k === undefined) {
      this.stats.misses++;
      return undefined;
    }
    k.visited = true;
    const wall = this.clock.wall();
    const mono = this.clock.mono();
    if (jumped(s.lease, mono, wall)) {
      const again = read(this.clock); // the process may have stopped between the two readings
      if (jumped(s.lease, again.mono, again.wall)) {
        this.pause();
        return undefined;
      }
    }
    if (!fresh(s.lease, mono, wall, this.bound)
      || k.ttl !== 0 && passed(k.asked, mono, wall) >= k.ttl
      || k.asked.mono <= this.floors[k.hashHi >>> 18]!
      || !this.admits(space, k.hashHi, k.hashLo, k.versionHi, k.versionLo, k.asOfHi, k.asOfLo)) {
      this.stats.refused++;
      return undefined;
    }
    this.stats.hits++;
    return k;
  }

  private admits(
    space: Space, hashHi: number, hashLo: number, versionHi: number, versionLo: number, asOfHi: number, asOfLo: number,
  ): boolean {
    return reaches(versionHi, versionLo, space.flushHi, space.flushLo)
      && this.ledger.admits(hashHi, hashLo, asOfHi, asOfLo);
  }

  /** Keeps a value if its changes will be heard of. The reader is at its version. */
  keep(space: Space, key: string | Uint8Array, a: Asked, r: Reader, epoch: bigint, v: KeptBytes): void {
    if (a.stream !== this.stream || epoch !== a.stream.epoch) {
      return;
    }
    r.u64();
    const versionHi = r.hi;
    const versionLo = r.lo;
    const ttl = r.uint();
    r.skip(2);
    r.u64(); // as of
    const asOfHi = r.hi;
    const asOfLo = r.lo;
    this.heard(asOfHi, asOfLo);
    const length = v.to - v.from;
    if (length > Math.min(maxValue, this.bytes / 100)) {
      return;
    }
    this.hash(space, key);
    const { hi, lo } = xxh3;
    if (this.admits(space, hi, lo, versionHi, versionLo, asOfHi, asOfLo)) {
      const name = nameOf(key);
      const value = keepable(r.buf, v, key);
      const own = typeof value === 'string' ? 2 * value.length : length + bufferOverhead;
      const cost = overhead + 2 * name.length + own;
      this.values.put(new Kept(
        space.values, name, hi, lo, value, v.flags, versionHi, versionLo, asOfHi, asOfLo, ttl, a.at, cost));
    }
  }

  private hash(space: Space, key: string | Uint8Array): void {
    if (typeof key === 'string') {
      xxh3.hash(scratch, scratch.write(key), space.seedHi, space.seedLo);
    } else {
      xxh3.hash(key, key.length, space.seedHi, space.seedLo);
    }
  }

  /** Notes that a key has changed at a version; zero: it is not known. */
  wrote(space: Space, key: string | Uint8Array, hi: number, lo: number): void {
    if (this.stream === undefined) {
      return; // nothing is kept, and values that are asked for from now on are newer
    }
    if (hi === 0 && lo === 0) {
      this.next();
      hi = this.heardHi;
      lo = this.heardLo;
    }
    this.heard(hi, lo);
    this.hash(space, key);
    this.ledger.note(xxh3.hi, xxh3.lo, hi, lo);
    const old = space.values.get(nameOf(key));
    if (old !== undefined && !reaches(old.asOfHi, old.asOfLo, hi, lo)) {
      this.values.remove(old);
    }
  }

  /** Makes a version above all that were heard of, and not below those of this moment: milliseconds and 22 bits. */
  private next(): void {
    const ms = this.clock.wall();
    const hi = Math.floor(ms / 1024) >>> 0;
    const lo = ((ms % 1024) * (1 << 22)) >>> 0;
    if (reaches(this.heardHi, this.heardLo, hi, lo)) {
      this.heardLo = this.heardLo + 1024 >>> 0; // one count
      this.heardHi += this.heardLo < 1024 ? 1 : 0;
    } else {
      this.heardHi = hi;
      this.heardLo = lo;
    }
  }

  /** Returns how far a value may lag, in milliseconds. */
  age(): number {
    const s = this.stream;
    return s?.lease === undefined ? 0 : passed(s.lease, this.clock.mono(), this.clock.wall()) + s.behind;
  }
}

interface KeptBytes {
  from: number;
  to: number;
  flags: number;
}

/** Reports whether a lease lasts still. What the clocks may hide is taken off the bound. */
function fresh(lease: Reading, mono: number, wall: number, bound: number): boolean {
  return passed(lease, mono, wall) < bound - clockAllowance;
}

const clockAllowance = 20; // clock.ts: tolerance

/** Names a key in a map. Bytes begin with what no string begins with that is a key's own name. */
export function nameOf(key: string | Uint8Array): string {
  if (typeof key !== 'string') {
    return `\ud800${Buffer.from(key).toString('latin1')}`;
  }
  return key.charCodeAt(0) === 0xd800 ? Buffer.from(key).toString() : key;
}

function keepable(buf: Buffer, v: KeptBytes, key: string | Uint8Array): string | number | bigint | Buffer {
  const mark = v.flags & 0xff;
  if (mark === Encoding.text || mark === Encoding.integer) {
    return decodeValue(buf, v.from, v.to, v.flags, false, key) as string | number | bigint;
  }
  const own = Buffer.allocUnsafeSlow(v.to - v.from); // a part of a pool would keep all of it
  buf.copy(own, 0, v.from, v.to);
  return own;
}

/** Notes a write for the near cache. */
export function wrote(space: Space | undefined, key: string | Uint8Array, hi: number, lo: number): void {
  space?.near.wrote(space, key, hi, lo);
}
