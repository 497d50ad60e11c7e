import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import { test, type TestContext } from 'node:test';
import { Client, type ClientOptions, type CacheError } from '../src/index.js';
import { hit, Peer, type Request, Server, socketPath, until, welcome } from './server.js';

// What the caller gives is used as it was given, however late it is sent; and what was given up keeps its place.

function clientOf(t: TestContext, socket: string, o: ClientOptions = {}): Client {
  const c = new Client({ socket, timeout: 20_000, connectTimeout: 20_000, ...o });
  t.after(() => c.close());
  return c;
}

async function connected(t: TestContext, socket: string): Promise<Client> {
  const c = await Client.connect({ socket, timeout: 20_000, connectTimeout: 20_000 });
  t.after(() => c.close());
  return c;
}

const text = (b: unknown): string => Buffer.from(b as Uint8Array).toString();

function echo(q: Request): void {
  if (q.op === 4) {
    q.conn.answer(q.id, 0, (q.body[1] as Uint8Array[]).map((key) => hit(0, text(key)).slice(1)));
  } else if (q.op === 6) {
    q.conn.answer(q.id, 0, (q.body[1] as unknown[]).map(() => [0, 5]));
  } else {
    q.conn.answer(...q.op === 3 ? hit(q.id, text(q.body[1])) : [q.id, 0, 5]);
  }
}

test('the caller may reuse its bytes at once, also if the call waits for a connection', async (t) => {
  const s = await Server.start(t, echo);
  let greet = (): void => {};
  s.hello = (q): void => {
    greet = (): void => q.conn.answer(q.id, 0, welcome);
  };
  const c = clientOf(t, s.path);
  const [key, value] = [Buffer.from('key'), Buffer.from('value')];
  const calls = [c.set(key, value), c.get(key), c.getMany([key]), c.delete(key), c.touch(key)];
  key.fill('x');
  value.fill('x');
  await until('HELLO', () => s.peers.length === 1);
  await until('the greeting', () => (greet(), s.requests.length > 0));
  const [, got, many] = await Promise.all(calls);
  assert.equal(got, 'key');
  assert.deepEqual(many, new Map([[key, 'key']]), 'the caller\'s own key names the value');
  assert.equal(text(s.requests[0]!.body[2]), 'value');
  assert.deepEqual(s.requests.map((q) => text(Array.isArray(q.body[1]) ? q.body[1][0] : q.body[1])),
    ['key', 'key', 'key', 'key', 'key']);
});

test('getOrSet asks for, loads and fills the key that it was given', async (t) => {
  const s = await Server.start(t, (q) => q.conn.answer(
    ...q.op === 3 ? [q.id, 1, 0] : q.op === 9 ? [q.id, 2, Buffer.from('token'), 5000] : [q.id, 0, 5]));
  const c = clientOf(t, s.path);
  const key = Buffer.from('key');
  const call = c.getOrSet(key, (k) => text(k));
  key.fill('x');
  assert.equal(await call, 'key');
  assert.deepEqual(s.requests.map((q) => `${q.op} ${text(q.body[1])}`), ['3 key', '9 key', '10 key']);
});

/** A server whose first connection does as it is told after HELLO, and whose others answer. */
async function twice(t: TestContext, first: (socket: net.Socket, q: Request) => void): Promise<{
  path: string; sockets: net.Socket[]; seen: Request[];
}> {
  const file = socketPath();
  const [sockets, seen]: [net.Socket[], Request[]] = [[], []];
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    const mine = sockets.push(socket) === 1;
    const peer = new Peer(socket, (q) => {
      if (q.op === 1) {
        peer.answer(q.id, 0, welcome);
      } else if (q.op === 23) {
        // LEAVING waits
      } else if (mine) {
        first(socket, q);
      } else {
        seen.push(q);
        echo(q);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(file, resolve));
  t.after(() => {
    sockets.forEach((socket) => socket.destroy());
    server.close();
  });
  return { path: file, sockets, seen };
}

test('a write that is sent once more has the bytes that it had', async (t) => {
  const { path: file, sockets, seen } = await twice(t, () => {});
  const c = await connected(t, file);
  sockets[0]!.pause();
  const values = [Buffer.alloc(4 << 20, 'a'), Buffer.alloc(1000, 'b')];
  const cut = c.set('cut', values[0]); // more than the socket holds
  await new Promise((resolve) => setImmediate(resolve));
  const behind = c.set('behind', values[1]); // waits for it
  for (const v of values) {
    v.fill('x');
  }
  await new Promise((resolve) => setImmediate(resolve));
  sockets[0]!.destroy();
  await Promise.all([cut, behind]);
  const sent = new Map(seen.map((q) => [text(q.body[1]), Buffer.from(q.body[2] as Uint8Array)]));
  assert.ok(sent.get('cut')!.equals(Buffer.alloc(4 << 20, 'a')));
  assert.ok(sent.get('behind')!.equals(Buffer.alloc(1000, 'b')));
});

// Node cannot end the reading of a socket alone: Python can.
const noPython = spawnSync('python3', ['--version']).status !== 0 && 'needs python3';

test('a sidecar that reads no more: the write is refused and sent elsewhere, and answers still come', {
  skip: noPython,
}, async (t) => {
  const file = socketPath();
  const child = spawn('python3', ['-c', halfClosed, file], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.kill());
  const lines: string[] = [];
  child.stdout.on('data', (b) => lines.push(...String(b).trim().split('\n')));
  await until('the server', () => lines.includes('up'));
  const c = clientOf(t, file);
  const slow = c.get('slow');
  await until('the end of its reading', () => lines.includes('shut'));
  const value = Buffer.from('first');
  const set = c.set('k', value);
  value.write('xxxxx');
  // The first is written in the next tick; the client hears of the refusal after that.
  const [set2, again] = await new Promise<[Promise<bigint>, Promise<unknown>]>((resolve) => process.nextTick(() => {
    value.write('other');
    resolve([c.set('k2', value), c.get('slow2')]);
    value.write('xxxxx');
  }));
  assert.deepEqual(await Promise.all([set, set2, again]), [5n, 5n, 'fast'], 'executed over another connection');
  child.stdin.write('\n');
  assert.equal(await slow, 'late', 'the answer over the first connection came after the refusal');
  assert.deepEqual(lines.filter((l) => l.startsWith('op')),
    ['op 1 0', 'op 3 0', 'op 1 1', 'op 5 1 first', 'op 5 1 other', 'op 3 1']);
});

const halfClosed = `
import socket, sys, threading
def frames(c):
    buf = b''
    while True:
        got = c.recv(65536)
        if not got: return
        buf += got
        while len(buf) >= 4 and len(buf) >= 4 + int.from_bytes(buf[:4], 'big'):
            n = 4 + int.from_bytes(buf[:4], 'big')
            at = 6 + (4 if buf[5] == 0xce else 2 if buf[5] == 0xcd else 1 if buf[5] == 0xcc else 0)
            yield buf[5:at], buf[at], b' first' if b'first' in buf[:n] else b' other' if b'other' in buf[:n] else b''
            buf = buf[n:]
def say(c, id, elements, rest):
    b = bytes([0x90 | elements]) + id + rest
    c.sendall(len(b).to_bytes(4, 'big') + b)
def hit(c, id, v):
    say(c, id, 8, b'\\0\\xc4' + bytes([len(v)]) + v + b'\\x10\\x07\\0\\x02\\0')
def serve(c, n):
    for id, op, value in frames(c):
        if op == 23:
            continue
        print('op %d %d%s' % (op, n, value.decode()), flush=True)
        if op == 1:
            say(c, id, 3, b'\\0\\x80')
        elif op == 3 and n == 0:
            c.shutdown(socket.SHUT_RD)
            print('shut', flush=True)
            sys.stdin.readline()
            hit(c, id, b'late')
            c.close()
            return
        elif op == 3:
            hit(c, id, b'fast')
        else:
            say(c, id, 3, b'\\0\\x05')
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print('up', flush=True)
n = 0
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c, n), daemon=True).start()
    n += 1
`;

test('an aborted call keeps its place until its answer comes, or the connection ends', async (t) => {
  const s = await Server.start(t, () => {});
  const c = clientOf(t, s.path, { maxInFlight: 3 });
  const busy = (): Promise<boolean> =>
    c.get('k', { timeout: 20 }).then(() => false, (e: CacheError) => e.code === 'busy');
  const abort = async (n: number): Promise<void> => {
    const a = new AbortController();
    const calls = Array.from({ length: n }, () => c.get('k', { signal: a.signal }));
    const before = s.requests.length;
    await until('the requests', () => s.requests.length === before + n);
    a.abort();
    await Promise.allSettled(calls);
  };
  await abort(3);
  assert.ok(await busy());
  s.requests[0]!.conn.answer(...hit(s.requests[0]!.id, 'late'));
  await until('one place', async () => !await busy()); // and this call takes it
  assert.ok(await busy());
  s.peers[0]!.socket.destroy();
  await until('the end', () => s.peers[0]!.ended);
  await until('a new connection, whose places are free', async () => !await busy());
});

test('an id is not given to another call before its answer', async (t) => {
  const s = await Server.start(t, (q) => {
    if (text(q.body[1]) === 'fast') {
      s.requests.find((r) => text(r.body[1]) === 'slow')!.conn.answer(...hit(s.requests[0]!.id, 'slow'));
      q.conn.answer(...hit(q.id, 'fast'));
    }
  });
  const c = await connected(t, s.path); // a call's time includes that
  await assert.rejects(c.get('slow', { timeout: 20 }), { code: 'timeout' });
  assert.equal(await c.get('fast'), 'fast');
  assert.notEqual(s.requests[0]!.id % (1 << 25), s.requests[1]!.id % (1 << 25));
});

test('a key of a wrong type or length is refused with the limit', async (t) => {
  const c = clientOf(t, '/nowhere');
  const bad = { code: 'bad_request', message: /65537 bytes: give 1 to 1,024/ };
  for (const key of ['k'.repeat(65_537), Buffer.alloc(65_537)]) {
    for (const call of [() => c.get(key), () => c.set(key, 1), () => c.getMany([key]), () => c.delete(key),
      () => c.touch(key), () => c.incr(key), () => c.getItem(key), () => c.getOrSet(key, () => 1),
      () => c.watch({ keys: [key] }).next()]) {
      await assert.rejects(call, bad, String(call));
    }
  }
  for (const key of [5, null, undefined, {}, new ArrayBuffer(3)] as never[]) {
    const type = { name: 'TypeError', message: /give a string or a Uint8Array, of 1 to 1,024 bytes/ };
    await assert.rejects(c.get(key), type);
    await assert.rejects(c.getOrSet(key, () => 1), type);
    await assert.rejects(c.watch({ keys: [key] }).next(), type);
  }
});

test('onCall may return a promise that is rejected', async (t) => {
  const s = await Server.start(t, echo);
  const unhandled: unknown[] = [];
  const note = (e: unknown): void => void unhandled.push(e);
  process.on('unhandledRejection', note);
  t.after(() => process.off('unhandledRejection', note));
  let told = 0;
  const c = clientOf(t, s.path, { onCall: async () => { // eslint-disable-line
    told++;
    throw new Error('a bug of the app');
  } });
  assert.equal(await c.get('k'), 'k');
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual([told, unhandled], [1, []]);
});

test('the token file is read for each connection, and must be the user\'s own secret', async (t) => {
  const s = await Server.start(t, echo);
  const tokens: unknown[] = [];
  s.hello = (q): void => {
    tokens.push((q.body[0] as { token?: string }).token);
    q.conn.answer(q.id, 0, welcome);
  };
  const file = path.join(path.dirname(s.path), 'token');
  fs.writeFileSync(file, 'first\n', { mode: 0o600 });
  const c = clientOf(t, s.path, { tokenFile: file });
  await c.get('k');
  fs.writeFileSync(file, 'second');
  s.peers[0]!.socket.destroy();
  await until('another connection', () => c.get('k').then(() => tokens.length === 2, () => false));
  assert.deepEqual(tokens, ['first', 'second']);
  const refused = async (want: RegExp, name = file): Promise<void> => {
    const other = clientOf(t, s.path, { tokenFile: name });
    await assert.rejects(other.get('k'), { code: 'unauthorized', message: want });
    // A secret that cannot be read is no reason to go on without the cache.
    await assert.rejects(other.getOrSet('k', () => 1), { code: 'unauthorized' });
  };
  fs.chmodSync(file, 0o640);
  await clientOf(t, s.path, { tokenFile: file }).get('k'); // the group may read it
  for (const mode of [0o644, 0o660, 0o604]) {
    fs.chmodSync(file, mode);
    await refused(new RegExp(`has mode 0${mode.toString(8)}.*chmod 0600`));
  }
  fs.chmodSync(file, 0o600);
  fs.writeFileSync(file, '\r\n');
  await refused(/it is empty/);
  fs.writeFileSync(file, 'x'.repeat(300));
  await refused(/it has 300 bytes: a token has at most 256/);
  await refused(/no regular file/, path.dirname(file));
  await refused(/ENOENT/, `${file}.none`);
  if (process.getuid?.() === 0) {
    fs.writeFileSync(file, 'theirs');
    fs.chownSync(file, 12_345, 0);
    await refused(/belongs to uid 12345/);
  }
  assert.equal(tokens.length, 3);
});
