import { Call, type CallConnection, type ReadAnswer } from './call.js';
import { Bit, Op, Status } from './codes.js';
import type { Core } from './core.js';
import type { Encoded } from './encoding.js';
import { cacheError, CacheError, mayHaveChanged } from './errors.js';
import { located, nothing, stored } from './replies.js';
import type { Reader } from './reader.js';
import { type Key, optional, writeKeyed } from './requests.js';
import { type Space, wrote } from './near.js';

/** Lease is the right and the duty to load a missing key. It is good over the connection by which it came. */
export class Lease {
  private open = true;

  constructor(
    private readonly conn: CallConnection,
    private readonly token: Uint8Array,
    private readonly ns: string | null,
    private readonly key: Key,
    private readonly timeout: number,
  ) {
    conn.leases++;
  }

  /** Stores the loaded value, and gives it to those who wait. An error says why it was not stored. */
  async fill(v: Encoded, ttl: number | null, flags: number, space: Space | undefined, core: Core): Promise<void> {
    const call = new Call(Op.fill, this.timeout, writeKeyed, stored, this.ns, this.key, 0);
    call.args = [this.token, v.bytes, ttl, optional(flags)];
    call.space = space;
    call.failed = (e) => {
      if (mayHaveChanged(e)) {
        wrote(space, this.key, 0, 0);
      }
    };
    core.observe(call);
    try {
      if (this.conn.doubted) {
        await this.conn.certain();
      }
      await this.send(call);
      this.done();
    } catch (e) {
      if (e instanceof CacheError && !mayHaveChanged(e)) {
        this.abandon();
      }
      this.done();
      throw e;
    }
  }

  /** Gives the lease back without a value. */
  abandon(): void {
    if (!this.open) {
      return;
    }
    const call = new Call(Op.fill, this.timeout, writeKeyed, nothing, this.ns, this.key, 0);
    call.args = [this.token, null, null, null, Bit.abandon];
    this.send(call).catch(() => {}); // the token ends by itself then
    this.done();
  }

  private send(call: Call): Promise<unknown> {
    call.pinned = true;
    return new Promise((resolve, reject) => {
      call.resolve = resolve;
      call.reject = reject;
      if (!this.conn.start(call, true)) {
        reject(cacheError('unavailable', 'the connection by which the token came has ended, and so has the token'));
      }
    });
  }

  private done(): void {
    if (this.open) {
      this.open = false;
      this.conn.returnedLease();
    }
  }
}

const encodedAt = (r: Reader, from: number, to: number, flags: number): Encoded => (
  { bytes: Buffer.from(r.buf.subarray(from, to)), flags });

/** Reads an answer to LEASE: the value, encoded still, since several may share it, a Miss, or a Lease. */
export const leased: ReadAnswer = (call, status, elements, r, conn) => {
  if (status !== Status.lease) {
    return located(call, status, elements, r, conn, encodedAt);
  }
  r.bytes();
  const token = Buffer.from(r.buf.subarray(r.from, r.to));
  return new Lease(conn, token, call.ns, call.key, call.timeout);
};

/** Gives back a token whose caller has left. */
export const lateLease: ReadAnswer = (call, status, elements, r, conn) => {
  if (status === Status.lease) {
    (leased(call, status, elements, r, conn) as Lease).abandon();
  }
};
