import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { Client, type ClientOptions } from '../src/index.js';
import { jumped, passed, tolerance } from '../src/clock.js';
import { Kept, KeptValues } from '../src/kept.js';
import { Ledger } from '../src/ledger.js';
import * as xxh3 from '../src/xxh3.js';
import { type Request, Server, until, welcome } from './server.js';

/** Clocks that a test sets. */
class TestClock {
  at = 1000; // monotonic, ms
  offset = 1_700_000_000_000; // of the wall clock
  mono(): number { return this.at; }
  wall(): number { return this.at + this.offset; }
}

/** Follower is a client with a near cache, whose clocks and sidecar the test has in hand. */
class Scene {
  gets = 0;
  value = 'old';
  asOf = 100n;
  version = 50n;
  watching: Request | undefined;
  seq = 0;
  attests = true;
  mute = false;
  readonly muted: Request[] = [];
  constructor(readonly server: Server, readonly client: Client, readonly clock: TestClock) {}

  static async start(t: TestContext, o: ClientOptions = {}): Promise<Scene> {
    const clock = new TestClock();
    const scenes: Scene[] = [];
    const s = await Server.start(t, (q) => scenes[0]!.on(q));
    const client = new Client({
      socket: s.path, timeout: 20_000, connectTimeout: 20_000, nearCache: { bytes: 1 << 20, bound: 1000 }, ...o, clock,
    } as ClientOptions);
    t.after(() => client.close());
    scenes.push(new Scene(s, client, clock));
    await until('a stream', () => client.nearStats()!.following);
    return scenes[0]!;
  }

  private on(q: Request): void {
    if (q.op === 15 && this.mute) {
      this.muted.push(q);
    } else if (q.op === 15) {
      if (q.body[2] === undefined || q.body[2] === null) {
        this.tell(q, { reset: true });
      } else {
        this.watching = q;
      }
    } else if (q.op === 3) {
      this.gets++;
      const attest = this.attests ? [this.asOf, 'n', 99] : [];
      q.conn.answer(q.id, 0, Buffer.from(this.value), 16, this.version, 60_000, 2, 0, ...attest);
    } else if (q.op === 5) {
      q.conn.answer(q.id, 0, this.asOf + 10n);
    } else if (q.op === 11) {
      q.conn.answer(q.id, 0, 1n);
    }
  }

  tell(q: Request, o: { reset?: boolean; events?: unknown }): void {
    const after = this.seq;
    this.seq += o.events === undefined ? 0 : 1;
    q.conn.answer(q.id, 0, {
      epoch: 7, after, seq: this.seq, head: this.seq, events: o.events ?? [null, null], reset: o.reset ?? false,
      behind_ms: 0,
    });
  }

  /** Answers the WATCH that waits, and waits for the next. */
  async event(events?: unknown): Promise<void> {
    await until('a WATCH', () => this.watching !== undefined);
    const q = this.watching!;
    this.watching = undefined;
    this.tell(q, { events });
    await until('the next WATCH', () => this.watching !== undefined);
  }

  /** Reads k, and reports whether the near cache had it. */
  async near(): Promise<boolean> {
    const before = this.gets;
    assert.equal(await this.client.get('k'), this.value);
    return this.gets === before;
  }

  /** Lets the near cache have k. */
  async fill(): Promise<void> {
    await until('a hit', async () => {
      this.clock.at += 0.001;
      return this.near();
    });
  }
}

/** An event of the key k. */
function changed(version: bigint, key = 'k'): unknown {
  const ns = Buffer.from('default');
  xxh3.hash(ns, ns.length, 0, 0);
  const [hi, lo] = [xxh3.hi, xxh3.lo];
  const b = Buffer.alloc(17);
  xxh3.hash(Buffer.from(key), key.length, hi, lo);
  b.writeInt32BE(xxh3.hi, 1);
  b.writeInt32BE(xxh3.lo, 5);
  b.writeBigUInt64BE(version, 9);
  return [b, null];
}

test('a hit costs no request, until the bound is over', async (t) => {
  const s = await Scene.start(t);
  await s.fill();
  s.clock.at += 1000 - tolerance - 2;
  assert.ok(await s.near());
  s.clock.at += 3;
  assert.ok(!await s.near());
  await s.event(); // its question was sent long ago
  assert.ok(!await s.near());
  await s.event();
  await s.fill();
});

test('events, flushes, raised partitions and unknown kinds outdate', async (t) => {
  const all = Buffer.alloc(2048, 0xff);
  const flush = Buffer.concat([Buffer.of(2), Buffer.alloc(8), Buffer.from('00000000000003e8', 'hex')]);
  const raise = Buffer.concat([Buffer.of(1), Buffer.alloc(16)]);
  for (const [name, event, outdates] of [
    ['a change', changed(101n), true],
    ['a change that it has', changed(100n), false],
    ['of another key', changed(101n, 'other'), false],
    ['a flush', [flush, [[null, 'default', 0]]], true],
    ['a flush of all', [flush, [[null, '', 0]]], true],
    ['a flush of another', [flush, [[null, 'users', 0]]], false],
    ['raised', [raise, [[all, '', 0]]], true],
    ['raised, others', [raise, [[Buffer.of(0), '', 0]]], false],
    ['a kind of later', [Buffer.alloc(17, 9), null], true],
  ] as const) {
    const s = await Scene.start(t);
    await s.fill();
    s.clock.at++;
    await s.event(event);
    assert.equal(await s.near(), !outdates, name);
  }
});

test('own writes outdate before the caller hears of them; a flush outdates all', async (t) => {
  const s = await Scene.start(t);
  await s.fill();
  await s.client.set('k', 'new');
  assert.ok(!await s.near());
  assert.ok(!await s.near(), 'it was attested before the write');
  s.asOf = 200n;
  await s.near();
  assert.ok(await s.near());
  await s.client.flush();
  assert.ok(!await s.near());
});

test('a write whose outcome is not known drops the key', async (t) => {
  const s = await Scene.start(t);
  await s.fill();
  await assert.rejects(s.client.touch('k', { timeout: 20 }), { code: 'timeout' }); // it is not answered
  assert.ok(!await s.near());
});

test('values without an attest, or of another run, are not kept', async (t) => {
  const plain = await Scene.start(t);
  plain.attests = false;
  const other = await Scene.start(t);
  other.server.hello = (q) => q.conn.answer(q.id, 0, { ...welcome, epoch: 98 }); // the WATCH is connected already
  for (const s of [plain, other]) {
    for (let i = 0; i < 5; i++) {
      assert.ok(!await s.near());
      s.clock.at++;
    }
  }
});

test('a broken WATCH drops everything, and a new one begins', async (t) => {
  const s = await Scene.start(t);
  await s.fill();
  await until('WATCH', () => s.watching !== undefined);
  const { conn } = s.watching!;
  s.watching = undefined;
  s.mute = true; // a new stream would drop everything too
  conn.socket.destroy();
  await until('the end', () => s.client.nearStats()!.entries === 0);
  await until('a question', () => s.muted.length > 0);
  assert.ok(!s.client.nearStats()!.following);
  s.mute = false;
  s.clock.at++;
  s.tell(s.muted[0]!, { reset: true });
  await until('a new stream', () => s.watching !== undefined);
  assert.ok(!await s.near());
  await s.fill();
});

test('an answer that does not follow the one before begins a new stream', async (t) => {
  const s = await Scene.start(t);
  await s.fill();
  await until('WATCH', () => s.watching !== undefined);
  const q = s.watching!;
  s.watching = undefined;
  s.mute = true;
  q.conn.answer(q.id, 0, { // 3 and 4 are missing
    epoch: 7, after: s.seq + 4, seq: s.seq + 4, head: s.seq + 4, events: [null, null], reset: false, behind_ms: 0,
  });
  await until('a question', () => s.muted.length > 0);
  assert.deepEqual([s.muted[0]!.body[2], s.muted[0]!.body[3]], [null, null], 'it asks for a reset');
  assert.ok(!s.client.nearStats()!.following);
  assert.ok(!await s.near());
  s.mute = false;
  s.clock.at++;
  s.tell(s.muted[0]!, { reset: true });
  await until('a new stream', () => s.watching !== undefined);
  await s.fill();
  assert.equal(s.client.nearStats()!.resets, 2);
});

test('a key of bytes that the caller reuses is kept under its own name', async (t) => {
  const s = await Scene.start(t);
  const key = Buffer.from('k');
  await until('a hit', async () => {
    s.clock.at += 0.001;
    const before = s.gets;
    const got = s.client.get(key);
    key.fill('z');
    await got;
    key.fill('k');
    return s.gets === before;
  });
  key.fill('z');
  const before = s.gets;
  await s.client.get(key);
  assert.equal(s.gets, before + 1, 'another key was answered with its value');
});

test('a jump of the clocks drops everything: forward, backward, a machine that sleeps', async (t) => {
  for (const [name, jump] of [
    ['forward', (c: TestClock) => { c.offset += tolerance + 5; }],
    ['backward', (c: TestClock) => { c.offset -= tolerance + 5; }],
    ['a sleep', (c: TestClock) => { c.offset += 3600_000; }],
  ] as const) {
    const s = await Scene.start(t);
    await s.fill();
    jump(s.clock);
    s.clock.at++;
    assert.ok(!await s.near(), name);
    assert.deepEqual([s.client.nearStats()!.jumps, s.client.nearStats()!.entries], [1, 0], name);
    const q = s.watching!; // was sent before the jump: its answer begins nothing
    s.watching = undefined;
    q.conn.answer(q.id, 0, {
      epoch: 7, after: s.seq, seq: s.seq, head: s.seq, events: [null, null], reset: false, behind_ms: 0,
    });
    await s.fill();
    assert.equal(s.client.nearStats()!.resets, 2, name);
  }
});

test('a jump is noticed between two questions, without a hit', async (t) => {
  const s = await Scene.start(t);
  await s.fill();
  s.clock.offset += 10_000;
  await s.event();
  await s.event();
  await until('nothing is kept', () => s.client.nearStats()!.entries === 0);
  assert.equal(s.client.nearStats()!.jumps, 1);
});

test('a drift by NTP is no jump', async (t) => {
  const s = await Scene.start(t);
  await s.fill();
  for (let i = 0; i < 200; i++) { // 50 s, in which the wall clock goes ahead by 0.5 s
    s.clock.at += 250;
    s.clock.offset += 2.5;
    await s.event();
    assert.ok(await s.near(), `after ${i}`);
  }
  assert.equal(s.client.nearStats()!.jumps, 0);
});

test('a sleep below the tolerance is counted', () => {
  const before = { mono: 0, wall: 1e12 };
  assert.ok(!jumped(before, 500, 1e12 + 500 + tolerance));
  assert.equal(passed(before, 500, 1e12 + 500 + tolerance), 500 + tolerance);
  assert.equal(passed(before, 500, 1e12 + 500 - tolerance), 500);
  assert.ok(jumped(before, 500, 1e12 + 501 + tolerance));
  assert.ok(jumped(before, 500, 1e12 + 499 - tolerance));
});

test('the TTL ends a value, counted from when it was asked for', async (t) => {
  const s = await Scene.start(t);
  await s.fill();
  for (let i = 0; i < 239; i++) { // 60 s less a step
    s.clock.at += 250;
    await s.event();
    await s.event();
  }
  assert.ok(await s.near());
  s.clock.at += 250;
  await s.event();
  await s.event();
  assert.ok(!await s.near());
});

test('SIEVE: the bound holds, and what is read stays', () => {
  const values = new KeptValues(10_000);
  const space = { values: new Map<string, Kept>() };
  const put = (key: string, cost: number): void => values.put(
    new Kept(space.values, key, 0, 0, key, 16, 0, 0, 0, 0, 0, { mono: 0, wall: 0 }, cost));
  put('hot', 100);
  let seed = 1;
  for (let i = 0; i < 100_000; i++) {
    seed = Math.imul(seed, 1103515245) + 12345 >>> 0;
    put(`k${seed % 500}`, 100 + seed % 300);
    space.values.get('hot')!.visited = true;
    assert.ok(values.bytes <= 10_000);
  }
  assert.equal(values.entries, space.values.size);
  assert.equal([...space.values.values()].reduce((sum, k) => sum + k.cost, 0), values.bytes);
  put('huge', 20_000);
  assert.ok(values.bytes <= 10_000 && !space.values.has('huge'));
  values.clear([space]);
  put('again', 100);
  assert.deepEqual([values.entries, values.bytes], [1, 100]);
});

test('the ledger: a collision costs a miss, and admits nothing outdated', () => {
  const l = new Ledger();
  const noted = new Map<number, number>(); // by upper half
  let seed = 7;
  for (let i = 0; i < 20_000; i++) {
    seed = Math.imul(seed, 1103515245) + 12345 >>> 0;
    const hi = seed % 40; // all in one slot
    const version = seed >>> 8;
    l.note(hi, 0x10000, 0, version);
    noted.set(hi, Math.max(noted.get(hi) ?? 0, version));
    assert.ok(l.admits(hi, 0x10000, 1, 0));
    for (const [h, v] of noted) {
      assert.ok(v === 0 || !l.admits(h, 0x10000, 0, v - 1));
    }
  }
});
