import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v8 from 'node:v8';
import * as vm from 'node:vm';
import { decodeValue, encodeValue } from '../src/encoding.js';

// A value comes back as it was, or is refused when it is stored. What comes back as something else is listed.

const maxElements = 1 << 20;

const nested = (levels: number): unknown => JSON.parse(`${'['.repeat(levels)}${']'.repeat(levels)}`);

function again(v: unknown): unknown {
  const { bytes, flags } = encodeValue(v);
  return decodeValue(Buffer.from(bytes), 0, bytes.length, flags, false, 'k');
}

const marked = (bytes: number): string => `\ufeff${'x'.repeat(bytes - 3)}`; // with a byte order mark

test('values come back', () => {
  for (const v of [
    '', 'text', 'ä😀\u0000', 0, -1, 2 ** 53 - 1, 1 - 2 ** 53, 2n ** 53n, 2n ** 63n - 1n, -(2n ** 63n),
    Buffer.of(0, 255), null, true, 1.5, NaN, Infinity, -Infinity, 2 ** 60, 5e-324, [], {}, [1, 'a', null, [true, {}]],
    { a: { b: [1.5, 5e9] } }, [2n ** 64n - 1n, 2n ** 53n, -(2n ** 53n)], [Buffer.from('x')],
    { '': 1, 1: 2, '-0': 3, constructor: 4, toString: 5 },
    new Date(5), [new Date(8.64e15), new Date(-8.64e15), new Date(-1), new Date(2 ** 34 * 1000 + 7)],
    Object.freeze({ a: 1 }), Object.defineProperty({ a: 1 }, 'hidden', { value: 2 }),
    marked(200), [marked(200)], [marked(201), marked(300), 'y', marked(70_000)], { [marked(300)]: [1, marked(300)] },
    ['\ufeff'.repeat(200)], nested(64), JSON.parse(`${'{"a":'.repeat(64)}1${'}'.repeat(64)}`),
    new Array(maxElements).fill(true), Object.fromEntries(Array.from({ length: maxElements / 2 }, (_, i) => [i, i])),
  ]) {
    assert.deepEqual(again(v), v);
  }
});

test('some values come back as others', () => {
  const bare = Object.assign(Object.create(null) as object, { a: 1 });
  const match = /b/.exec('abc')!;
  for (const [v, want] of [
    [5n, 5], [[5n], [5]], [-0, 0], [[-0], [0]], [Uint8Array.of(1), Buffer.of(1)], [[Uint8Array.of(1)], [Buffer.of(1)]],
    [bare, { a: 1 }], [{ in: bare }, { in: { a: 1 } }], [match, ['b']],
    [vm.runInNewContext('({ a: [1] })'), { a: [1] }],
  ] as [unknown, unknown][]) {
    assert.deepEqual(again(v), want);
  }
});

class Point {
  x = 1;
}

test('what would not come back is refused, with its place', () => {
  const other = 'and would not come back as one';
  const cycle: unknown[] = [];
  cycle.push(cycle);
  for (const [v, message] of [
    [new Map([[1, 2]]), `the value is a Map, ${other}`],
    [{ a: [1, new Map()] }, `the value.a[1] is a Map, ${other}`], [new Set(), 'is a Set'],
    [new Point(), 'the value is a Point'], [{ p: [new Point()] }, 'the value.p[0] is a Point'],
    [new (class Mine extends Array {})(), 'is a Mine'],
    [[new (class Mine extends Date {})()], '[0] is a Mine'],
    [new (class Mine extends Uint8Array {})(1), 'the value is a Mine'],
    [{ b: new (class Mine extends Uint8Array {})(1) }, 'the value.b is a Mine'],
    [Object.create({ a: 1 }), 'is a Object'],
    [Object.create(Object.create(null) as object), 'is a class without a name'],
    [new Int8Array(1), 'is a Int8Array'],
    [{ f: new Float64Array(1) }, 'the value.f is a Float64Array'],
    [new ArrayBuffer(1), 'is a ArrayBuffer'], [new DataView(new ArrayBuffer(1)), 'is a DataView'],
    [/x/, 'is a RegExp'], [new Error('x'), 'is a Error'],
    [{ u: new URL('http://a') }, '.u is a URL'],
    [[Object('x')], '[0] is a String'], [{ p: Promise.resolve() }, '.p is a Promise'],
    [undefined, 'the value is of type undefined'], [{ a: { b: undefined } }, 'the value.a.b is of type undefined'],
    [[1, , 3], 'the value[1] is of type undefined'], [new Array(2 ** 32 - 1), 'the value[0] is of type undefined'],
    [{ f() {} }, 'the value.f is of type function'], [[Symbol('x')], 'the value[0] is of type symbol'],
    [{ [Symbol('x')]: 1 }, 'the value has the key Symbol(x)'], [{ d: new Date(NaN) }, 'the value.d is an invalid Date'],
    [JSON.parse('{"a": {"__proto__": 1}}'), 'the value.a has the key __proto__'],
    ['a\ud800', 'the value has half a surrogate pair'], [{ a: ['\udc00'] }, 'the value.a[0] has half a surrogate pair'],
    [{ a: { '\ud800': 1 } }, 'the value.a.\ud800 has half a surrogate pair'], [cycle, 'the value[0][0]'],
    [cycle, 'is deeper than 64 levels'], [nested(65), '[0] is deeper than 64 levels'],
    [{ a: [nested(63)] }, 'the value.a[0][0]'],
  ] as [unknown, string][]) {
    assert.throws(() => encodeValue(v), (e: Error) => {
      assert.ok(e instanceof TypeError && e.message.includes(message), `${String(e)}, want ${message}`);
      return true;
    });
  }
});

test('integers beyond 64 bits are refused, in a text of bounded length', () => {
  for (const v of [2n ** 63n, -(2n ** 63n) - 1n, [2n ** 64n], { ['k'.repeat(5000)]: 10n ** 5000n }]) {
    assert.throws(() => encodeValue(v), (e: Error & { code: string }) => (
      e.code === 'too_large' && e.message.length < 600));
  }
});

test('values of too many elements are refused', () => {
  let bomb: unknown = [];
  for (let i = 0; i < 40; i++) {
    bomb = [bomb, bomb];
  }
  for (const v of [
    new Array(maxElements + 1).fill({}), [new Array(600_000).fill(0), { a: new Array(600_000).fill(0) }], bomb,
    Object.fromEntries(Array.from({ length: maxElements / 2 + 1 }, (_, i) => [`k${i}`, null])),
  ]) {
    assert.throws(() => encodeValue(v), { code: 'too_large', message: /more than 1048576 elements: store it as/ });
  }
});

test('bytes that claim too much are refused, and the error says why', () => {
  for (const [hex, why] of [
    ['91'.repeat(65), /nests deeper than 64 levels/], [`${'91'.repeat(64)}80`, /nests deeper than 64 levels/],
    [`dd00100001${'80'.repeat(maxElements + 1)}`, /more than 1048576 elements/], ['910000', /further bytes follow/],
    [`92${`dd00080001${'c0'.repeat(0x80001)}`.repeat(2)}`, /more than 1048576/], ['dd000f4240c0', /ends early/],
    [`df00080000${'00c0'.repeat(0x40000)}`, /ends early/],
  ] as const) {
    const b = Buffer.from(hex, 'hex');
    assert.throws(() => decodeValue(b, 0, b.length, 32, false, 'k'), { code: 'encoding', message: why });
  }
});

test('objects whose keys are integers take no room for the integers between', () => {
  v8.setFlagsFromString('--expose-gc');
  const collect = vm.runInNewContext('gc') as () => void;
  const used = (): number => {
    collect();
    return process.memoryUsage().heapUsed;
  };
  for (const key of ['cd03ff', 'a431303233']) {
    const one = Buffer.from(`83a16292c4010ad6ff00000005${key}8107${key}a16181${key}02`, 'hex');
    const b = Buffer.concat([Buffer.from('dd0000c350', 'hex'), ...new Array<Buffer>(50_000).fill(one)]);
    const before = used();
    const got = decodeValue(b, 0, b.length, 32, false, 'k') as Record<string, unknown>[];
    assert.ok(used() - before < 150e6, 'it takes 1.2 GB, with room for the integers between');
    const want = { 1023: { 7: 1023 }, b: [Buffer.of(10), new Date(5000)], a: { 1023: 2 } };
    assert.equal(got.length, 50_000);
    for (const v of [got[0]!, got.at(-1)!]) {
      assert.deepEqual(Object.keys(v), ['1023', 'b', 'a']);
      assert.deepEqual(v, key === 'cd03ff' ? want : { ...want, 1023: { 7: '1023' } });
    }
  }
});
