import type { Call } from './call.js';
import { read } from './clock.js';
import { Bit, limits } from './codes.js';
import { isWellFormed } from './encoding.js';
import { cacheError } from './errors.js';
import type { Space } from './near.js';
import type { Arg, Writer } from './writer.js';

/** A key: 1 to 1,024 bytes. A string is its UTF-8. */
export type Key = string | Uint8Array;

const most = limits.key.toLocaleString('en');

/** Checks a key, and returns it. Bytes are copied: the caller may change them before the answer comes. */
export function keyOf<K extends Key>(key: K): K {
  checkKey(key);
  return typeof key === 'string' ? key : Buffer.from(key) as Uint8Array as K;
}

/** Checks a key. */
export function checkKey(key: Key): void {
  if (typeof key === 'string') {
    if (!isWellFormed(key)) {
      throw new TypeError(`the key ${JSON.stringify(key.slice(0, 100))} has half a surrogate pair, which UTF-8 cannot `
        + 'say: give a Uint8Array');
    }
    if (key.length > 0 && (key.length <= 341 || Buffer.byteLength(key) <= limits.key)) {
      return;
    }
  } else if (key instanceof Uint8Array) {
    if (key.length > 0 && key.length <= limits.key) {
      return;
    }
  } else {
    const type = (key as unknown) === null ? 'null' : typeof key;
    throw new TypeError(`a key of type ${type}: give a string or a Uint8Array, of 1 to ${most} bytes`);
  }
  throw cacheError('bad_request', `a key of ${Buffer.byteLength(key)} bytes: give 1 to ${most}`);
}

const room = 112; // of everything in a request but the key, the value and longer names

/** Prepares a read for the near cache. */
export function prepareNear(call: Call, space: Space | undefined): void {
  const stream = space?.near.stream;
  if (stream !== undefined) {
    call.space = space;
    call.asked = { at: read(space!.near.clock), stream };
    call.options |= Bit.attest;
  }
}

/** Writes GET and LEASE: `ns, key, options`. */
export function writeRead(call: Call, w: Writer, id: number, timeout: number): void {
  w.reserve(room);
  const options = call.options;
  const at = w.begin(options === 0 ? 5 : 6, id, call.op, timeout);
  writeNamespace(w, call.ns);
  w.key(call.key);
  if (options !== 0) {
    w.reserve(9);
    w.uint(options);
  }
  w.end(at);
}

/** Writes `ns, key`, and the further elements, without defaults at the end. */
export function writeKeyed(call: Call, w: Writer, id: number, timeout: number): void {
  w.reserve(room);
  const n = withoutDefaults(call.args);
  const at = w.begin(5 + n, id, call.op, timeout);
  writeNamespace(w, call.ns);
  w.key(call.key);
  writeArgs(w, call.args, n);
  w.end(at);
}

/** Writes `ns` and the further elements. */
export function writeInNamespace(call: Call, w: Writer, id: number, timeout: number): void {
  w.reserve(room);
  const n = withoutDefaults(call.args);
  const at = w.begin(4 + n, id, call.op, timeout);
  writeNamespace(w, call.ns);
  writeArgs(w, call.args, n);
  w.end(at);
}

/** Writes the elements only. */
export function writeBare(call: Call, w: Writer, id: number, timeout: number): void {
  w.reserve(room);
  const n = withoutDefaults(call.args);
  const at = w.begin(3 + n, id, call.op, timeout);
  writeArgs(w, call.args, n);
  w.end(at);
}

function writeNamespace(w: Writer, ns: string | null): void {
  if (ns === null) {
    w.buf[w.n++] = 0xc0;
  } else {
    w.arg(ns);
  }
}

function writeArgs(w: Writer, args: readonly Arg[], n: number): void {
  for (let i = 0; i < n; i++) {
    w.arg(args[i]!);
  }
}

function withoutDefaults(args: readonly Arg[]): number {
  let n = args.length;
  while (n > 0 && args[n - 1] === null) {
    n--;
  }
  return n;
}

/** A number as it is sent: zero is left out. */
export const optional = (n: number): number | null => (n === 0 ? null : n);

/** In place of a TTL: the value does not expire. */
export const NO_EXPIRY: unique symbol = Symbol('NO_EXPIRY');

/** A TTL as it is sent. */
export function ttlArg(ttl: number | typeof NO_EXPIRY | undefined): number | null {
  if (ttl === undefined) {
    return null;
  }
  if (ttl === NO_EXPIRY) {
    return 0;
  }
  if (typeof ttl !== 'number' || !(ttl > 0 && ttl <= limits.ttl)) {
    throw cacheError('bad_request', `a ttl of ${String(ttl)} ms: give 1 to ${limits.ttl}, or NO_EXPIRY`);
  }
  return Math.ceil(ttl);
}

/** Adds the app's own mark to the flags of an encoding. */
export function markedFlags(flags: number, own: number | undefined): number {
  if (own === undefined || own === 0) {
    return flags;
  }
  if (!Number.isInteger(own) || own < 0 || own > 0xffffffff || (own & 0xff) !== 0) {
    throw cacheError('bad_request', `flags of ${own}: give 32 bits whose low 8 are 0, which name the encoding`);
  }
  return flags + own;
}
