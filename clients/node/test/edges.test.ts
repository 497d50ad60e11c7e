import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import * as net from 'node:net';
import { test, type TestContext } from 'node:test';
import { decode } from '@msgpack/msgpack';
import { Client, type ClientOptions, type CacheError } from '../src/index.js';
import { decodeValue, encodeValue } from '../src/encoding.js';
import { frame, hit, Peer, type Request, Server, socketPath, until, welcome } from './server.js';

// What is rare: writes cut short, more fills than places, loads whose callers have left, a blocked event loop.

const code = (want: string) => (e: unknown): boolean => {
  assert.equal((e as CacheError).code, want, String(e));
  return true;
};

const keyOf = (q: Request): string => Buffer.from(q.body[1] as Uint8Array).toString();

function clientOf(t: TestContext, s: Server, o: ClientOptions = {}): Client {
  const c = new Client({ socket: s.path, timeout: 20_000, connectTimeout: 20_000, ...o });
  t.after(() => c.close());
  return c;
}

test('requests that wait go out in one write: if it is cut short, those before the cut are not repeated', async (t) => {
  const file = socketPath();
  const seen: string[] = [];
  let first: net.Socket | undefined;
  const server = net.createServer((socket) => {
    const mine = first === undefined;
    first ??= socket;
    const peer = new Peer(socket, (q) => {
      if (q.op === 1) {
        peer.answer(q.id, 0, welcome);
      }
      if (q.op === 1 || q.op === 23) {
        return;
      }
      seen.push(`${q.op} ${keyOf(q)}`);
      if (mine && q.op === 8) { // a part of what follows has come with it, or comes
        socket.once('data', () => socket.destroy());
      } else if (!mine) {
        peer.answer(q.id, 0, 1, 5);
      }
    });
  }).listen(file);
  t.after(() => server.close());
  const c = await Client.connect({ socket: file, timeout: 20_000 });
  t.after(() => c.close());
  first!.pause();
  const calls = [c.set('fills the socket', Buffer.alloc(1 << 20))];
  await new Promise((resolve) => setImmediate(resolve));
  calls.push(c.incr('once') as Promise<never>);
  await new Promise((resolve) => setImmediate(resolve));
  calls.push(c.set('is cut', Buffer.alloc(4 << 20)));
  await new Promise((resolve) => setImmediate(resolve));
  first!.resume();
  const [, incr, cut] = await Promise.allSettled(calls);
  assert.equal(seen.filter((s) => s === '8 once').length, 1, String(seen));
  assert.ok(incr!.status === 'rejected' && code('timeout')(incr.reason));
  assert.equal(cut!.status, 'fulfilled', 'it was not written whole, and is repeated');
});

test('a FILL above maxInFlight has an id of its own, and gets its answer', async (t) => {
  const held: Request[] = [];
  const s = await Server.start(t, (q) => {
    if (q.op === 3 && keyOf(q) !== 'k') {
      held.push(q);
    } else {
      q.conn.answer(...q.op === 3 ? [q.id, 1, 0] : q.op === 9 ? [q.id, 2, Buffer.from('token'), 5000] : [q.id, 0, 5]);
    }
  });
  const c = clientOf(t, s, { maxInFlight: 4 });
  let loaded: ((v: string) => void) | undefined;
  const load = c.getOrSet('k', () => new Promise<string>((resolve) => {
    loaded = resolve;
  }));
  await until('the load', () => loaded !== undefined);
  const gets = ['a', 'b', 'c', 'd'].map((key) => c.get(key));
  await until('four calls', () => held.length === 4);
  loaded!('v');
  assert.equal(await load, 'v');
  for (const q of held) {
    q.conn.answer(...hit(q.id, keyOf(q)));
  }
  assert.deepEqual(await Promise.all(gets), ['a', 'b', 'c', 'd']);
});

interface Scene {
  c: Client;
  leases: Request[];
  fills: Request[];
}

async function loading(t: TestContext, o: ClientOptions = {}): Promise<Scene> {
  const leases: Request[] = [];
  const fills: Request[] = [];
  const s = await Server.start(t, (q) => {
    if (q.op === 3) {
      q.conn.answer(q.id, 1, 0);
    } else if (q.op === 9) {
      leases.push(q);
    } else {
      fills.push(q);
      q.conn.answer(q.id, 0, 5);
    }
  });
  return { c: clientOf(t, s, o), leases, fills };
}

const grant = (q: Request): void => q.conn.answer(q.id, 2, Buffer.from('token'), 5000);

test('a load whose callers have all left before it began takes no further callers', async (t) => {
  const { c, leases } = await loading(t, { maxLoads: 2 });
  const a = c.getOrSet('k', () => 'a');
  await until('the first LEASE', () => leases.length === 1);
  const controller = new AbortController();
  const b = c.getOrSet('k', () => 'b', { signal: controller.signal });
  await c.getItem('k'); // b has missed by now
  await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  await assert.rejects(b, { name: 'AbortError' });
  const d = c.getOrSet('k', () => 'd');
  await c.getItem('k');
  grant(leases[0]!);
  await until('the second LEASE', () => leases.length === 2);
  grant(leases[1]!);
  assert.deepEqual(await Promise.all([a, d]), ['a', 'd']);
});

test('callers that share the answer to a LEASE have a value of their own each', async (t) => {
  const { c, leases } = await loading(t);
  const a = c.getOrSet('k', () => 'a');
  await until('the first LEASE', () => leases.length === 1);
  const later = [c.getOrSet<{ n: number }>('k', () => ({ n: 0 })), c.getOrSet<{ n: number }>('k', () => ({ n: 0 }))];
  await c.getItem('k');
  grant(leases[0]!);
  await a;
  await until('the second LEASE', () => leases.length === 2);
  const q = leases[1]!;
  q.conn.answer(q.id, 0, Buffer.from('81a16e01', 'hex'), 32, 7, 0, 2, 0); // {n: 1}
  const [x, y] = await Promise.all(later);
  x!.n = 2;
  assert.deepEqual(y, { n: 1 });
});

test('a request above the sidecar\'s limit is refused before it is sent, and its token goes back', async (t) => {
  const { c, leases, fills } = await loading(t);
  await assert.rejects(c.set('k', Buffer.alloc(9 << 20)), code('too_large')); // the limit is not known before
  const load = c.getOrSet('k', () => Buffer.alloc(9 << 20));
  await until('the LEASE', () => leases.length === 1);
  grant(leases[0]!);
  assert.equal((await load as Buffer).length, 9 << 20);
  await until('the token', () => fills.length === 1);
  assert.deepEqual([fills[0]!.body[3], fills[0]!.body[6]], [null, 256]);
});

test('onCall is told of a FILL', async (t) => {
  const told: string[] = [];
  const { c, leases } = await loading(t, { onCall: (i) => told.push(`${i.op} ${i.outcome}`) });
  const load = c.getOrSet('k', () => 1);
  await until('the LEASE', () => leases.length === 1);
  grant(leases[0]!);
  await load;
  assert.deepEqual(told, ['get miss', 'lease ok', 'fill ok']);
});

// The server runs in a process of its own: the test blocks this one.
const echo = `
const net = require('node:net');
net.createServer((socket) => {
  let buf = Buffer.alloc(0);
  socket.on('error', () => {}).on('data', (b) => {
    buf = Buffer.concat([buf, b]);
    while (buf.length >= 4 && buf.length >= 4 + buf.readUInt32BE(0)) {
      const id = buf.readUInt32BE(6), long = buf[5] === 0xce; // or a positive fixint, or uint 8, or uint 16
      const op = long ? buf[10] : buf[5] < 0x80 ? buf[6] : buf[5] === 0xcc ? buf[7] : buf[8];
      const idBytes = buf.subarray(5, 5 + (long ? 5 : buf[5] < 0x80 ? 1 : buf[5] === 0xcc ? 2 : 3));
      const rest = Buffer.from(op === 1 ? process.argv[2] : process.argv[3], 'hex');
      const head = Buffer.alloc(4);
      head.writeUInt32BE(1 + idBytes.length + rest.length);
      if (op !== 23) socket.write(Buffer.concat([head, Buffer.from([op === 1 ? 0x93 : 0x98]), idBytes, rest]));
      buf = buf.subarray(4 + buf.readUInt32BE(0));
    }
  });
}).listen(process.argv[1], () => console.log('up'));
`;

async function apart(t: TestContext, value: number): Promise<string> {
  const file = socketPath();
  const answer = frame(0, welcome).subarray(5);
  const got = frame(...hit(0, 'v'.repeat(value))).subarray(6);
  const args = ['-e', echo, file, answer.toString('hex'), got.toString('hex')];
  const child = execFile(process.execPath, args);
  t.after(() => child.kill());
  await new Promise((resolve) => child.stdout!.once('data', resolve));
  return file;
}

function block(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end;);
}

const nextTick = (): Promise<void> => new Promise((resolve) => process.nextTick(resolve));

test('a blocked event loop ends no call whose answer the sidecar has', { timeout: 60_000 }, async (t) => {
  const socket = await apart(t, 10_000);
  const patient = new Client({ socket, timeout: 20_000 });
  t.after(() => patient.close());
  const connecting = patient.get('k');
  block(500); // longer than connectTimeout
  assert.equal((await connecting as string).length, 10_000);
  const c = await Client.connect({ socket, timeout: 400, connectTimeout: 20_000 });
  t.after(() => c.close());
  const sameTick = c.get('k');
  block(1000);
  assert.equal((await sameTick as string).length, 10_000);
  const sent = Array.from({ length: 200 }, () => c.get('k')); // more than the socket holds
  await nextTick();
  block(1000);
  assert.equal((await Promise.all(sent)).length, 200);
});

test('a key is well-formed text, or bytes', async () => {
  const c = new Client({ socket: '/nowhere' });
  await assert.rejects(c.get('a\ud800'), TypeError);
  await assert.rejects(c.getMany(['a', '\udfff']), TypeError);
  await assert.rejects(c.getMany([], { signal: AbortSignal.abort() }), { name: 'AbortError' });
  await c.close();
});

test('msgpack: integers stay integers, and what would not come back is refused', () => {
  assert.equal(Buffer.from(encodeValue([5e9, -5e9, { a: 2 ** 53 - 1 }]).bytes).toString('hex'),
    '93cf000000012a05f200d3fffffffed5fa0e0081a161cf001fffffffffffff');
  assert.deepEqual(decode(encodeValue({ a: new Date(5), b: Buffer.from([1]), c: 5e9, d: 1.5 }).bytes),
    { a: new Date(5), b: new Uint8Array([1]), c: 5e9, d: 1.5 });
  assert.throws(() => encodeValue([1, , 2]), TypeError);
  assert.throws(() => encodeValue(JSON.parse('{"__proto__": 1}')), TypeError);
});

test('msgpack that lies about its lengths, or is no text, or no time, is an encoding error, at once', () => {
  const lies = Buffer.from('ddffffffff'.repeat(1000), 'hex');
  const arrays = Buffer.from('dcffff'.repeat(1000), 'hex');
  const rooms = Buffer.from('dd00ffffff'.repeat(60), 'hex'); // 8 GB
  for (const b of [lies, arrays, rooms, Buffer.from('a2fffe', 'hex'), Buffer.from('d9', 'hex'),
    Buffer.from('c0c0', 'hex'), Buffer.from('c70cff000000007fffffff00000000', 'hex'),
    Buffer.from('91'.repeat(100_000), 'hex')]) {
    assert.throws(() => decodeValue(b, 0, b.length, 32, false, 'k'), code('encoding'), b.toString('hex', 0, 20));
  }
  const good = encodeValue({ a: ['ä', 'x'.repeat(70_000)], b: Array.from({ length: 70_000 }, () => null) });
  const again = decodeValue(Buffer.from(good.bytes), 0, good.bytes.length, 32, false, 'k');
  assert.equal(Object.keys(again as object).length, 2);
});
