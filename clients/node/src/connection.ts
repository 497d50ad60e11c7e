import type { Socket } from 'node:net';
import type { Call, CallConnection } from './call.js';
import { limits, Op, Status } from './codes.js';
import { cacheError, statusError } from './errors.js';
import { Input } from './input.js';
import { Malformed, Reader } from './reader.js';
import { clearTimeout, monotonic, nextTick, setImmediate, setTimeout } from './timers.js';
import type { Welcome } from './welcome.js';
import { type Arg, Writer } from './writer.js';

/** What a connection tells its owner. */
export interface Owner {
  /** A call has lost its connection. If sent is false, the request was surely not executed. */
  lost(call: Call, sent: boolean, reason: Error): void;
  /** The sidecar is about to close the connection. */
  leaving(conn: Connection): void;
}

const maxQueued = 32 << 20; // bytes of requests that the sidecar has not taken yet
const overdue = 10_000; // ms after which a call that was given up ends the connection
const closesAfter = 2_000; // ms for which a sidecar that ends still sends answers
const leavingId = 0; // calls have other ids
const pingId = 1;
const reportId = 2; // in use by no call: an answer is to none
const hesitation = 100; // ms, from its PING on, for which calls wait for a sidecar that may hang
const width = 1 << 25; // slots: above maxInFlight and maxLoads together, since tokens are filled beyond maxInFlight
const catchUp = 500; // ms for which an event loop that was blocked may read before calls are given up
const catchUps = 3; // in a row: an event loop that is always late still gives calls up
const leaseGrace = 100; // ms for which a LEASE waits longer than it tells the sidecar: a late token delays others
const late = 20; // ms by which a timer of an event loop that is not blocked may be late

interface Chunk {
  n: number; // of the write
  last: Call | undefined; // whose request ends it
}

/** A sidecar that leaves a call without an answer hangs, or that call alone is slow: a PING was posted to find out. */
interface Doubt {
  readonly since: number; // when the call was sent
  readonly asked: number; // when the PING was posted
  hangs: boolean; // calls wait no more
  readonly waiting: (() => void)[];
}

/**
 * Connection has calls in flight over one socket. Calls of one tick share one write. It has one timer, and none while
 * no call waits. While a call waits, the socket holds the process; else it does not.
 */
export class Connection implements CallConnection {
  welcome!: Welcome;
  retiring = false; // takes no more calls
  ended = false;
  leases = 0; // tokens that came by it, neither filled nor given back
  background = false; // never holds the process

  private readonly out = new Writer();
  private readonly reader = new Reader();
  private readonly input: Input;
  private readonly slots: (Call | undefined)[] = []; // an id is a generation and a slot
  private readonly generations: number[] = [];
  private readonly free: number[] = [];
  private used = 0; // slots
  private waiting = 0; // calls whose caller waits
  private now = 0; // of this tick; 0: not read
  private scheduled = false;
  private chunk = 1;
  private lastOfChunk: Call | undefined;
  private written = 0; // chunks that the system has taken
  private handed = 0; // chunks that the system may have in part: it takes all that wait in one write
  private readonly pending: Chunk[] = [];
  private sweepAt = Infinity;
  private timer: NodeJS.Timeout | undefined;
  private closing: NodeJS.Timeout | undefined; // of a connection whose write was refused
  private doubt: Doubt | undefined; // until the PING's answer
  private onEnd: (() => void)[] = [];
  private readonly flushNow = (): void => this.flush();

  constructor(readonly socket: Socket, readonly maxInFlight: number, private readonly owner: Owner) {
    this.input = new Input((buf, from, to, owned) => this.frame(buf, from, to, owned));
  }

  /** Takes what has come. */
  received(n: number, buf: Buffer): void {
    try {
      this.input.add(buf, n, Math.max(limits.answer, (this.welcome?.limits.value ?? 0) + 0x10000));
    } catch (e) {
      this.broken(e);
    }
  }

  private broken(e: unknown): void {
    this.end(cacheError('internal', e instanceof Malformed ? e.message : String(e), e));
  }

  /** Begins a call. It returns false if the connection takes none. It throws if it has too many. */
  start(call: Call, anyway = false): boolean {
    if (this.ended || (this.retiring || this.doubt !== undefined) && !anyway) {
      return false;
    }
    if (this.used >= this.maxInFlight && !anyway) {
      throw cacheError('busy', `${this.used} calls are in flight: make fewer at once, or raise maxInFlight`);
    }
    if (this.socket.writableLength + this.out.n > maxQueued) {
      throw cacheError('busy', `${maxQueued} bytes of requests wait for the sidecar: make fewer calls at once`);
    }
    const slot = this.free.length > 0 ? this.free.pop()! : this.slots.length;
    const generation = this.nextGeneration(slot);
    const now = this.now || (this.now = monotonic());
    if (call.deadline === 0) {
      call.deadline = now + call.timeout;
    }
    const left = Math.min(Math.max(1, Math.floor(call.deadline - now)), limits.timeout);
    call.id = generation * width + slot;
    call.began = now;
    const at = this.out.n;
    try {
      call.write(this.out, call.id, left);
      this.checkSize(this.out.n - at);
    } catch (e) {
      this.out.n = at;
      this.free.push(slot);
      throw e;
    }
    this.slots[slot] = call;
    call.chunk = this.chunk;
    call.conn = this;
    this.lastOfChunk = call;
    this.used++;
    if (this.waiting++ === 0 && !this.background) {
      this.socket.ref();
    }
    const end = call.op === Op.lease ? call.deadline + leaseGrace : call.deadline;
    if (end < this.sweepAt) {
      this.sweepBy(end, now);
    }
    this.schedule();
    return true;
  }

  /** Refuses a request for which the sidecar would close the connection. */
  private checkSize(n: number): void {
    const most = this.welcome?.limits.value ?? 0;
    if (most > 0 && n > most + 0x10000) {
      throw cacheError('too_large', `a request of ${n} bytes, and the sidecar's max_value is ${most}: split the value, `
        + 'or raise max_value');
    }
  }

  private nextGeneration(slot: number): number {
    const last = this.generations[slot] ?? 0;
    const next = (last + 2) * width > 2 ** 32 ? 1 : last + 1;
    this.generations[slot] = next;
    return next;
  }

  /** Sends LEAVING, whose answer may come at any time. It is no call. */
  awaitLeaving(): void {
    this.out.reserve(32);
    this.out.end(this.out.begin(3, leavingId, Op.leaving, 0));
    this.schedule();
  }

  /** Sends a report of hits. It is no call: it has no answer, unless it is refused. */
  report(elements: readonly Arg[]): void {
    if (this.socket.writableLength + this.out.n > maxQueued) {
      return;
    }
    this.out.reserve(32);
    const at = this.out.begin(3 + elements.length, reportId, Op.hits, 0);
    elements.forEach((element) => this.out.arg(element));
    this.out.end(at);
    this.schedule();
  }

  /** Asks whether the sidecar answers at all, after a call has ended by its time. */
  private ask(call: Call, now: number): void {
    if (this.doubt !== undefined || this.retiring || call.op === Op.hello || call.op === Op.watch) {
      return;
    }
    this.doubt = { since: call.began, asked: now, hangs: false, waiting: [] };
    this.out.reserve(32);
    this.out.end(this.out.begin(3, pingId, Op.ping, limits.timeout));
    this.schedule();
  }

  /** Waits until it is known whether the sidecar answers. If it does not, certain throws. */
  async certain(): Promise<void> {
    const { doubt } = this;
    if (doubt === undefined) {
      return;
    }
    if (doubt.hangs) {
      await new Promise(setImmediate); // what has come is read first
    } else {
      await new Promise<void>((resolve) => doubt.waiting.push(resolve));
    }
    if (this.doubt === doubt && !this.retiring) {
      const time = ((monotonic() - doubt.since) / 1000).toFixed(1);
      throw cacheError('unavailable', `the sidecar has not answered for ${time} s: it hangs or is stopped: `
        + 'look at it with "cachesidecar health", or restart it');
    }
  }

  /** Ends the doubt. */
  private answers(): void {
    const { doubt } = this;
    this.doubt = undefined;
    doubt?.waiting.forEach((f) => f());
  }

  /** Reports whether calls wait for the answer to a PING, or fail without it. */
  get doubted(): boolean {
    return this.doubt !== undefined;
  }

  private schedule(): void {
    if (!this.scheduled) {
      this.scheduled = true;
      nextTick(this.flushNow);
    }
  }

  /** Writes what was sent in this tick. */
  flush(): void {
    this.scheduled = false;
    this.now = 0;
    if (this.ended || this.out.n === 0) {
      return;
    }
    const n = this.chunk++;
    if (this.pending.length === 0) {
      this.handed = n;
    }
    this.pending.push({ n, last: this.lastOfChunk });
    this.lastOfChunk = undefined;
    this.socket.write(this.out.buf.subarray(0, this.out.n), this.onWritten);
    const refused = this.socket.errored !== null && this.socket.errored !== undefined;
    if (refused) { // at once: nothing of it was written
      this.pending.pop();
      this.handed = Math.min(this.handed, n - 1);
    } else if (this.socket.writableLength === 0) { // the system has taken all
      this.written = n;
      this.pending.length = 0;
    }
    if (this.written === n) {
      this.out.reset(false);
    } else {
      this.retain(n);
      this.out.reset(true);
    }
  }

  /** Lets the calls of a write that the system has not taken keep their requests: they may be sent once more. */
  private retain(chunk: number): void {
    for (const call of this.slots) {
      if (call !== undefined && call.chunk === chunk) {
        call.retain(this.out.buf);
      }
    }
  }

  private readonly onWritten = (error?: Error | null): void => {
    if (!error && this.pending.length > 0) {
      this.written = this.pending.shift()!.n;
      this.handed = this.chunk - 1;
    }
  };

  /** Handles an answer. */
  private frame(buf: Buffer, from: number, to: number, owned: boolean): void {
    if (this.ended) {
      return;
    }
    const r = this.reader.of(buf, from, to);
    r.owned = owned;
    const elements = r.array();
    if (elements < 2) {
      throw new Malformed('the sidecar\'s answer is malformed: it has no status');
    }
    const id = r.uint();
    const status = r.uint();
    if (id <= pingId) {
      if (id === leavingId) {
        this.left(status);
      } else {
        this.answers();
      }
      return;
    }
    const slot = id & (width - 1);
    const call = this.slots[slot];
    if (call === undefined || call.id !== id) {
      return; // an answer to no call
    }
    call.status = status;
    if (status >= Status.firstError || status === Status.notStored) {
      const message = elements > 2 ? r.text() : '';
      this.release(slot, call);
      call.fail(statusError(status, message));
    } else {
      this.answered(call, slot, status, elements - 2, r);
    }
    if (this.retiring) {
      this.finish();
    }
  }

  private answered(call: Call, slot: number, status: number, elements: number, r: Reader): void {
    let result: unknown;
    try {
      if (call.settled) {
        call.late?.(call, status, elements, r, this);
      } else {
        result = call.readAnswer(call, status, elements, r, this);
      }
    } catch (e) {
      if (e instanceof Malformed) {
        throw e; // the call is in flight still, and ends with the connection
      }
      this.release(slot, call);
      call.fail(e);
      return;
    }
    this.release(slot, call);
    call.succeed(result);
  }

  private release(slot: number, call: Call): void {
    this.slots[slot] = undefined;
    this.free.push(slot);
    this.used--;
    if (!call.settled) {
      this.rest();
    }
  }

  /** Counts a caller less. */
  private rest(): void {
    if (--this.waiting === 0 && !this.background) {
      this.socket.unref();
      this.closing?.unref();
    }
  }

  private left(status: number): void {
    if (status === Status.ok && !this.retiring) {
      this.retiring = true;
      this.owner.leaving(this);
      this.finish();
    }
  }

  /** Gives a call up. Its slot stays taken until the answer comes. */
  giveUp(call: Call, error: unknown): void {
    if (!call.settled) {
      this.rest();
      call.fail(error);
      if (!Number.isFinite(this.sweepAt)) {
        this.sweepBy(call.deadline + overdue, monotonic());
      }
    }
  }

  private sweepBy(at: number, now: number): void {
    clearTimeout(this.timer);
    this.sweepAt = at;
    this.wake(at, now, catchUps);
  }

  private wake(at: number, now: number, more: number): void {
    this.timer = setTimeout(() => {
      // An event loop that was blocked reads the answers first, also those for which the socket had no room.
      const woken = monotonic();
      if (woken - at > late && more > 0) {
        this.wake(woken + Math.min(woken - at, catchUp), woken, more - 1);
      } else {
        setImmediate(() => this.sweep());
      }
    }, Math.max(1, Math.ceil(at - now))).unref();
  }

  private sweep(): void {
    this.sweepAt = Infinity;
    if (this.ended || this.used === 0 && this.doubt === undefined) {
      return;
    }
    const now = monotonic();
    let next = Infinity;
    for (const call of this.slots) {
      if (call === undefined) {
        continue;
      }
      const end = call.op === Op.lease ? call.deadline + leaseGrace : call.deadline;
      if (!call.settled && now >= end) {
        this.ask(call, now);
        this.giveUp(call, cacheError('timeout', `no answer from the sidecar within ${Math.round(call.timeout)} ms: `
          + 'the outcome is not known'));
      }
      if (call.settled && now >= end + overdue) {
        this.end(cacheError('timeout', `the sidecar has not answered a call for ${overdue} ms after its time`));
        return;
      }
      next = Math.min(next, call.settled ? end + overdue : end);
    }
    next = Math.min(next, this.judged(now));
    if (next < this.sweepAt && !this.ended) {
      this.sweepBy(next, now);
    }
  }

  /** Lets calls wait no longer for the answer to a PING. It returns when there is more to do. */
  private judged(now: number): number {
    const { doubt } = this;
    if (doubt === undefined) {
      return Infinity;
    }
    if (now >= doubt.asked + hesitation) {
      doubt.hangs = true;
      doubt.waiting.splice(0).forEach((f) => f());
    }
    if (now >= doubt.asked + overdue) {
      this.end(cacheError('timeout', `the sidecar has not answered a PING for ${overdue} ms`));
    }
    return doubt.asked + (doubt.hangs ? overdue : hesitation);
  }

  /** Gives a token back. */
  returnedLease(): void {
    this.leases--;
    if (this.retiring) {
      this.finish();
    }
  }

  /** Takes no more calls, and ends once none is in flight. */
  retire(): void {
    this.retiring = true;
    this.finish();
  }

  private finish(): void {
    if (this.used === 0 && this.leases === 0 && this.out.n === 0) {
      this.end(cacheError('unavailable', 'the sidecar has closed the connection'));
    }
  }

  /** The system has refused a write. The sidecar takes no requests any more, but may send answers. */
  refused(error: Error): void {
    if (this.ended || this.retiring) {
      return;
    }
    this.retiring = true;
    this.retain(this.chunk);
    this.out.reset(true);
    for (const [slot, call] of this.slots.entries()) {
      if (call !== undefined && this.surelyNotSent(call)) {
        this.lose(slot, call, false, error);
      }
    }
    // After a refused write the stream tells of no end, and a socket at its end does not hold the process.
    this.closing = setTimeout(() => this.end(error), closesAfter);
    if (this.waiting === 0 || this.background) {
      this.closing.unref();
    }
    this.finish();
  }

  private surelyNotSent(call: Call): boolean {
    if (call.chunk > this.handed) {
      return true;
    }
    // Of a write that was cut short at least the last byte is missing.
    return call.chunk > this.written && this.pending.some(({ n, last }) => n === this.handed && call === last);
  }

  private lose(slot: number, call: Call, sent: boolean, reason: Error): void {
    this.slots[slot] = undefined;
    this.used--;
    call.conn = undefined;
    if (!call.settled) {
      this.rest();
      this.owner.lost(call, sent, reason);
    }
  }

  /** Ends the connection. Calls in flight are told. */
  end(reason: Error): void {
    if (this.ended) {
      return;
    }
    this.ended = true;
    clearTimeout(this.timer);
    clearTimeout(this.closing);
    this.socket.destroy();
    for (const [slot, call] of this.slots.entries()) {
      if (call !== undefined) {
        this.lose(slot, call, !this.surelyNotSent(call), reason);
      }
    }
    this.answers();
    for (const f of this.onEnd) {
      f();
    }
    this.onEnd = [];
  }

  /** Ends the connection after what is to be sent. */
  close(reason: Error): void {
    if (this.scheduled) {
      this.flush();
    }
    const written = this.socket.writableLength === 0;
    for (const [slot, call] of this.slots.entries()) {
      if (call !== undefined) {
        this.lose(slot, call, true, reason);
      }
    }
    if (written) {
      this.end(reason);
      return;
    }
    this.socket.end(() => this.end(reason));
    setTimeout(() => this.end(reason), 100).unref();
  }

  /** Calls f when the connection has ended. */
  whenEnded(f: () => void): void {
    if (this.ended) {
      f();
    } else {
      this.onEnd.push(f);
    }
  }
}
