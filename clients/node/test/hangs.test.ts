import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { Client, type CacheError, type ClientOptions } from '../src/index.js';
import { hit, type Request, Server, until } from './server.js';

// A sidecar that hangs costs one timeout. Whether it hangs is asked by a PING.

const keyOf = (q: Request): string => Buffer.from(q.body[1] as Uint8Array).toString();
const hangs = { code: 'unavailable', message: /has not answered for [0-9.]+ s: it hangs or is stopped: look at/ };
const timeout = { code: 'timeout' };

interface Scene {
  s: Server;
  c: Client;
}

/** Starts a server that answers a GET, but one of "slow", unless it hangs. */
async function start(t: TestContext, o: ClientOptions = {}): Promise<Scene> {
  const s = await Server.start(t, (q) => {
    if (!s.hangs && keyOf(q) !== 'slow') {
      q.conn.answer(...hit(q.id, 'v'));
    }
  });
  const c = await Client.connect({ socket: s.path, timeout: 20_000, connectTimeout: 20_000, ...o });
  t.after(() => c.close());
  return { s, c };
}

/** Makes a call that gets no answer, and waits for the PING. */
async function doubt({ s, c }: Scene): Promise<void> {
  s.hangs = true;
  await assert.rejects(c.get('slow', { timeout: 30 }), timeout);
  await until('a PING', () => s.pings.length === 1);
}

test('while the sidecar hangs calls fail and are not sent; they go on with the answer to the PING', async (t) => {
  const { s, c } = await start(t);
  await doubt({ s, c });
  const calls: [string, () => Promise<unknown>][] = [
    ['get', () => c.get('k')], ['set', () => c.set('k', 1)], ['incr', () => c.incr('k')],
    ['delete', () => c.delete('k')], ['getMany', () => c.getMany(['k', 'l'])], ['touch', () => c.touch('k')],
    ['flush', () => c.flush()], ['ping', () => c.ping()], ['get of another namespace', () => c.inNamespace('users').get('k')],
  ];
  for (const [name, call] of calls) {
    await assert.rejects(call(), hangs, name);
  }
  await assert.rejects(c.get('k', { timeout: 1 }), { code: 'unavailable' });
  assert.equal(await c.getOrSet('k', () => 'loaded'), 'loaded');
  assert.deepEqual([s.requests.length, s.pings.length], [1, 1]);
  let failed = 0;
  for (let value: unknown; value === undefined;) { // without a pause
    value = await c.get('k').catch((e: CacheError) => void assert.equal(e.code, 'unavailable'));
    if (++failed === 20) {
      s.hangs = false;
      s.pings[0]!.conn.answer(s.pings[0]!.id, 0);
    }
  }
  assert.ok(failed >= 20);
  assert.deepEqual([s.requests.length, s.pings.length, s.peers.length], [2, 1, 1]);
});

test('a call that is slow alone leaves later calls alone', async (t) => {
  const { s, c } = await start(t);
  for (let i = 1; i <= 3; i++) {
    const slow = c.get('slow', { timeout: 30 });
    assert.equal(await slow.catch(() => c.get('k')), 'v');
    await assert.rejects(slow, timeout);
    assert.equal(s.pings.length, i);
  }
});

test('many calls without an answer ask once; calls that begin meanwhile wait for the answer', async (t) => {
  const { s, c } = await start(t);
  s.hangs = true;
  let later: Promise<unknown>[] | undefined;
  s.onPing = (q): void => {
    later ??= Array.from({ length: 100 }, (_, i) => c.get(`k${i}`));
    setImmediate(() => {
      assert.equal(s.requests.length, 100);
      s.hangs = false;
      q.conn.answer(q.id, 0);
    });
  };
  const first = Array.from({ length: 100 }, () => assert.rejects(c.get('slow', { timeout: 30 }), timeout));
  await Promise.all(first);
  await until('the PING', () => later !== undefined);
  assert.deepEqual(new Set(await Promise.all(later!)), new Set(['v']));
  assert.deepEqual([s.requests.length, s.pings.length, s.peers.length], [200, 1, 1]);
});

test('a call that is cancelled does not ask', async (t) => {
  const { s, c } = await start(t);
  const controller = new AbortController();
  const slow = assert.rejects(c.get('slow', { signal: controller.signal }), { name: 'AbortError' });
  await until('the request', () => s.requests.length === 1);
  controller.abort();
  await slow;
  assert.equal(await c.get('k'), 'v');
  assert.equal(s.pings.length, 0);
});

test('calls that wait for the PING can be cancelled, and move on if the connection ends', async (t) => {
  const { s, c } = await start(t);
  s.hangs = true;
  const controller = new AbortController();
  let cancelled: Promise<unknown> | undefined;
  let waits: Promise<unknown> | undefined;
  s.onPing = (q): void => {
    cancelled = assert.rejects(c.get('k', { signal: controller.signal }), { name: 'AbortError' });
    waits = c.get('k');
    controller.abort();
    setImmediate(() => q.conn.socket.destroy());
    s.hangs = false;
  };
  await assert.rejects(c.get('slow', { timeout: 30 }), timeout);
  await until('the PING', () => waits !== undefined);
  await cancelled;
  assert.equal(await waits, 'v');
  assert.equal(s.peers.length, 2);
});

test('a value that is loaded while the sidecar hangs is returned, and its token goes back', async (t) => {
  const s = await Server.start(t, (q) => {
    if (q.op === 9) {
      q.conn.answer(q.id, 2, Buffer.from('token'), 5000);
    } else if (q.op === 3 && keyOf(q) !== 'slow') {
      q.conn.answer(q.id, 1, 0);
    }
  });
  const c = await Client.connect({ socket: s.path, timeout: 20_000, connectTimeout: 20_000 });
  t.after(() => c.close());
  const value = c.getOrSet('k', async () => {
    await doubt({ s, c });
    return 'loaded';
  });
  assert.equal(await value, 'loaded');
  await until('the token', () => s.requests.some((q) => q.op === 10));
  assert.deepEqual(s.requests.filter((q) => q.op === 10).map((q) => [q.body[3], q.body[6]]), [[null, 256]]);
});
