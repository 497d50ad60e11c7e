import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { Client, type ClientOptions, type CacheError } from '../src/index.js';
import { frame, hit, type Request, Server, until } from './server.js';

// The client against servers that follow a script, or break it.

process.on('unhandledRejection', (e) => {
  console.error('an unhandled rejection', e);
  process.exit(70);
});

function clientOf(t: { after: (f: () => Promise<void>) => void }, s: Server, o: ClientOptions = {}): Client {
  const c = new Client({ socket: s.path, timeout: 20_000, connectTimeout: 20_000, ...o });
  t.after(() => c.close());
  return c;
}

const code = (want: string) => (e: unknown): boolean => {
  assert.equal((e as CacheError).code, want, String(e));
  return true;
};

const keyOf = (q: Request): string => Buffer.from(q.body[1] as Uint8Array).toString();

test('calls of one tick share a write, also those that answers let begin', async (t) => {
  const s = await Server.start(t, (q, server) => {
    if (server.requests.length === 50) {
      q.conn.socket.write(Buffer.concat(server.requests.map((r) => frame(...hit(r.id, 'v')))));
      server.requests.length = 0;
    }
  });
  const c = clientOf(t, s);
  await Promise.all(Array.from({ length: 50 }, (_, i) => c.get(`warm${i}`)));
  const before = s.peers[0]!.writes;
  await Promise.all(Array.from({ length: 50 }, async (_, i) => {
    await c.get(`a${i}`);
    await c.get(`b${i}`);
  }));
  assert.equal(s.peers[0]!.writes - before, 2);
  assert.equal(s.peers.length, 1);
});

test('answers come in any order, and answers to no call are ignored', async (t) => {
  const s = await Server.start(t, (q, server) => {
    if (server.requests.length === 3) {
      q.conn.answer(...hit(q.id + 1_000_000, 'wrong'));
      q.conn.answer(...hit(0xffffffff, 'wrong'));
      for (const r of [...server.requests].reverse()) {
        q.conn.answer(...hit(r.id, keyOf(r)));
        q.conn.answer(...hit(r.id, 'twice'));
      }
    }
  });
  const c = clientOf(t, s);
  assert.deepEqual(await Promise.all(['a', 'b', 'c'].map((k) => c.get(k))), ['a', 'b', 'c']);
});

test('garbage in place of answers is an internal error, and the connection is closed', async (t) => {
  for (const [hex, want] of [
    [Buffer.from('HTTP/1.1 200 OK').toString('hex'), 'internal'], ['00000000', 'internal'], ['0000000101', 'internal'],
    ['ffffffff00', 'internal'], ['00000004dcffff01', 'internal'], ['0000000490070000', 'internal'],
    ['00000005c7ff000000', 'internal'], ['00000003930700', 'timeout'], ['00000030dc', 'timeout'],
  ] as const) {
    const s = await Server.start(t, (q) => void q.conn.socket.write(Buffer.from(hex, 'hex')));
    const c = clientOf(t, s, { timeout: want === 'timeout' ? 100 : 20_000 });
    await assert.rejects(Promise.all([c.get('k'), c.set('k', 'v')]), code(want));
    if (want === 'internal') {
      await until('the end of the connection', () => s.peers[0]!.ended);
    }
  }
});

test('garbage in place of HELLO', async (t) => {
  const s = await Server.start(t, () => {});
  s.hello = (q) => q.conn.answer(q.id, 0, 'welcome');
  const c = clientOf(t, s);
  await assert.rejects(c.get('k'), code('internal'));
});

test('an answer in single bytes', async (t) => {
  const s = await Server.start(t, (q) => {
    const b = frame(...hit(q.id, 'x'.repeat(300)));
    let i = 0;
    const next = (): void => {
      if (i < b.length) {
        q.conn.socket.write(b.subarray(i, ++i), next);
      }
    };
    next();
  });
  assert.equal(await clientOf(t, s).get('k'), 'x'.repeat(300));
});

test('no answer: a timeout, whose place is free again when the answer comes', async (t) => {
  const s = await Server.start(t, () => {});
  const c = await Client.connect({ socket: s.path, timeout: 50, connectTimeout: 20_000, maxInFlight: 4 });
  t.after(() => c.close());
  await c.get('warm').catch(() => {});
  const began = Date.now();
  await assert.rejects(c.get('k'), code('timeout'));
  assert.ok(Date.now() - began >= 45);
  await Promise.allSettled([c.get('k'), c.get('k')]);
  await assert.rejects(c.get('k'), code('busy'));
  for (const q of s.requests) {
    q.conn.answer(...hit(q.id, 'late'));
  }
  await until('places', () => c.get('k').then(() => true, (e: CacheError) => e.code === 'timeout'));
});

test('a sidecar that vanishes: reads are repeated once, writes are not', async (t) => {
  const seen: number[] = [];
  const s = await Server.start(t, (q) => {
    seen.push(q.op);
    q.conn.socket.destroy();
  });
  const c = clientOf(t, s);
  await assert.rejects(c.get('k'), code('timeout'));
  await assert.rejects(c.set('k', 'v'), code('timeout'));
  await assert.rejects(c.incr('k'), code('timeout'));
  assert.deepEqual(seen, [3, 3, 5, 8]);
});

test('a socket that is not there: unavailable at once, with a growing pause, until it is there', async (t) => {
  const s = await Server.start(t, (q) => q.conn.answer(...hit(q.id, 'v')));
  await s.stop();
  const c = clientOf(t, s, { timeout: 5000 });
  for (let i = 0; i < 20; i++) {
    await assert.rejects(c.set('k', 'v'), code('unavailable'));
  }
  await s.listen();
  await until('a connection', () => c.get('k').then((v) => v === 'v', () => false));
  await assert.rejects(Client.connect({ socket: `${s.path}.none` }), code('unavailable'));
});

test('LEAVING: calls move on, and those in flight get their answers', async (t) => {
  const s = await Server.start(t, (q, server) => {
    if (keyOf(q) !== 'slow') {
      q.conn.answer(...hit(q.id, `from ${server.peers.indexOf(q.conn)}`));
    }
  });
  const c = clientOf(t, s);
  assert.equal(await c.get('k'), 'from 0');
  const slow = c.get('slow');
  await until('LEAVING and the call', () => s.leaving.length === 1 && s.requests.length === 2);
  const first = s.leaving[0]!;
  first.conn.answer(first.id, 0);
  await until('another connection', async () => await c.get('k') === 'from 1');
  first.conn.answer(...hit(s.requests[1]!.id, 'done'));
  assert.equal(await slow, 'done');
  await until('the end of the first connection', () => s.peers[0]!.ended);
});

test('calls wait for a sidecar that is started again', async (t) => {
  const s = await Server.start(t, (q) => q.conn.answer(...hit(q.id, 'v')));
  const c = clientOf(t, s);
  await c.get('k');
  await until('LEAVING', () => s.leaving.length === 1);
  s.leaving[0]!.conn.answer(s.leaving[0]!.id, 0);
  await until('the end', () => s.peers[0]!.ended);
  await s.stop();
  const waiting = c.get('k');
  await new Promise((resolve) => setTimeout(resolve, 50)); // more than one attempt
  await s.listen();
  assert.equal(await waiting, 'v');
});

test('a signal ends a call as in Node', async (t) => {
  const s = await Server.start(t, () => {});
  const c = clientOf(t, s);
  const controller = new AbortController();
  const call = c.get('k', { signal: controller.signal });
  await until('the request', () => s.requests.length === 1);
  controller.abort('because');
  await assert.rejects(call, { name: 'AbortError', code: 'ABORT_ERR', cause: 'because' });
  await assert.rejects(c.set('k', 1, { signal: controller.signal }), { name: 'AbortError' });
  await assert.rejects(c.set('k', 1, { signal: AbortSignal.timeout(5) }), { name: 'AbortError' });
  await until('both requests', () => s.requests.length === 2);
});

test('a signal that ends many calls has one listener, and in the end none', async (t) => {
  const s = await Server.start(t, (q) => {
    if (q.op === 9) {
      q.conn.answer(q.id, 2, Buffer.from('token'), 5000);
    } else if (q.op === 10) {
      q.conn.answer(q.id, 0, 5);
    } else if (q.op === 3) {
      q.conn.answer(q.id, 1, 0);
    }
  });
  const c = clientOf(t, s);
  const controller = new AbortController();
  const { signal } = controller;
  const listeners = (): number => getEventListeners(signal, 'abort').length;
  const calls: Promise<unknown>[] = [];
  for (let i = 0; i < 50; i++) {
    calls.push(c.get(`k${i}`, { signal }), c.getOrSet(`l${i}`, () => i, { signal }));
    assert.equal(listeners(), 1);
  }
  await Promise.all(calls);
  assert.equal(listeners(), 0);
  const pings = Array.from({ length: 20 }, () => assert.rejects(c.ping({ signal }), { name: 'AbortError' }));
  controller.abort();
  await Promise.all(pings);
  assert.equal(listeners(), 0);
});

test('a flush is of every host, unless it is told not to be', async (t) => {
  const s = await Server.start(t, (q) => q.conn.answer(q.id, 0));
  const c = clientOf(t, s);
  for (const o of [undefined, {}, { cluster: undefined }, { cluster: true }, { cluster: false }, { all: true }]) {
    await c.flush(o);
  }
  assert.deepEqual(s.requests.map((q) => q.body[1]), [32, 32, 32, 32, undefined, 96]);
});

test('close leaves no promise unresolved', async (t) => {
  const s = await Server.start(t, () => {});
  const c = new Client({ socket: s.path, timeout: 20_000, nearCache: { bytes: 1 << 20 } });
  const watching = c.watch()[Symbol.asyncIterator]().next();
  const calls = [c.get('a'), c.set('b', 1), c.getMany(['c']), c.getOrSet('d', () => 1), c.ping(), c.stats(), watching];
  await until('the requests', () => s.requests.length >= 6);
  calls.push(c.get('e', { signal: new AbortController().signal }));
  const all = Promise.allSettled(calls);
  await Promise.all([c.close(), c.close()]);
  for (const r of await all) {
    assert.equal(r.status, 'rejected');
    assert.equal(((r as PromiseRejectedResult).reason as CacheError).code, 'closed');
  }
  await assert.rejects(c.get('k'), code('closed'));
  await assert.rejects(c.getOrSet('k', () => 1), code('closed'));
  const down = new Client({ socket: s.path });
  s.hello = (): void => {};
  const waiting = down.get('k');
  const rejected = assert.rejects(waiting, code('closed'));
  await down.close();
  await rejected;
});

test('values: the sidecar\'s limit, and the bounds of keys', async (t) => {
  const s = await Server.start(t, (q) => q.conn.answer(...hit(q.id, 'v')));
  const c = clientOf(t, s);
  await c.get('k');
  await assert.rejects(c.set('k', Buffer.alloc((8 << 20) + 1)), code('too_large'));
  await assert.rejects(c.get(''), code('bad_request'));
  await assert.rejects(c.get('ä'.repeat(513)), code('bad_request'));
  await assert.rejects(c.get(Buffer.alloc(1025)), code('bad_request'));
  await assert.rejects(c.get(5 as never), TypeError);
  assert.equal(await c.get('ä'.repeat(512)), 'v');
  assert.ok(Buffer.from('ä'.repeat(512)).equals(s.requests.at(-1)!.body[1] as Uint8Array));
  for (let b = 0; b < 256; b++) {
    await c.get(Uint8Array.of(b));
    assert.ok(Buffer.of(b).equals(s.requests.at(-1)!.body[1] as Uint8Array));
  }
});

test('onCall is told of each call, and may throw', async (t) => {
  const s = await Server.start(t, (q) => {
    if (q.op === 3) {
      q.conn.answer(q.id, 1, 0);
    } else {
      q.conn.answer(q.id, 22, 'too much');
    }
  });
  const told: unknown[] = [];
  const c = clientOf(t, s, {
    onCall: (info) => {
      assert.ok(info.ms >= 0);
      told.push([info.op, info.namespace, info.outcome, info.near]);
      throw new Error('a bug of the app');
    },
  });
  assert.equal(await c.inNamespace('users').get('k'), undefined);
  await assert.rejects(c.set('k', 1), code('busy'));
  assert.deepEqual(told, [['get', 'users', 'miss', false], ['set', 'default', 'busy', false]]);
});

test('a value belongs to the caller: it is not overwritten, and keeps no more than a pool', async (t) => {
  const s = await Server.start(t, (q) => q.conn.answer(...hit(q.id, keyOf(q).repeat(20), 0)));
  const c = clientOf(t, s);
  const first = await c.get<Buffer>('aaaaa');
  await Promise.all(Array.from({ length: 1000 }, () => c.get('bbbbb')));
  assert.equal(first!.toString(), 'a'.repeat(100));
  assert.ok(first!.buffer.byteLength <= Buffer.poolSize, `${first!.buffer.byteLength} bytes`);
});

test('bad settings name the setting, the value and the remedy', () => {
  assert.throws(() => new Client({ timeout: 0 }), /timeout is 0: give 1 to 3600000/);
  assert.throws(() => new Client({ namespace: 'Users' }), /"Users": give 1 to 64 of/);
  assert.throws(() => new Client({ token: 'a', tokenFile: 'b' }), /leave out one/);
  assert.throws(() => new Client({ nearCache: { bytes: 5 } }), /nearCache.bytes is 5: give 1048576/);
});
