import * as buffer from 'node:buffer';
import { decode, encode } from '@msgpack/msgpack';
import { fixedSizes } from './reader.js';

// Node 18.14 and later have isUtf8.
export const isUtf8 = (buffer as { isUtf8?: (b: Uint8Array) => boolean }).isUtf8
  ?? ((b: Uint8Array) => Buffer.from(Buffer.from(b).toString()).equals(b));

const byDecoder = 200; // bytes: longer text is read by the library with a TextDecoder, which drops a byte order mark
const drops = String(decode(encode(`\ufeff${'x'.repeat(byDecoder)}`))).length === byDecoder;
const mark = Buffer.from('\ufeff');

/** Puts a byte order mark before texts that begin with one, so that one is left. */
function doubled(b: Buffer, texts: readonly (readonly [head: number, from: number, to: number])[]): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  for (const [head, from, to] of texts) {
    const size = Buffer.of(0xdb, 0, 0, 0, 0);
    size.writeUInt32BE(mark.length + to - from, 1);
    parts.push(b.subarray(at, head), size, mark);
    at = from;
  }
  return Buffer.concat([...parts, b.subarray(at)]);
}

// The bounds of a value as msgpack, the same in all languages.
/** Arrays and maps within each other. */
export const maxDepth = 64;
/** Items of arrays, keys and values of maps, of the whole value. */
export const maxElements = 1 << 20;

const ends = new Int32Array(maxDepth); // elements that are to come at the end of each array and map that is around

/**
 * Checks that bytes are one whole msgpack value within the bounds, whose texts are UTF-8, and returns what the library
 * is to decode. The library makes room for as many elements as an array claims to have, so a few bytes that lie could
 * take all memory, and it reads malformed text as other text.
 */
export function checkedMsgpack(b: Buffer): Buffer {
  const marked: [number, number, number][] = [];
  let at = 0;
  let depth = 0;
  let elements = 0;
  for (let left = 1; left > 0; left--) { // elements that are to come
    while (depth > 0 && ends[depth - 1] === left) {
      depth--;
    }
    const head = at;
    const c = b[at++];
    if (c === undefined || left > b.length - at + 1) {
      throw new RangeError('it ends early');
    }
    if (c < 0x80 || c >= 0xe0) {
      continue;
    }
    const fixed = c < 0xa0 ? c & 0x0f : c < 0xc0 ? c & 0x1f : fixedSizes[c - 0xc0]!;
    let n = fixed;
    if (fixed < 0) { // the size of the length that follows
      n = b.readUIntBE(at, -fixed);
      at -= fixed;
    }
    if (c < 0xa0 || c >= 0xdc) {
      n *= c < 0x90 || c >= 0xde ? 2 : 1;
      elements += n;
      if (elements > maxElements) {
        throw new RangeError(`it has more than ${maxElements} elements`);
      }
      if (depth === maxDepth) {
        throw new RangeError(`it nests deeper than ${maxDepth} levels`);
      }
      ends[depth++] = left - 1;
      left += n;
      continue;
    }
    n += c >= 0xc7 && c <= 0xc9 ? 1 : 0; // the type of an extension
    at += n;
    if ((c < 0xc0 || c >= 0xd9) && n > 0) {
      const text = b.subarray(at - n, at);
      if (!isUtf8(text)) {
        throw new RangeError('it has text that is no UTF-8');
      }
      if (drops && n > byDecoder && text.subarray(0, mark.length).equals(mark)) {
        marked.push([head, at - n, at]);
      }
    }
  }
  if (at !== b.length) {
    throw new RangeError(at < b.length ? 'further bytes follow' : 'it ends early');
  }
  return marked.length === 0 ? b : doubled(b, marked);
}
