import { Op } from './codes.js';
import type { Reader } from './reader.js';
import type { Asked, Space } from './near.js';
import type { Welcome } from './welcome.js';
import { type Arg, Writer } from './writer.js';

const noArgs: readonly Arg[] = [];
const scratch = new Writer();

/** What a call and the reader of its answer see of a Connection. */
export interface CallConnection {
  readonly welcome: Welcome;
  readonly doubted: boolean;
  leases: number;
  start(call: Call, anyway: boolean): boolean;
  certain(): Promise<void>;
  giveUp(call: Call, error: unknown): void;
  returnedLease(): void;
}

/**
 * Reads an answer from its first element after the status on. It returns the call's result, or throws its error. conn
 * is the connection that the answer came by.
 */
export type ReadAnswer = (call: Call, status: number, elements: number, r: Reader, conn: CallConnection) => unknown;

/** Call is one request and its outcome. It is settled once. */
export class Call {
  id = 0;
  deadline = 0; // ms, by the monotonic clock; 0: not begun
  chunk = 0; // the write that has the request
  settled = false;
  conn: CallConnection | undefined; // where it is in flight
  began = 0; // ms, by the monotonic clock: when it was sent last
  resolve!: (v: never) => void;
  reject!: (e: unknown) => void;
  /** Is told of a failure before the caller is. */
  failed: ((e: unknown) => void) | undefined = undefined;
  /** Takes an answer that comes after the call was given up. */
  late: ReadAnswer | undefined = undefined;
  /** Is told when the call is settled. */
  over: ((e: unknown) => void) | undefined = undefined;
  /** The status of the answer; -1 before. */
  status = -1;
  /** The elements after the key. */
  args: readonly Arg[] = noArgs;
  /** Belongs to its connection, and is not repeated over another one. */
  pinned = false;
  /** How often it was sent, or was to be sent. */
  tries = 0;
  /** When a read was sent, for the near cache. */
  asked: Asked | undefined = undefined;
  /** The near cache's values of the namespace. */
  space: Space | undefined = undefined;

  /** The place of the request's elements after the timeout, in the buffer of its write. */
  from = 0;
  to = 0;
  /** These elements, if the caller's own bytes may be changed already when they are sent. */
  private body: Uint8Array | undefined = undefined;
  private elements = 0;

  constructor(
    readonly op: number,
    readonly timeout: number, // ms
    private readonly encode: (call: Call, w: Writer, id: number, timeout: number) => void,
    readonly readAnswer: ReadAnswer,
    /** What encode and readAnswer use. */
    readonly ns: string | null,
    readonly key: string | Uint8Array,
    public options: number,
  ) {}

  /** Writes the request. */
  write(w: Writer, id: number, timeout: number): void {
    if (this.body === undefined) {
      const at = w.n;
      this.encode(this, w, id, timeout);
      this.elements = w.buf[at + 4]! & 0x0f;
    } else {
      w.reserve(32);
      const at = w.begin(this.elements, id, this.op, timeout);
      w.raw(this.body);
      w.end(at);
    }
    this.from = w.body;
    this.to = w.n;
  }

  /** Keeps the elements as they are now, or as they were written into a buffer that is not used for others again. */
  retain(written?: Buffer): void {
    if (this.body !== undefined) {
      return;
    }
    if (written !== undefined) {
      const b = written.subarray(this.from, this.to);
      this.body = 2 * b.length >= written.length ? b : Buffer.from(b); // a part would keep all of the buffer
      return;
    }
    scratch.reset(false);
    this.write(scratch, 0, 0);
    this.body = Buffer.from(scratch.buf.subarray(this.from, this.to));
    scratch.reset(false);
  }

  succeed(v: unknown): void {
    if (!this.settled) {
      this.settled = true;
      this.over?.(undefined);
      this.resolve(v as never);
    }
  }

  fail(e: unknown): void {
    if (!this.settled) {
      this.settled = true;
      this.failed?.(e);
      this.over?.(e);
      this.reject(e);
    }
  }
}

/** The requests that a client repeats on its own after a connection that broke. */
export function repeatable(op: number): boolean {
  switch (op) {
    case Op.get: case Op.mget: case Op.lease: case Op.ping: case Op.stats: case Op.members: case Op.watch: return true;
    default: return false;
  }
}
