import { decode, Encoder, ExtensionCodec } from '@msgpack/msgpack';
import { cacheError } from './errors.js';
import { checkedMsgpack, isUtf8, maxDepth, maxElements } from './sizes.js';

/** The encodings of values: the low 8 bits of an item's flags. The upper 24 bits are the app's own. */
export const Encoding = { bytes: 0, integer: 2, text: 16, msgpack: 32 } as const;

const mask = 0xff;

/** What a value may be. An object is a plain one, whose values are of these types again. */
export type Value = unknown;

export interface Encoded {
  bytes: Uint8Array;
  flags: number;
}

const minInt = -(2n ** 63n);
const maxInt = 2n ** 63n - 1n;
const maxUint = 2n ** 64n - 1n;

/** The msgpack extensions: timestamps only. */
class Timestamps extends ExtensionCodec {
  override decode(data: Uint8Array, type: number, context: undefined): unknown {
    if (type !== -1) {
      throw new Error(`it has the msgpack extension ${type}`);
    }
    const date = super.decode(data, type, context);
    if (date instanceof Date && Number.isNaN(date.getTime())) {
      throw new Error('it has a time that no Date can say');
    }
    return date;
  }
}

const extensionCodec = new Timestamps();
const encoder = new Encoder({ useBigInt64: true, extensionCodec });

/** Returns the bytes of a value, and the flags that name their encoding. */
export function encodeValue(v: Value): Encoded {
  if (typeof v === 'string') {
    checkText(v, 'the value');
    return { bytes: Buffer.from(v), flags: Encoding.text };
  }
  if (typeof v === 'bigint' || typeof v === 'number' && Number.isSafeInteger(v)) {
    if (v < minInt || v > maxInt) {
      throw beyond('the value', v, '64 bits with a sign');
    }
    return { bytes: Buffer.from(String(v), 'latin1'), flags: Encoding.integer };
  }
  if (v instanceof Uint8Array) {
    checkClass(v, 'the value');
    return { bytes: v, flags: Encoding.bytes };
  }
  elements = 0;
  const wide = checkPlain(v, 'the value', 0);
  return { bytes: encoder.encode(wide ? widened(v) : v), flags: Encoding.msgpack };
}

/** Reports whether text has no half of a surrogate pair, so that UTF-8 can say it. */
export function isWellFormed(s: string): boolean {
  const check = (s as { isWellFormed?: () => boolean }).isWellFormed;
  return check ? check.call(s) : !/\p{Surrogate}/u.test(s);
}

let elements = 0; // that checkPlain has met

function count(n: number): void {
  elements += n;
  if (elements > maxElements) {
    throw cacheError('too_large', `the value has more than ${maxElements} elements: store it as a string, or in parts`);
  }
}

/** Returns a text as it is in an error. */
const cut = (s: string): string => (s.length > 200 ? `${s.slice(0, 100)}…${s.slice(-100)}` : s);

const unfit = (path: string, why: string): TypeError => new TypeError(`${cut(path)} ${why}`);

const beyond = (path: string, v: bigint | number, bits: string): Error => cacheError('too_large',
  `${cut(path)} is the number ${cut(String(v))}, beyond ${bits}: give a string`);

function checkText(s: string, path: string): void {
  if (!isWellFormed(s)) {
    throw unfit(path, 'has half a surrogate pair, which UTF-8 cannot say: give a Uint8Array');
  }
}

const has = (v: object, name: string): boolean => Object.prototype.hasOwnProperty.call(v, name);

/** Refuses an object of a class other than those that are read. Other realms have prototypes of their own. */
function checkClass(v: object, path: string): void {
  const p = Object.getPrototypeOf(v) as object | null;
  if (v instanceof Uint8Array ? p === Buffer.prototype || p === Uint8Array.prototype
    : v instanceof Date ? p !== null && has(p, 'getTime') || p === Date.prototype
      : Array.isArray(v) ? Array.isArray(p)
        : p === Object.prototype || p === null || has(p, 'isPrototypeOf')) {
    return;
  }
  const name = cut(String(p?.constructor?.name || 'class without a name'));
  throw unfit(path, `is a ${name}, and would not come back as one: make it a plain object, an array, a Date or a `
    + 'Buffer');
}

/**
 * Refuses what msgpack cannot say, or what would come back as something else. It reports whether there are integers
 * beyond 32 bits, which the library would write as floats.
 */
function checkPlain(v: unknown, path: string, depth: number): boolean {
  switch (typeof v) {
    case 'boolean': return false;
    case 'number': return isWide(v);
    case 'string': checkText(v, path); return false;
    case 'bigint':
      if (v < minInt || v > maxUint) {
        throw beyond(path, v, '64 bits');
      }
      return false;
    case 'object': break;
    default: throw unfit(path, `is of type ${typeof v}, which cannot be stored: leave it out, or give null`);
  }
  if (v === null) {
    return false;
  }
  checkClass(v, path);
  if (v instanceof Uint8Array) {
    return false;
  }
  if (v instanceof Date) {
    if (Number.isNaN(v.getTime())) {
      throw unfit(path, 'is an invalid Date: give a valid one');
    }
    return false;
  }
  if (depth === maxDepth) {
    throw unfit(path, `is deeper than ${maxDepth} levels, as a value that contains itself is: store a deep one as a `
      + 'string, such as JSON');
  }
  let wide = false;
  if (Array.isArray(v)) {
    for (let i = 0; i < v.length; i++) {
      count(1);
      wide = checkPlain(v[i], `${path}[${i}]`, depth + 1) || wide;
    }
    return wide;
  }
  for (const symbol of Object.getOwnPropertySymbols(v)) {
    if (Object.prototype.propertyIsEnumerable.call(v, symbol)) {
      throw unfit(path, `has the key ${cut(String(symbol))}, which is no text: leave it out`);
    }
  }
  for (const [name, element] of Object.entries(v)) {
    count(2);
    if (name === '__proto__') {
      throw unfit(path, 'has the key __proto__, which cannot be read again: rename it');
    }
    checkText(name, `${path}.${name}`);
    wide = checkPlain(element, `${path}.${name}`, depth + 1) || wide;
  }
  return wide;
}

const isWide = (v: number): boolean => Number.isSafeInteger(v) && (v > 0xffffffff || v < -0x80000000);

/** Returns a value whose integers beyond 32 bits are bigints: the library writes these as integers. */
function widened(v: unknown): unknown {
  if (typeof v === 'number') {
    return isWide(v) ? BigInt(v) : v;
  }
  if (Array.isArray(v)) {
    return v.map(widened);
  }
  if (typeof v !== 'object' || v === null || v instanceof Uint8Array || v instanceof Date) {
    return v;
  }
  return Object.fromEntries(Object.entries(v).map(([name, element]) => [name, widened(element)]));
}

/**
 * Decodes a value that lies at from..to of a buffer. What it returns does not use the buffer, except bytes if view is
 * true: then they are a part of it.
 */
export function decodeValue(buf: Buffer, from: number, to: number, flags: number, view: boolean, key: unknown): Value {
  switch (flags & mask) {
    case Encoding.bytes: return view ? buf.subarray(from, to) : Buffer.from(buf.subarray(from, to));
    case Encoding.text: return decodeText(buf, from, to, key);
    case Encoding.integer: return decodeInteger(buf, from, to, key);
    case Encoding.msgpack: return decodeMsgpack(buf.subarray(from, to), key);
    default:
      throw cacheError('encoding', `the value of ${name(key)} has the mark ${flags & mask}, which names no encoding: `
        + 'getItem gives its bytes');
  }
}

function name(key: unknown): string {
  return typeof key === 'string' ? JSON.stringify(key) : `0x${Buffer.from(key as Uint8Array).toString('hex')}`;
}

const malformed = (key: unknown, what: string, why: unknown): Error => cacheError('encoding',
  `the value of ${name(key)} is marked as ${what}, and is not${why instanceof RangeError ? ` (${why.message})` : ''}: `
  + 'getItem gives its bytes', why);

function decodeText(buf: Buffer, from: number, to: number, key: unknown): string {
  const s = buf.toString('utf8', from, to);
  if (s.includes('\ufffd') && !isUtf8(buf.subarray(from, to))) {
    throw malformed(key, 'UTF-8 text', undefined);
  }
  return s;
}

function decodeInteger(buf: Buffer, from: number, to: number, key: unknown): number | bigint {
  const s = buf.toString('latin1', from, to);
  const n = to - from <= 20 && /^(0|-?[1-9][0-9]*)$/.test(s) ? Number(s) : NaN;
  if (Number.isSafeInteger(n)) {
    return n;
  }
  const big = Number.isNaN(n) ? maxInt + 1n : BigInt(s);
  if (big < minInt || big > maxInt) {
    throw malformed(key, 'a number of 64 bits', undefined);
  }
  return big;
}

function decodeMsgpack(b: Buffer, key: unknown): unknown {
  try {
    const whole = checkedMsgpack(b);
    let v: unknown;
    holes = 0;
    try {
      v = decode(whole, { useBigInt64: true, extensionCodec, mapKeyConverter });
    } catch (e) {
      if (e !== sparse) {
        throw e;
      }
      v = unmarked(decode(whole, { useBigInt64: true, extensionCodec, mapKeyConverter: markedKey }));
    }
    return b.includes(0xcf) || b.includes(0xd3) ? narrowed(v) : detached(v);
  } catch (e) {
    throw malformed(key, 'msgpack', e);
  }
}

function textOf(key: unknown): string {
  if (typeof key === 'string' || typeof key === 'number' || typeof key === 'bigint') {
    return String(key);
  }
  throw new RangeError('it has a map whose keys are no text');
}

// V8 makes room for all integers up to the largest key of an object, if that is no more than some thousands: 12 KB for
// an object with the key 1023. Where that comes to much, objects are made again in its other way, by hashes.
let holes = 0; // at most, in objects that are being decoded
const maxHoles = 1 << 22; // 50 MB
const sparse = new Error('many objects have keys that are integers');

function mapKeyConverter(key: unknown): string | number {
  const text = typeof key === 'number' || typeof key === 'string' ? key : textOf(key);
  if (typeof text === 'number' ? text >= 0 && text < 10_000 : text.length < 5 && text >= '0' && text < ':') {
    holes += Number(text) || 0;
    if (holes > maxHoles) {
      throw sparse;
    }
  }
  return text;
}

/** Returns a key that is no integer. */
const markedKey = (key: unknown): string => `.${textOf(key)}`;

/** Returns a value whose keys were marked. */
function unmarked(v: unknown): unknown {
  if (typeof v !== 'object' || v === null || v instanceof Uint8Array || v instanceof Date || Array.isArray(v)) {
    return eachBelow(v, unmarked);
  }
  const made: Record<string, unknown> = { 4294967294: null }; // the largest one that counts as such
  delete made[4294967294];
  for (const [key, element] of Object.entries(v)) {
    made[key.slice(1)] = unmarked(element);
  }
  return made;
}

/** Returns numbers of 64 bits as numbers where they are safe. */
export function narrowed(v: unknown): unknown {
  if (typeof v === 'bigint') {
    const n = Number(v);
    return Number.isSafeInteger(n) ? n : v;
  }
  return eachBelow(v, narrowed);
}

/** Copies bytes, so that they do not use the buffer of the connection. */
function detached(v: unknown): unknown {
  return eachBelow(v, detached);
}

function eachBelow(v: unknown, f: (v: unknown) => unknown): unknown {
  if (typeof v !== 'object' || v === null || v instanceof Date) {
    return v;
  }
  if (v instanceof Uint8Array) {
    return Buffer.from(v);
  }
  if (Array.isArray(v)) {
    for (let i = 0; i < v.length; i++) {
      v[i] = f(v[i]);
    }
    return v;
  }
  const map = v as Record<string, unknown>;
  for (const key of Object.keys(map)) {
    map[key] = f(map[key]);
  }
  return v;
}
