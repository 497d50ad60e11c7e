import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, Encoding, NO_EXPIRY, type WatchEvent } from '../src/index.js';
import { encodeValue } from '../src/encoding.js';
import { sidecar, until } from './server.js';

// The client with a real sidecar.

const { socket, skip } = sidecar();
const prefix = `node-${process.pid}-`;

function clientOf(t: { after: (f: () => Promise<void>) => void }, near = false): Client {
  const c = new Client({ socket, timeout: 20_000, connectTimeout: 20_000, ...near && { nearCache: { bytes: 8 << 20 } } });
  t.after(() => c.close());
  return c;
}

test('values of every type come back as they were', { skip }, async (t) => {
  for (const near of [false, true]) {
    const c = clientOf(t, near);
    await until('a stream', () => !near || c.nearStats()!.following);
    for (const v of [
      '', 'text', 'Ünïcode 𝄞', 0, -1, 2 ** 53 - 1, -(2 ** 53 - 1), 2n ** 63n - 1n, -(2n ** 63n), null, true, 1.5,
      NaN, Infinity, Buffer.from([0, 255]), Buffer.alloc(0), [], {}, [1, [2, ['x', null]]], new Date(1234567890123),
      { a: 1, b: { c: [Buffer.from('x'), 2n ** 60n] }, d: new Date(0) }, 'x'.repeat(100_000), Buffer.alloc(1 << 20, 7),
    ]) {
      await c.set(`${prefix}v`, v);
      for (let i = 0; i < 3; i++) {
        assert.deepEqual(await c.get(`${prefix}v`), v);
      }
      assert.deepEqual((await c.getMany([`${prefix}v`, `${prefix}none`])), new Map([[`${prefix}v`, v]]));
    }
  }
});

test('a hit of the near cache is the reader\'s own', { skip }, async (t) => {
  const c = clientOf(t, true);
  await until('a stream', () => c.nearStats()!.following);
  for (const v of [Buffer.from('bytes'), { list: [1] }]) {
    const key = `${prefix}own`;
    await c.set(key, v);
    const hits = c.nearStats()!.hits;
    const got: unknown[] = [];
    await until('hits', async () => got.push(await c.get(key)) > 2 && c.nearStats()!.hits > hits + 1);
    const [a, b] = got.slice(-2);
    assert.notEqual(a, b);
    if (Buffer.isBuffer(a)) {
      a.fill(0);
    } else {
      (a as { list: number[] }).list.push(2);
    }
    assert.deepEqual(await c.get(key), v);
  }
});

test('another client\'s write reaches the near cache', { skip }, async (t) => {
  const reader = clientOf(t, true);
  const writer = clientOf(t);
  await until('a stream', () => reader.nearStats()!.following);
  const binary = Buffer.from(`${prefix}\xff`, 'latin1');
  const keys: (string | Uint8Array)[] = [`${prefix}w`, binary, 'ä'.repeat(150), 'k'.repeat(200)];
  for (const key of keys) {
    await writer.set(key, 0);
    await until('a hit', async () => {
      const { hits } = reader.nearStats()!;
      await reader.get(key);
      return reader.nearStats()!.hits > hits;
    });
    for (let i = 1; i <= 20; i++) {
      await writer.set(key, i);
      const began = Date.now();
      await until('the new value', async () => await reader.get(key) === i);
      assert.ok(Date.now() - began < 10_000);
    }
  }
});

test('what a write says', { skip }, async (t) => {
  const c = clientOf(t);
  const key = `${prefix}s`;
  assert.ok(await c.add(key, 1));
  assert.equal(await c.add(key, 2), undefined);
  assert.ok(await c.replace(key, 2));
  const item = await c.getItem(key);
  assert.deepEqual(await c.compareAndSwap(key, 3, 1n), { stored: false, version: item!.version });
  const swapped = await c.compareAndSwap(key, 3, item!.version, { ttl: NO_EXPIRY, flags: 0x1200 });
  assert.ok(swapped.stored);
  assert.deepEqual([(await c.getItem(key))!.flags, (await c.getItem(key))!.ttl], [0x1200 + Encoding.integer, undefined]);
  assert.equal(await c.incr(key, 2n ** 62n), 2n ** 62n + 3n);
  assert.equal(await c.decr(key, 2n ** 62n), 3);
  assert.ok(await c.touch(key, { ttl: 60_000 }));
  assert.deepEqual(await c.deleteMany([key, key]), [true, false]);
  assert.equal(await c.replace(key, 1), undefined);
  assert.equal(await c.incr(key), undefined);
  assert.deepEqual(await c.compareAndSwap(key, 3, 1n), { stored: false, version: undefined });
  await c.setMany([[`${key}1`, 1], [`${key}2`, 'zwei']]);
  assert.deepEqual([...(await c.getMany([`${key}1`, `${key}2`])).values()], [1, 'zwei']);
  await c.set(key, 'no number');
  await assert.rejects(c.incr(key), { code: 'not_stored' });
  const many = Array.from({ length: 2500 }, (_, i) => `${key}m${i}`);
  await c.setMany(many.map((k) => [k, k] as const));
  assert.equal((await c.getMany(many)).size, 2500);
  assert.equal((await c.deleteMany(many)).filter((had) => had).length, 2500);
});

test('append, prepend, unsigned numbers, getAndTouch', { skip }, async (t) => {
  for (const near of [false, true]) {
    const c = clientOf(t, near);
    await until('a stream', () => !near || c.nearStats()!.following);
    const key = `${prefix}additions${near}`;
    assert.equal(await c.append(key, 'b'), undefined);
    const first = await c.append(key, 'b', { create: true, ttl: NO_EXPIRY, flags: 0x1200 });
    assert.ok(first);
    const reads = async (want: unknown): Promise<void> => {
      for (let i = 0; i < 3; i++) { // the near cache has no older value
        assert.deepEqual(await c.get(key), want);
      }
    };
    await reads('b');
    assert.ok((await c.append(key, 'c', { create: true }))! > first);
    await reads('bc');
    assert.ok(await c.prepend(key, Buffer.from('a'), { ackAll: true }));
    await reads('abc');
    const item = (await c.getItem(key))!;
    assert.deepEqual([item.flags, item.ttl], [0x1200 + Encoding.text, undefined]);
    assert.equal(await c.getAndTouch(key, 60_000), 'abc');
    const { ttl } = (await c.getItem(key))!;
    assert.ok(ttl! > 0 && ttl! <= 60_000);
    assert.equal(await c.getAndTouch(key, NO_EXPIRY), 'abc');
    assert.equal((await c.getItem(key))!.ttl, undefined);
    await assert.rejects(c.incrUnsigned(key), { code: 'not_stored' });
    await c.delete(key, { soft: true });
    assert.equal(await c.getAndTouch(key, 60_000), undefined);
    assert.equal(await c.prepend(key, 'x'), undefined);
    assert.equal(await c.incrUnsigned(key), undefined);
    await c.set(key, 40);
    await reads(40);
    assert.equal(await c.incrUnsigned(key, 2), 42);
    await reads(42);
    assert.equal(await c.incrUnsigned(key, 2n ** 64n - 3n), 39); // it wraps
    assert.equal(await c.decrUnsigned(key, 40), 0);
    await reads(0);
    await c.delete(key);
    assert.equal(await c.decrUnsigned(key, 1, { initial: 2n ** 64n - 1n }), 2n ** 64n - 1n);
    assert.equal(await c.incrUnsigned(key, 6), 5);
    await assert.rejects(c.incrUnsigned(key, -1), { code: 'bad_request' });
    await assert.rejects(c.incrUnsigned(key, 2n ** 64n), { code: 'bad_request' });
    await assert.rejects(c.append(key, 5 as never), TypeError);
    await assert.rejects(c.getAndTouch(key, undefined as never), { code: 'bad_request' });
  }
});

test('watch tells of keys, flushes and beats', { skip }, async (t) => {
  const c = clientOf(t);
  const events: WatchEvent[] = [];
  const key = Buffer.from([1, 2, 255]);
  for await (const e of c.watch({ keys: ['watched', key], beat: 50, ref: true })) {
    events.push(e);
    if (e.kind === 'reset') {
      await c.set('unwatched', 1);
      await c.set('watched', 1);
      await c.set(key, 1);
    } else if (events.some((x) => x.kind === 'beat') && events.filter((x) => x.kind === 'changed').length >= 2) {
      break;
    }
  }
  assert.deepEqual(events.flatMap((e) => (e.kind === 'changed' ? [e.key] : [])), ['watched', key]);
});

test('many callers of two clients load once', { skip }, async (t) => {
  const [a, b] = [clientOf(t), clientOf(t)];
  let loads = 0;
  const all = await Promise.all(Array.from({ length: 2000 }, (_, i) => [a, b][i % 2]!.getOrSet(`${prefix}once`, async () => {
    loads++;
    await new Promise((resolve) => setTimeout(resolve, 20));
    return 'loaded';
  }).catch((e: { code: string }) => e.code)));
  assert.equal(loads, 1);
  assert.ok(all.every((v) => v === 'loaded' || v === 'busy'));
});

test('what cannot be stored is refused with a remedy', () => {
  for (const [v, want] of [
    [undefined, /leave it out/], [() => 1, /leave it out/], [Symbol('s'), /leave it out/], [new Map(), /plain object/],
    [{ a: [new Set()] }, /the value.a\[0\] is a Set/], [{ a: undefined }, /the value.a is of type undefined/],
    [new Date(NaN), /invalid Date/], ['\ud800', /surrogate/], [2n ** 63n, /beyond 64/], [[2n ** 64n], /beyond 64/],
  ] as const) {
    assert.throws(() => encodeValue(v), want);
  }
  const loop: unknown[] = [];
  loop.push(loop);
  assert.throws(() => encodeValue(loop), /deeper than 64/);
});
