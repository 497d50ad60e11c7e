import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { test } from 'node:test';
import { encode } from '@msgpack/msgpack';
import { Call, type ReadAnswer } from '../src/call.js';
import { Op } from '../src/codes.js';
import type { Connection } from '../src/connection.js';
import { Input } from '../src/input.js';
import { Malformed, Reader } from '../src/reader.js';
import * as replies from '../src/replies.js';
import * as requests from '../src/requests.js';
import { leased, Lease } from '../src/lease.js';
import type { CacheError } from '../src/errors.js';
import { Watched } from '../src/watched.js';
import { readWelcome } from '../src/welcome.js';
import { type Arg, Writer } from '../src/writer.js';

// The golden bytes of the protocol.

const manifest = process.env['CONFORMANCE'];
const file = manifest === undefined
  ? path.join(__dirname, '../../../../internal/wire/testdata/messages.json')
  : (JSON.parse(fs.readFileSync(manifest, 'utf8')) as { messages: string }).messages;

interface Message {
  name: string;
  op: string;
  kind: string;
  message: unknown[];
  hex: string;
}

/** Reads JSON whose numbers may have 64 bits. */
function parse(text: string): Message[] {
  const marked = text.replace(/([:[,]\s*)(-?\d{16,})(?=\s*[,\]}])/g, '$1"big:$2"');
  return JSON.parse(marked, (_, v: unknown) => {
    if (typeof v === 'string' && v.startsWith('big:')) {
      return BigInt(v.slice(4));
    }
    const bin = (v as { bin?: unknown } | null)?.bin;
    return typeof bin === 'string' ? Buffer.from(bin, 'hex') : v;
  }) as Message[];
}

const messages = parse(fs.readFileSync(file, 'utf8'));
const numbers = new Map(Object.entries(Op).map(([name, op]) => [name.toUpperCase(), op]));

test('requests: the bytes that this client sends', () => {
  let n = 0;
  for (const m of messages) {
    const op = numbers.get(m.op);
    // Only sidecars name the app that has asked.
    if (m.kind !== 'request' || op === undefined || op === Op.hello || m.name.endsWith(' of another host')) {
      continue;
    }
    const [id, , timeout, ns, ...rest] = m.message as [number, number, number, string | null, ...Arg[]];
    const keyed = rest[0] instanceof Uint8Array;
    const plain = op === Op.get || op === Op.lease;
    const write = ns === undefined ? requests.writeBare
      : !keyed ? requests.writeInNamespace : plain ? requests.writeRead : requests.writeKeyed;
    for (const key of keyed ? [rest[0] as Buffer, (rest[0] as Buffer).toString()] : ['']) {
      const call = new Call(op, 0, write, () => {}, ns ?? null, key, plain ? rest[1] as number ?? 0 : 0);
      call.args = keyed ? rest.slice(1) : rest;
      const w = new Writer();
      write(call, w, id, timeout);
      assert.equal(w.buf.toString('hex', 0, w.n), m.hex, m.name);
      n++;
    }
  }
  assert.ok(n > 30, `only ${n} requests`);
});

const conn = { leases: 0 } as Connection;

/** Decodes an answer by the function that reads it. */
function decoded(hex: string, op: number, readAnswer: ReadAnswer, key = 'user:42'): unknown {
  const b = Buffer.from(hex, 'hex');
  const r = new Reader().of(b, 4, b.length);
  const elements = r.array() - 2;
  r.uint();
  const status = r.uint();
  const result = readAnswer(new Call(op, 0, () => {}, readAnswer, null, key, 0), status, elements, r, conn);
  return result;
}

const answer = (name: string): Message => {
  const m = messages.find((e) => e.kind === 'answer' && e.name === name);
  assert.ok(m, name);
  return m;
};

test('answers: what this client reads', () => {
  const table: [string, number, ReadAnswer, unknown][] = [
    ['miss', Op.get, replies.lookup, replies.Miss.notCached],
    ['miss, the owner cannot be reached', Op.get, replies.lookup, replies.Miss.degraded],
    ['miss, the origin says so, vouched', Op.get, replies.lookup, replies.Miss.absent],
    ['set', Op.set, replies.stored, { stored: true, version: 7148934231982080001n }],
    ['set, but it exists', Op.set, replies.stored, { stored: false, version: 7148934231982080001n }],
    ['touch', Op.touch, replies.touched, true],
    ['incr', Op.incr, replies.incremented, -3],
    ['incr of an unsigned number that expires', Op.incr, replies.incrementedUnsigned, 2n ** 64n - 1n],
    ['metaget without the value, touched', Op.metaget, replies.gotAndTouched, Buffer.alloc(0)],
    ['metaget: a stale value, and the claim', Op.metaget, replies.gotAndTouched, undefined],
    ['metaget: a miss', Op.metaget, replies.gotAndTouched, undefined],
    ['lease: the origin has none', Op.lease, leased, replies.Miss.absent],
    ['fill', Op.fill, replies.stored, { stored: true, version: 5n }],
    ['flush', Op.flush, replies.nothing, undefined],
    ['stats', Op.stats, replies.body, { entries: 3 }],
    ['pong', Op.ping, replies.nothing, undefined],
    ['delete', Op.delete, replies.deleted(['a', 'b']), [true, false]],
  ];
  for (const [name, op, readAnswer, want] of table) {
    assert.deepEqual(decoded(answer(name).hex, op, readAnswer), want, name);
  }
  const item = decoded(answer('stale').hex, Op.get, replies.item) as replies.Item;
  assert.deepEqual(item, {
    value: Buffer.from('Ada'), flags: 1, version: 7148934231982080001n, ttl: 59000, source: 'origin', age: 4000,
    stale: true,
  });
  const vouched = decoded(answer('hit, vouched for').hex, Op.get, replies.item) as replies.Item;
  assert.equal(vouched.source, 'l2');
  assert.ok(decoded(answer('lease').hex, Op.lease, leased) instanceof Lease);
  const several = decoded(answer('mget').hex, Op.mget, replies.several(['a', 'b', 'c'])) as replies.Got[];
  assert.deepEqual(several.map((one) => one.value), [Buffer.from('Ada'), undefined, undefined]);
  assert.deepEqual(several.map((one) => one.busy), [false, false, true]);
  assert.deepEqual(several.map((one) => (one.error as CacheError | undefined)?.code), [undefined, undefined, 'busy']);
});

test('answers: HELLO and WATCH', () => {
  const hello = decoded(answer('hello').hex, Op.hello, (_c, _s, _n, r) => readWelcome(r)) as ReturnType<typeof readWelcome>;
  assert.equal(hello.epoch, 99n);
  assert.equal(hello.version, 1);
  assert.deepEqual(hello.features, ['shared']);
  assert.deepEqual(hello.hash, { name: 'xxh3', seed: 5n, partitions: 16384 });
  const w = new Watched(decoded(answer('watch').hex, Op.watch, replies.body));
  const events: unknown[] = [];
  w.each((...e) => events.push(e));
  assert.deepEqual([w.after, w.reset, w.behind], [1231, false, 480]);
  assert.deepEqual((events as unknown[][])[0]!.slice(0, 3), [0, 0x11223344, 0x55667788]);
  assert.deepEqual((events as unknown[][]).map((e) => [e[0], e[4], e[5]]), [
    [0, 5, ''], [1, 6, Uint8Array.of(3)], [2, 7, 'users'],
  ]);
  assert.ok(new Watched(decoded(answer('watch: a reset').hex, Op.watch, replies.body)).reset);
});

/** What reads an answer to an op. */
const readers: Record<string, ReadAnswer> = {
  GET: replies.item, MGET: replies.several(['a', 'b', 'c']), SET: replies.stored,
  TOUCH: replies.touched, INCR: replies.incremented, FILL: replies.stored,
  METAGET: replies.gotAndTouched, STATS: replies.body, MEMBERS: replies.body, WATCH: replies.body, HELLO: (_c, _s, _n, r) => readWelcome(r),
};

test('answers: every one that is cut short is malformed, and further elements are not', () => {
  for (const m of messages) {
    const status = m.message[1] as number;
    const readAnswer = m.op === 'DELETE' && status === 0
      ? replies.deleted((m.message[2] as unknown[]).map((_, i) => `k${i}`)) : readers[m.op];
    if (m.kind !== 'answer' || readAnswer === undefined || status > 3 || status === 1
      || m.name.includes('vouched')) { // what attests a value may be missing
      continue;
    }
    const whole = Buffer.from(m.hex, 'hex');
    const unread = m.op === 'INCR' ? encode(m.message[4]).length : 0; // ttl_ms is of no use here
    for (let cut = 5; cut < whole.length - unread; cut++) {
      assert.throws(() => decoded(whole.subarray(0, cut).toString('hex'), numbers.get(m.op)!, readAnswer),
        (e) => e instanceof Malformed, `${m.name}, cut at ${cut}`);
    }
    const longer = Buffer.concat([whole, Buffer.of(0xc0)]);
    longer[4]!++;
    try {
      decoded(longer.toString('hex'), numbers.get(m.op)!, readAnswer);
    } catch (e) {
      assert.equal((e as { code?: string }).code, 'encoding', m.name); // the values' flags are 1
    }
  }
});

test('frames in any pieces', () => {
  const frames = messages.map((m) => Buffer.from(m.hex, 'hex'));
  const all = Buffer.concat(frames);
  for (const piece of [1, 2, 3, 5, 7, 64, 1000, all.length]) {
    const got: string[] = [];
    const input = new Input((b, from, to) => got.push(b.toString('hex', from, to)));
    for (let at = 0; at < all.length; at += piece) {
      const b = Buffer.from(all.subarray(at, at + piece)); // the buffer is used again
      input.add(b, b.length, 1 << 20);
      b.fill(0xff);
    }
    assert.deepEqual(got, frames.map((f) => f.toString('hex', 4)), `pieces of ${piece}`);
  }
  assert.throws(() => new Input(() => {}).add(Buffer.from('ffffffff', 'hex'), 4, 1 << 20), Malformed);
});
