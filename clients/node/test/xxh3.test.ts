import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { test } from 'node:test';
import * as xxh3 from '../src/xxh3.js';

// testdata/xxh3.json has hashes that another program has made: of the first n bytes of data, with a seed.

const file = path.join(__dirname, '../../test/testdata/xxh3.json');
const data = Uint8Array.from({ length: 1024 }, (_, i) => i * 7 + (i >> 3));

test('xxh3: every way through it, with seeds', () => {
  for (const [n, seed, want] of JSON.parse(fs.readFileSync(file, 'utf8')) as [number, string, string][]) {
    const s = BigInt(`0x${seed}`);
    xxh3.hash(data, n, Number(s >> 32n) | 0, Number(s & 0xffffffffn) | 0);
    const got = (BigInt(xxh3.hi >>> 0) << 32n | BigInt(xxh3.lo >>> 0)).toString(16).padStart(16, '0');
    assert.equal(got, want, `${n} bytes, seed ${seed}`);
  }
});
