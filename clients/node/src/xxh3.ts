// XXH3, the 64-bit hash of xxHash (Yann Collet), for up to 1,024 bytes. A number of 64 bits is two halves of 32 bits,
// hi and lo: BigInt takes five times as long. Keys above 240 bytes are rare, and take the short way with BigInt.

const secret = Buffer.from(
  'b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e'
  + 'e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d'
  + '8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc'
  + '8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e', 'hex');

/** The two halves of the latest result, signed. */
export let hi = 0;
export let lo = 0;

const read32 = (b: Uint8Array, at: number): number => b[at]! | b[at + 1]! << 8 | b[at + 2]! << 16 | b[at + 3]! << 24;

const swap32 = (v: number): number => v << 24 | (v & 0xff00) << 8 | v >>> 8 & 0xff00 | v >>> 24;

const carry = (sum: number, part: number): number => (sum >>> 0 < part >>> 0 ? 1 : 0);

/** The upper half of the product of two halves. */
function mulHigh(a: number, b: number): number {
  const al = a & 0xffff;
  const ah = a >>> 16;
  const bl = b & 0xffff;
  const bh = b >>> 16;
  const mid = ah * bl + (Math.imul(al, bl) >>> 16);
  const mid2 = al * bh + (mid & 0xffff);
  return ah * bh + (mid >>> 16) + (mid2 >>> 16) | 0;
}

function add(h: number, l: number): void {
  lo = lo + l | 0;
  hi = hi + h + carry(lo, l) | 0;
}

/** Multiplies the result by a constant. */
function mul(h: number, l: number): void {
  hi = mulHigh(lo, l) + Math.imul(lo, h) + Math.imul(hi, l) | 0;
  lo = Math.imul(lo, l);
}

/** Adds the folded product of two numbers, of 128 bits, to the result. */
function addFold(ah: number, al: number, bh: number, bl: number): void {
  const p0 = Math.imul(al, bl);
  let p1 = mulHigh(al, bl);
  let p2 = mulHigh(ah, bl);
  let p3 = mulHigh(ah, bh);
  let part = Math.imul(ah, bl);
  p1 = p1 + part | 0;
  let c = carry(p1, part);
  part = Math.imul(al, bh);
  p1 = p1 + part | 0;
  c += carry(p1, part);
  p2 = p2 + c | 0;
  c = carry(p2, c);
  part = mulHigh(al, bh);
  p2 = p2 + part | 0;
  c += carry(p2, part);
  part = Math.imul(ah, bh);
  p2 = p2 + part | 0;
  c += carry(p2, part);
  p3 = p3 + c | 0;
  add(p1 ^ p3, p0 ^ p2);
}

/** Adds 16 bytes, mixed with the secret. */
function mix(b: Uint8Array, at: number, key: number, seedHi: number, seedLo: number): void {
  const k0 = read32(secret, key);
  const al = k0 + seedLo | 0;
  const ah = read32(secret, key + 4) + seedHi + carry(al, k0) | 0;
  const k1 = read32(secret, key + 8);
  const bl = k1 - seedLo | 0;
  const bh = read32(secret, key + 12) - seedHi - (k1 >>> 0 < seedLo >>> 0 ? 1 : 0) | 0;
  addFold(read32(b, at + 4) ^ ah, read32(b, at) ^ al, read32(b, at + 12) ^ bh, read32(b, at + 8) ^ bl);
}

function avalanche(): void {
  lo ^= hi >>> 5; // h ^= h >> 37
  mul(0x16566791, 0x9e3779f9 | 0);
  lo ^= hi;
}

function avalanche64(): void {
  lo ^= hi >>> 1; // h ^= h >> 33
  mul(0xc2b2ae3d | 0, 0x27d4eb4f);
  lo ^= lo >>> 29 | hi << 3;
  hi ^= hi >>> 29;
  mul(0x165667b1, 0x9e3779f9 | 0);
  lo ^= hi;
}

/** Computes the hash of n bytes into hi and lo. */
export function hash(b: Uint8Array, n: number, seedHi: number, seedLo: number): void {
  if (n > 240) {
    long(b, n, seedHi, seedLo);
  } else if (n > 16) {
    middle(b, n, seedHi, seedLo);
  } else if (n > 8) {
    upTo16(b, n, seedHi, seedLo);
  } else if (n > 3) {
    upTo8(b, n, seedHi, seedLo);
  } else {
    upTo3(b, n, seedHi, seedLo);
  }
}

function upTo3(b: Uint8Array, n: number, seedHi: number, seedLo: number): void {
  if (n === 0) {
    lo = seedLo ^ read32(secret, 56) ^ read32(secret, 64);
    hi = seedHi ^ read32(secret, 60) ^ read32(secret, 68);
  } else {
    const flip = read32(secret, 0) ^ read32(secret, 4);
    lo = flip + seedLo | 0;
    hi = seedHi + carry(lo, flip) | 0;
    lo ^= b[0]! << 16 | b[n >> 1]! << 24 | b[n - 1]! | n << 8;
  }
  avalanche64();
}

function upTo8(b: Uint8Array, n: number, seedHi: number, seedLo: number): void {
  const sh = seedHi ^ swap32(seedLo);
  const k = read32(secret, 8) ^ read32(secret, 16);
  const borrow = k >>> 0 < seedLo >>> 0 ? 1 : 0;
  const l = read32(b, n - 4) ^ (k - seedLo | 0);
  const h = read32(b, 0) ^ ((read32(secret, 12) ^ read32(secret, 20)) - sh - borrow | 0);
  // rrmxmx
  lo = l ^ (l >>> 15 | h << 17) ^ (l << 24 | h >>> 8);
  hi = h ^ (h >>> 15 | l << 17) ^ (h << 24 | l >>> 8);
  mul(0x9fb21c65 | 0, 0x1e98df25);
  const add35 = (hi >>> 3) + n;
  lo ^= add35;
  mul(0x9fb21c65 | 0, 0x1e98df25);
  lo ^= lo >>> 28 | hi << 4;
  hi ^= hi >>> 28;
}

function upTo16(b: Uint8Array, n: number, seedHi: number, seedLo: number): void {
  const k1 = read32(secret, 24) ^ read32(secret, 32);
  const f1l = k1 + seedLo | 0;
  const f1h = (read32(secret, 28) ^ read32(secret, 36)) + seedHi + carry(f1l, k1) | 0;
  const k2 = read32(secret, 40) ^ read32(secret, 48);
  const f2l = k2 - seedLo | 0;
  const f2h = (read32(secret, 44) ^ read32(secret, 52)) - seedHi - (k2 >>> 0 < seedLo >>> 0 ? 1 : 0) | 0;
  const al = read32(b, 0) ^ f1l;
  const ah = read32(b, 4) ^ f1h;
  const bl = read32(b, n - 8) ^ f2l;
  const bh = read32(b, n - 4) ^ f2h;
  hi = 0;
  lo = n;
  add(swap32(al), swap32(ah));
  add(bh, bl);
  addFold(ah, al, bh, bl);
  avalanche();
}

function middle(b: Uint8Array, n: number, seedHi: number, seedLo: number): void {
  hi = 0;
  lo = n;
  mul(0x9e3779b1 | 0, 0x85ebca87 | 0);
  if (n <= 128) {
    for (let i = n - 1 >> 5; i >= 0; i--) {
      mix(b, 16 * i, 32 * i, seedHi, seedLo);
      mix(b, n - 16 * (i + 1), 32 * i + 16, seedHi, seedLo);
    }
  } else {
    for (let i = 0; i < 8; i++) {
      mix(b, 16 * i, 16 * i, seedHi, seedLo);
    }
    avalanche();
    for (let i = 8; i < n >> 4; i++) {
      mix(b, 16 * i, 16 * (i - 8) + 3, seedHi, seedLo);
    }
    mix(b, n - 16, 136 - 17, seedHi, seedLo);
  }
  avalanche();
}

const u64 = (v: bigint): bigint => BigInt.asUintN(64, v);
const primes32 = [0x9e3779b1n, 0x85ebca77n, 0xc2b2ae3dn] as const;
const prime64 = 0x9e3779b185ebca87n;
const starts = [
  primes32[2], prime64, 0xc2b2ae3d27d4eb4fn, 0x165667b19e3779f9n, 0x85ebca77c2b2ae63n, primes32[1], 0x27d4eb2f165667c5n,
  primes32[0],
];

/** Hashes 241 to 1,024 bytes: one block, so nothing is scrambled. */
function long(b: Uint8Array, n: number, seedHi: number, seedLo: number): void {
  const seed = BigInt(seedHi >>> 0) << 32n | BigInt(seedLo >>> 0);
  const key = Buffer.alloc(192);
  for (let i = 0; i < 192; i += 16) {
    key.writeBigUInt64LE(u64(secret.readBigUInt64LE(i) + seed), i);
    key.writeBigUInt64LE(u64(secret.readBigUInt64LE(i + 8) - seed), i + 8);
  }
  const data = Buffer.from(b.buffer, b.byteOffset, n);
  const acc = [...starts];
  const stripe = (at: number, k: number): void => {
    for (let i = 0; i < 8; i++) {
      const v = data.readBigUInt64LE(at + 8 * i);
      const x = v ^ key.readBigUInt64LE(k + 8 * i);
      acc[i ^ 1] = u64(acc[i ^ 1]! + v);
      acc[i] = u64(acc[i]! + (x & 0xffffffffn) * (x >> 32n));
    }
  };
  for (let i = 0; i < n - 1 >> 6; i++) {
    stripe(64 * i, 8 * i);
  }
  stripe(n - 64, 192 - 64 - 7);
  let sum = u64(BigInt(n) * prime64);
  for (let i = 0; i < 4; i++) {
    const a = acc[2 * i]! ^ key.readBigUInt64LE(11 + 16 * i);
    const product = a * (acc[2 * i + 1]! ^ key.readBigUInt64LE(19 + 16 * i));
    sum = u64(sum + (u64(product) ^ product >> 64n));
  }
  hi = Number(sum >> 32n) | 0;
  lo = Number(sum & 0xffffffffn) | 0;
  avalanche();
}
