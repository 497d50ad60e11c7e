import type { Call, CallConnection, ReadAnswer } from './call.js';
import { Status, Why } from './codes.js';
import { decodeValue, narrowed } from './encoding.js';
import { type CacheError, statusError } from './errors.js';
import { wrote } from './near.js';
import { Malformed, type Reader } from './reader.js';
import type { Key } from './requests.js';

/** What a read has found, without decoding. */
export interface Item {
  /** The bytes; they belong to the caller. */
  value: Buffer;
  /** As set by the writer; the low 8 bits name the encoding. */
  flags: number;
  /** For compareAndSwap; a newer value has a higher one. */
  version: bigint;
  /** What is left, in milliseconds; undefined: no expiry. */
  ttl: number | undefined;
  /** Where the value was: l1, l2, peer or origin. */
  source: string;
  /**
   * For how many milliseconds the value may have been outdated, at most, and not how old it is. Of a stale value it is
   * the time since the value's end.
   */
  age: number;
  /** A value after its end; only with staleOk. */
  stale: boolean;
}

const sources = ['', 'l1', 'l2', 'peer', 'origin'];

/** Miss is the result of a lookup that has found no value. */
export class Miss {
  private constructor(readonly why: number) {}
  static readonly notCached = new Miss(Why.notCached);
  static readonly absent = new Miss(Why.absent);
  static readonly degraded = new Miss(Why.degraded);
  static of(why: number): Miss {
    return why === Why.absent ? Miss.absent : why === Why.degraded ? Miss.degraded : Miss.notCached;
  }
}

const few = (): Malformed => new Malformed('the sidecar\'s answer is malformed: it has too few elements');

const view = (r: Reader, from: number, to: number): boolean => r.owned && 2 * (to - from) >= r.buf.length;

/** Makes a result of the value at a place. */
type Make = (r: Reader, from: number, to: number, flags: number, key: Key) => unknown;

/** Keeps the answer to a read, whose reader is at the version. */
function keep(
  call: Call, key: Key, r: Reader, conn: CallConnection, from: number, to: number, flags: number, rest: number,
): void {
  if (rest >= 7 && call.space !== undefined && call.asked !== undefined) {
    call.space.near.keep(call.space, key, call.asked, r, conn.welcome.epoch, { from, to, flags });
  }
}

/** Reads an answer to GET: what is made of the value, or a Miss. */
export function located(
  call: Call, status: number, elements: number, r: Reader, conn: CallConnection, make: Make,
): unknown {
  if (status === Status.ok || status === Status.stale) {
    if (elements < 6) {
      throw few();
    }
    r.bytes();
    const { from, to } = r;
    const flags = r.uint();
    if (call.asked !== undefined && status === Status.ok) {
      keep(call, call.key, r, conn, from, to, flags, elements - 2);
    }
    return make(r, from, to, flags, call.key);
  }
  if (status !== Status.miss || elements < 1) {
    throw few();
  }
  return Miss.of(r.uint());
}

const decoded: Make = (r, from, to, flags, key) => decodeValue(r.buf, from, to, flags, view(r, from, to), key);

/** Reads an answer to GET: the value, or a Miss. */
export const lookup: ReadAnswer = (call, status, elements, r, conn) => (
  located(call, status, elements, r, conn, decoded));

/** Reads an answer to GET: the value, or undefined. */
export const value: ReadAnswer = (call, status, elements, r, conn) => {
  const found = lookup(call, status, elements, r, conn);
  return found instanceof Miss ? undefined : found;
};

/** Reads an answer to GET: an Item, or undefined. */
export const item: ReadAnswer = (_call, status, elements, r) => {
  if (status === Status.miss) {
    return undefined;
  }
  if (elements < 6) {
    throw few();
  }
  r.bytes();
  const { from, to, buf } = r;
  const whole = view(r, from, to);
  const flags = r.uint();
  const version = r.version();
  const ttl = r.uint();
  const source = r.uint();
  const found: Item = {
    value: whole ? buf.subarray(from, to) : Buffer.from(buf.subarray(from, to)),
    flags, version, ttl: ttl === 0 ? undefined : ttl,
    source: sources[source] ?? `source ${source}`, age: r.uint(), stale: status === Status.stale,
  };
  return found;
};

/** What an answer to MGET has for a key: a value, or an error; neither: a miss. */
export interface Got {
  value: unknown;
  error: unknown;
  busy: boolean;
}

/** Reads an answer to MGET for some keys. */
export function several(keys: readonly (string | Uint8Array)[]): ReadAnswer {
  return (call, _status, elements, r, conn) => {
    if (elements < 1 || r.array() !== keys.length) {
      throw new Malformed(`the sidecar's answer is malformed: it has not ${keys.length} items`);
    }
    return keys.map((key): Got => {
      const n = r.array() - 1;
      const status = r.uint();
      if (status >= Status.firstError) {
        return { value: undefined, error: itemError(status, n, r), busy: status === Status.busy };
      }
      try {
        const value = status === Status.miss ? skipped(r, n) : one(call, key, status, n, r, conn);
        return { value, error: undefined, busy: false };
      } catch (error) {
        if (error instanceof Malformed) {
          throw error;
        }
        return { value: undefined, error, busy: false }; // it cannot be decoded
      }
    });
  };
}

/** Reads an item that has an error. */
function itemError(status: number, n: number, r: Reader): CacheError {
  const error = statusError(status, n > 0 ? r.text() : '');
  r.skip(Math.max(0, n - 1));
  return error;
}

function skipped(r: Reader, n: number): undefined {
  r.skip(n);
  return undefined;
}

function one(
  call: Call, key: string | Uint8Array, status: number, n: number, r: Reader, conn: CallConnection,
): unknown {
  if (n < 6) {
    throw few();
  }
  r.bytes();
  const { from, to } = r;
  const flags = r.uint();
  const at = r.pos;
  if (call.asked !== undefined && status === Status.ok) {
    keep(call, key, r, conn, from, to, flags, n - 2);
  }
  r.pos = at;
  r.skip(n - 2);
  return decodeValue(r.buf, from, to, flags, false, key);
}

/**
 * Notes a change of the call's key for the near cache. The first element is the version of the value, a second one that of
 * the change; no elements: it is not known.
 */
function noteVersion(call: Call, r: Reader, elements: number): void {
  if (elements > 0) {
    const at = r.pos;
    r.skip(elements > 1 ? 1 : 0);
    r.u64();
    wrote(call.space, call.key, r.hi, r.lo);
    r.pos = at;
  } else {
    wrote(call.space, call.key, 0, 0);
  }
}

/** What a conditional write has done. */
export interface Stored {
  stored: boolean;
  /** Of what was stored, or of what is there; undefined: the key has no value. */
  version: bigint | undefined;
}

/** Reads an answer to SET. */
export const stored: ReadAnswer = (call, status, elements, r) => {
  const has = status !== Status.miss;
  if (has && elements < 1) {
    throw few();
  }
  if (call.space !== undefined) {
    noteVersion(call, r, has ? elements : 0);
  }
  const result: Stored = { stored: status === Status.ok, version: has ? r.version() : undefined };
  return result;
};

/** Reads an answer to DELETE for some keys: which had a value, or why that is not known. */
export function deleted(keys: readonly (string | Uint8Array)[]): ReadAnswer {
  return (call, _status, elements, r) => {
    if (elements < 1 || r.array() !== keys.length) {
      throw new Malformed(`the sidecar's answer is malformed: it has not ${keys.length} items`);
    }
    return keys.map((key): boolean | CacheError => {
      const n = r.array() - 1;
      const status = r.uint();
      if (status >= Status.notStored) {
        wrote(call.space, key, 0, 0);
        return itemError(status, n, r);
      }
      if (n < 1) {
        throw few();
      }
      // A deletion that found no value counts too: the owner may have lost a value that is kept here.
      r.u64();
      wrote(call.space, key, r.hi, r.lo);
      r.skip(n - 1);
      return status === Status.ok;
    });
  };
}

/** Reads an answer to TOUCH. */
export const touched: ReadAnswer = (call, status, elements, r) => {
  if (status === Status.ok && elements >= 2) {
    r.skip(1);
    r.u64(); // of the change
    wrote(call.space, call.key, r.hi, r.lo);
    return true;
  }
  wrote(call.space, call.key, 0, 0);
  return false;
};

/** Reads an answer to METAGET with a new TTL: the value, or undefined. A stale value is not touched. */
export const gotAndTouched: ReadAnswer = (call, status, elements, r) => {
  if (status === Status.miss) {
    wrote(call.space, call.key, 0, 0);
    return undefined;
  }
  if (elements < 10 || status !== Status.ok && status !== Status.stale) {
    throw few();
  }
  r.bytes();
  const { from, to } = r;
  const flags = r.uint();
  r.skip(7);
  r.u64(); // the version of the change
  if (status === Status.stale) {
    return undefined;
  }
  wrote(call.space, call.key, r.hi, r.lo);
  return decoded(r, from, to, flags, call.key);
};

/** Reads an answer to INCR of unsigned numbers. */
export const incrementedUnsigned: ReadAnswer = (call, status, elements, r) => counted(call, status, elements, r, true);

/** Reads an answer to INCR. */
export const incremented: ReadAnswer = (call, status, elements, r) => counted(call, status, elements, r, false);

function counted(
  call: Call, status: number, elements: number, r: Reader, unsigned: boolean,
): number | bigint | undefined {
  if (status !== Status.ok) {
    wrote(call.space, call.key, 0, 0);
    return undefined;
  }
  if (elements < 2) {
    throw few();
  }
  const sum = unsigned ? r.version() : r.i64();
  r.u64();
  wrote(call.space, call.key, r.hi, r.lo);
  const n = Number(sum);
  return Number.isSafeInteger(n) ? n : sum;
}

/** Reads an answer without a result. */
export const nothing: ReadAnswer = () => undefined;

/** Reads an answer with a map or an array. */
export const body: ReadAnswer = (_call, _status, elements, r) => {
  if (elements < 1) {
    throw few();
  }
  return narrowed(r.rest());
};
