import { decode, Encoder, ExtensionCodec } from '@msgpack/msgpack';
import * as buffer from 'node:buffer';
import { cacheError } from './errors.js';

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
    return super.decode(data, type, context);
  }
}

const extensionCodec = new Timestamps();
const encoder = new Encoder({ useBigInt64: true, extensionCodec });

/** Returns the bytes of a value, and the flags that name their encoding. */
export function encodeValue(v: Value): Encoded {
  if (typeof v === 'string') {
    return { bytes: Buffer.from(wellFormed(v)), flags: Encoding.text };
  }
  if (typeof v === 'bigint' || typeof v === 'number' && Number.isSafeInteger(v)) {
    if (v < minInt || v > maxInt) {
      throw cacheError('too_large', `the number ${v} is beyond 64 bits with a sign: give a string`);
    }
    return { bytes: Buffer.from(String(v), 'latin1'), flags: Encoding.integer };
  }
  if (v instanceof Uint8Array) {
    return { bytes: v, flags: Encoding.bytes };
  }
  checkPlain(v, 'the value', 0);
  return { bytes: encoder.encode(v), flags: Encoding.msgpack };
}

function wellFormed(s: string): string {
  const check = (s as { isWellFormed?: () => boolean }).isWellFormed;
  if (check ? !check.call(s) : /\p{Surrogate}/u.test(s)) {
    throw new TypeError('the string has half a surrogate pair, which UTF-8 cannot say: give a Uint8Array');
  }
  return s;
}

const maxDepth = 64;

/** Refuses what msgpack cannot say, or what would come back as something else. */
function checkPlain(v: unknown, path: string, depth: number): void {
  switch (typeof v) {
    case 'boolean': case 'number': return;
    case 'string': wellFormed(v); return;
    case 'bigint':
      if (v < minInt || v > maxUint) {
        throw cacheError('too_large', `${path} is the number ${v}, beyond 64 bits: give a string`);
      }
      return;
    case 'object': break;
    default: throw new TypeError(`${path} is of type ${typeof v}, which cannot be stored: leave it out, or give null`);
  }
  if (v === null || v instanceof Uint8Array) {
    return;
  }
  if (v instanceof Date) {
    if (Number.isNaN(v.getTime())) {
      throw new TypeError(`${path} is an invalid Date: give a valid one`);
    }
    return;
  }
  if (depth === maxDepth) {
    throw new TypeError(`${path} is deeper than ${maxDepth} levels: store it as a string, such as JSON`);
  }
  if (Array.isArray(v)) {
    v.forEach((element, i) => checkPlain(element, `${path}[${i}]`, depth + 1));
    return;
  }
  const prototype: unknown = Object.getPrototypeOf(v);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    const name = (v as object).constructor?.name ?? 'object';
    throw new TypeError(`${path} is a ${name}, which cannot be stored: convert it to a plain object`);
  }
  for (const [name, element] of Object.entries(v)) {
    checkPlain(element, `${path}.${name}`, depth + 1);
  }
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
  `the value of ${name(key)} is marked as ${what}, and is not: getItem gives its bytes`, why);

// Node 18.14 and later have isUtf8.
const isUtf8 = (buffer as { isUtf8?: (b: Uint8Array) => boolean }).isUtf8
  ?? ((b: Uint8Array) => Buffer.from(Buffer.from(b).toString()).equals(b));

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

function decodeMsgpack(b: Uint8Array, key: unknown): unknown {
  try {
    const v = decode(b, { useBigInt64: true, extensionCodec, mapKeyConverter });
    return b.includes(0xcf) || b.includes(0xd3) ? narrowed(v) : detached(v);
  } catch (e) {
    throw malformed(key, 'msgpack', e);
  }
}

function mapKeyConverter(key: unknown): string | number {
  if (typeof key === 'string' || typeof key === 'number') {
    return key;
  }
  if (typeof key === 'bigint') {
    return String(key);
  }
  throw new Error('it has a map whose keys are no text');
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
