import { setTimeout as sleep } from 'node:timers/promises';
import { crc32 } from './crc32.js';
import { decodeValue } from '../src/encoding.js';
import { CacheError, Client, type ClientOptions } from '../src/index.js';
import { Residue } from './residue.js';
import { History, nanoseconds, type Op } from './soakhistory.js';
import { judge, noteDeletion, noteLoad } from './soakloads.js';

// Clients do everything at random while the sidecar is restarted, and every answer is checked.
//
//   go run . -restart 5s -timeout 15m -- node ../node/build/test/soak.js --seconds 600 --history FILE
//   go run -C ../.. ./internal/testing/checkhistory FILE
//
// in clients/conformance. FILE is an absolute path. checkhistory finds values that were old.

const flag = (name: string): string => process.argv[process.argv.indexOf(name) + 1]!;
const seconds = Number(flag('--seconds'));
const writers = 24;
const own = 8; // keys of a writer
const counter = own - 2; // a number for incr
const loaded = own - 1; // a result of loaders
const nearBound = 300;
const slack = 30;
const unknown = 2500; // ms after which a write of unknown outcome is over
const hung = 8000; // ms beyond its timeout within which a call must end
const loading = 4000; // ms for getOrSet, less than from restart to restart: a token that is given to nobody is found

const counts = new Map<string, number>();
const count = (what: string, n = 1): void => void counts.set(what, (counts.get(what) ?? 0) + n);
const wrongs: string[] = [];
const wrong = (what: string): void => void wrongs.push(what);

class Wrong extends Error {}

const now = (): number => performance.now();
const random = (n: number): number => Math.floor(Math.random() * n);
const chance = (p: number): boolean => Math.random() < p;
const nameOf = (key: number): string => `soak:${key}`;

const history = new History(flag('--history'), nearBound, slack, unknown);

/** The number of each key's latest attempt to write. It has one writer at a time. */
const attempted = Array.from({ length: writers * own }, () => 0);

for (const key of attempted.keys()) {
  if (key % own === loaded) {
    history.note({ op: 'set', key: nameOf(key), origin: true, began: 0, ended: 0 }); // the number 0
  }
}

/** Notes a write with the key's next number. */
async function write<T>(op: Op['op'], key: number, by: By, more: Partial<Op>,
  call: (seq: number, op: Op) => Promise<T>): Promise<T> {
  return history.write({ op, key: nameOf(key), host: by.name, ...more }, (noted) => {
    const seq = ++attempted[key]!;
    if (op === 'set') {
      noted.number = seq;
    }
    if (noted.origin) {
      noted.committed = nanoseconds();
    }
    return call(seq, noted);
  });
}

const pad = Buffer.alloc(200_000, 'a sentence with some bytes ');
const sumOf = (key: number, seq: number, ttl: number, body: Buffer): number =>
  crc32(Buffer.concat([Buffer.from(`${key} ${seq} ${ttl} `), body]));

const plain = (n: bigint): number | bigint => (Number.isSafeInteger(Number(n)) ? Number(n) : n);

/** Makes a value: its encoding and its length depend on the number. */
function make(key: number, seq: number, ttl = 0): unknown {
  const body = pad.subarray(0, seq % 37 === 0 ? 20_000 : seq % 211 === 0 ? 150_000 : random(400));
  switch (seq % 4) {
    case 0:
      return Buffer.concat([Buffer.from(`${key} ${seq} ${ttl} ${sumOf(key, seq, ttl, body)} `), body]);
    case 1: {
      const text = 'é☃𝄞'.repeat(body.length / 9);
      return `${key} ${seq} ${ttl} ${sumOf(key, seq, ttl, Buffer.from(text))} ${text}`;
    }
    case 2:
      return { key, seq, ttl, sum: sumOf(key, seq, ttl, body), body, big: 1n << 60n, when: new Date(seq * 1000) };
    default:
      return plain((BigInt(seq) << 14n | BigInt(key)) << 20n | BigInt(sumOf(key, seq, 0, Buffer.alloc(0)) & 0xfffff));
  }
}

/** Checks a value, whatever its encoding, and returns its number. */
function parse(key: number, v: unknown): number {
  if (typeof v === 'bigint' || typeof v === 'number') {
    const n = BigInt(v);
    const seq = Number(n >> 34n);
    if (Number(n >> 20n & 0x3fffn) !== key || Number(n & 0xfffffn) !== (sumOf(key, seq, 0, Buffer.alloc(0)) & 0xfffff)
      || (typeof v === 'number') !== Number.isSafeInteger(Number(n))) {
      throw new Wrong(`the number ${v} at key ${key}`);
    }
    return seq;
  }
  let at: number, seq: number, ttl: number, sum: number, body: Buffer, kind: number;
  if (typeof v === 'string' || v instanceof Uint8Array) {
    const data = Buffer.from(v as string);
    const m = /^(\d+) (\d+) (\d+) (\d+) /.exec(data.subarray(0, 80).toString('latin1'));
    [at, seq, ttl, sum] = (m ?? []).slice(1).map(Number) as [number, number, number, number];
    body = data.subarray(m?.[0].length);
    kind = typeof v === 'string' ? 1 : 0;
  } else {
    const m = v as { key: number; seq: number; ttl: number; sum: number; body: Buffer; big: bigint; when: Date };
    ({ key: at, seq, ttl, sum, body } = m);
    kind = m.big === 1n << 60n && m.when instanceof Date && m.when.getTime() === seq * 1000 ? 2 : -1;
  }
  if (at !== key || seq % 4 !== kind || sum !== sumOf(key, seq, ttl, body)) {
    throw new Wrong(`key ${key}: a value of key ${at}, number ${seq}: ${String(v).slice(0, 80)}`);
  }
  return seq;
}

interface By {
  client: Client;
  near: boolean;
  name: string;
}

/** Checks a value that was read, and notes the read. A client without a near cache sees all that its sidecar was told. */
function check(key: number, v: unknown, asked: number, by: By, fresh = false): void {
  let number: number;
  if (key % own === counter) {
    const n = BigInt(v instanceof Uint8Array ? Buffer.from(v).toString() : v as number | bigint);
    if (n >> 32n !== BigInt(key)) {
      throw new Wrong(`the number of key ${key} is ${n}`);
    }
    number = Number(n);
  } else {
    number = parse(key, v);
  }
  history.note({ op: 'read', key: nameOf(key), host: by.name, number, began: asked, fresh: fresh || !by.near });
}

/** Makes a call that must end in time; few get a tiny timeout, or a signal that ends it. */
async function timed<T>(name: string, call: (o: { timeout?: number; signal?: AbortSignal }) => Promise<T>,
  limit = 1000 + hung): Promise<T> {
  count('calls');
  const o: { timeout?: number; signal?: AbortSignal } = {};
  if (limit > hung && chance(0.04)) {
    o.timeout = [0.1, 1, 5, 20][random(4)]!;
  }
  if (chance(0.05)) {
    o.signal = AbortSignal.timeout(random(5));
    count('signals');
  }
  const began = now();
  try {
    return await call(o);
  } finally {
    if (now() - began > limit) {
      wrong(`${name} took ${now() - began} ms`);
    }
  }
}

const loader = (key: number) => async (_: unknown, { signal }: { signal: AbortSignal }): Promise<unknown> => {
  const seq = attempted[key]!;
  await noteLoad(key, seq, signal);
  if (chance(0.05)) {
    throw new RangeError('the loader fails');
  }
  return make(key, seq);
};

// A key that nobody else has tells exactly what each call must answer. The sidecar may have lost it by a restart: then
// it has no value, and the action ends.
let ownKeys = 0;
function ownKey(what: string): string {
  count(what);
  return `soak:${what}:${process.pid}:${++ownKeys}`;
}

function expect(what: string, got: unknown, want: unknown): void {
  if (got !== want) {
    throw new Wrong(`${what}: ${String(got).slice(0, 80)}, want ${String(want).slice(0, 80)}`);
  }
}

/** Checks a value that is put together of pieces like the first one. */
function expectJoined(what: string, got: unknown, want: Buffer, first: string | Uint8Array): void {
  expect(`the type of ${what}`, typeof got, typeof first);
  if (!Buffer.from(got as string).equals(want)) {
    throw new Wrong(`${what}: ${String(got).slice(0, 80)}, want ${String(want).slice(0, 80)}`);
  }
}

const actions: [number, (mine: number, by: By) => Promise<void>][] = [
  [35, async (mine, by) => {
    const key = chance(0.6) ? random(attempted.length) : mine + random(own - 2);
    const asked = nanoseconds(), fresh = chance(0.1);
    const v = await timed('get', (o) => by.client.get(nameOf(key), { ...o, fresh }));
    if (v !== undefined) {
      check(key, v, asked, by, fresh);
      count('hits');
    }
  }],
  [6, async (_, by) => {
    const some = new Map(Array.from({ length: 12 }, () => random(attempted.length)).map((k) => [nameOf(k), k]));
    const asked = nanoseconds();
    for (const [name, v] of await timed('getMany', (o) => by.client.getMany(some.keys(), o))) {
      check(some.get(name)!, v, asked, by);
    }
  }],
  [18, async (mine, by) => {
    const key = mine + random(own - 2);
    const ttl = attempted[key]! % 4 === 2 ? 0 : [0, 0, 0, 40, 400][random(5)]!;
    await write('set', key, by, { ttl: ttl * 1e6 }, (seq) => timed('set', (o) =>
      by.client.set(nameOf(key), make(key, seq, ttl), { ...o, ttl: ttl || undefined, flags: (seq & 0xff) << 8 })));
    const asked = nanoseconds();
    const v = await timed('get', (o) => by.client.get(nameOf(key), o));
    if (v !== undefined) {
      check(key, v, asked, by);
      count('own writes read');
    }
  }],
  [5, async (mine, by) => {
    const key = mine + random(own - 2);
    const asked = nanoseconds();
    const item = await timed('getItem', (o) => by.client.getItem(nameOf(key), { ...o, fresh: true }));
    if (item !== undefined) {
      check(key, decodeValue(item.value, 0, item.value.length, item.flags, true, nameOf(key)), asked, by, true);
      await write('set', key, by, {}, async (seq, op) => {
        const { stored } = await timed('compareAndSwap', (o) =>
          by.client.compareAndSwap(nameOf(key), make(key, seq), item.version, o));
        op.outcome = stored ? 'done' : 'not stored';
      });
    }
  }],
  [5, async (mine, by) => {
    const key = mine + random(own - 2);
    await write('delete', key, by, {}, () => timed('delete', (o) => by.client.delete(nameOf(key), o)));
    const asked = nanoseconds();
    const v = await timed('get', (o) => by.client.get(nameOf(key), o));
    if (v !== undefined) {
      check(key, v, asked, by);
    }
  }],
  [8, async (mine, by) => {
    const key = mine + counter;
    await write('incr', key, by, {}, async (seq, op) => {
      const initial = BigInt(key) << 32n | BigInt(seq);
      op.initial = Number(initial);
      const n = await timed('incr', (o) => by.client.incr(nameOf(key), 1, { ...o, initial }));
      if (n === undefined || BigInt(n) >> 32n !== BigInt(key)) {
        throw new Wrong(`incr of key ${key}, attempt ${seq}: ${n}`);
      }
      op.number = Number(n);
    });
  }],
  [18, async (_, by) => {
    const key = random(writers) * own + loaded;
    const asked = nanoseconds();
    const v = await timed('getOrSet', (o) =>
      by.client.getOrSet(nameOf(key), loader(key), { signal: o.signal, ttl: 2000 }), loading);
    check(key, v, asked, by);
    count('loaded values');
  }],
  [4, async (mine, by) => {
    if ((mine / own) % 2 === 0) {
      return; // a deletion ends tokens: half of the keys have none
    }
    const key = mine + loaded;
    await write('set', key, by, { origin: true }, async () => { // its number is what loaders return from now on
      const deleted = noteDeletion(key, unknown);
      await timed('delete', (o) => by.client.delete(nameOf(key), o));
      deleted();
    });
    const asked = nanoseconds();
    const v = await timed('getOrSet', (o) => by.client.getOrSet(nameOf(key), loader(key), { signal: o.signal }), loading);
    check(key, v, asked, by);
  }],
  [2, async (_, by) => {
    const key = ownKey('joined');
    expect('append to nothing', await timed('append', (o) => by.client.append(key, 'x', o)), undefined);
    const [first, piece] = chance(0.5) ? ['é', '☃'] : [Buffer.of(255), Buffer.of(0)];
    await timed('append', (o) => by.client.append(key, first!, { ...o, create: true, ttl: 5000 }));
    let value = Buffer.from(first!);
    for (let i = 0, n = 1 + random(4); i < n; i++) {
      const v = await timed('get', (o) => by.client.get(key, o));
      if (v === undefined) {
        return;
      }
      expectJoined('get of the joined pieces', v, value, first!);
      const more = Buffer.concat(Array.from({ length: [1, 10, 20_000][random(3)]! }, () => Buffer.from(piece!)));
      const part = typeof first === 'string' ? more.toString() : more;
      const version = i % 2 === 0
        ? await timed('prepend', (o) => by.client.prepend(key, part, o))
        : await timed('append', (o) => by.client.append(key, part, o));
      if (version === undefined) {
        return;
      }
      value = Buffer.concat(i % 2 === 0 ? [more, value] : [value, more]);
    }
    const v = await timed('getAndTouch', (o) => by.client.getAndTouch(key, 30_000, o));
    if (v === undefined) {
      return;
    }
    expectJoined('getAndTouch', v, value, first!);
    const item = await timed('getItem', (o) => by.client.getItem(key, o));
    if (item !== undefined) {
      if (item.ttl === undefined || item.ttl <= 5000 || item.ttl > 30_000) {
        throw new Wrong(`the TTL is ${item.ttl} after getAndTouch with 30000`);
      }
      count('joined and touched');
    }
  }],
  [1, async (_, by) => {
    const key = ownKey('unsigned');
    expect('decrUnsigned of nothing', await timed('decrUnsigned', (o) => by.client.decrUnsigned(key, 1, o)), undefined);
    const initial = (1n << 64n) - 3n;
    expect('incrUnsigned with initial',
      await timed('incrUnsigned', (o) => by.client.incrUnsigned(key, 1, { ...o, initial, ttl: 5000 })), initial);
    for (const [up, delta, want] of [
      [true, 2n, (1n << 64n) - 1n], [true, 8n, 7], [false, 3n, 4], [false, 5n, 0], [true, 1n << 63n, 1n << 63n],
    ] as const) {
      const n = up
        ? await timed('incrUnsigned', (o) => by.client.incrUnsigned(key, delta, o))
        : await timed('decrUnsigned', (o) => by.client.decrUnsigned(key, delta, o));
      if (n === undefined) {
        return;
      }
      expect(up ? 'incrUnsigned' : 'decrUnsigned', n, want);
    }
    count('counted past the ends');
  }],
  [0.2, async (mine) => {
    count('closed early');
    const client = new Client({ nearCache: { bytes: 1 << 20 } });
    const calls: Promise<unknown>[] = Array.from({ length: own - 2 }, (_, n) => client.get(nameOf(mine + n)));
    calls.push(client.getOrSet(nameOf(mine + loaded), loader(mine + loaded)));
    const ended = Promise.allSettled(calls);
    await sleep(random(10));
    await client.close();
    for (const one of await Promise.race([ended, sleep(5000, [], { ref: false })])) {
      if (one.status === 'rejected' && !(one.reason instanceof CacheError) && !(one.reason instanceof RangeError)) {
        wrong(`after close: ${one.reason}`);
      }
      count('ended after close');
    }
  }],
];
const weight = actions.reduce((sum, [n]) => sum + n, 0);

function refused(e: unknown): void {
  if (e instanceof Wrong) {
    wrong(e.message);
  } else if (e instanceof CacheError) {
    count(`error ${e.code}`);
    if (['internal', 'bad_request', 'encoding', 'too_large', 'not_stored'].includes(e.code)) {
      wrong(`an error that must not be: ${e.stack}`);
    }
  } else if (e instanceof RangeError || (e as Error).name === 'AbortError' || (e as Error).name === 'TimeoutError') {
    count(`error ${(e as Error).name}`);
  } else {
    wrong(`an error of another kind: ${(e as Error).stack}`);
  }
}

async function writer(number: number, clients: By[], end: number): Promise<void> {
  while (now() < end) {
    let dice = Math.random() * weight;
    const [, act] = actions.find(([n]) => (dice -= n) < 0) ?? actions[0]!;
    try {
      await act(number * own, clients[random(clients.length)]!);
    } catch (e) {
      refused(e);
    }
    if (chance(0.02)) {
      await sleep(random(20));
    }
  }
}

async function main(): Promise<void> {
  process.on('unhandledRejection', (e) => wrong(`unhandled rejection: ${(e as Error)?.stack}`));
  process.on('warning', (e) => wrong(`warning: ${e.stack}`));
  const residue = await Residue.note();
  const near: ClientOptions = { nearCache: { bytes: 4 << 20, bound: nearBound } };
  const clients = [near, near, {}, {}].map((o, i) => ({ client: new Client(o), near: 'nearCache' in o, name: `client ${i}` }));
  const memory: number[] = [];
  const sampler = setInterval(() => memory.push(process.memoryUsage.rss()), 500);
  const end = now() + seconds * 1000;
  await Promise.all(Array.from({ length: writers }, (_, n) => writer(n, clients, end)));
  clearInterval(sampler);
  count('near hits', clients.reduce((sum, c) => sum + (c.client.nearStats()?.hits ?? 0), 0));
  await Promise.all(clients.map((c) => c.client.close()));
  history.close();
  wrongs.push(...await residue.left());
  const half = memory.length >> 1;
  if (half > 20) {
    const settled = Math.max(...memory.slice(half >> 1, half));
    const last = Math.max(...memory.slice(-half >> 2));
    console.log(`memory ${settled >> 20} MiB, at the end ${last >> 20} MiB`);
    if (last > settled * 1.1 + (10 << 20)) {
      wrong(`the memory has grown from ${settled >> 20} MiB to ${last >> 20} MiB`);
    }
  }
  console.log([...counts].sort().map(([k, n]) => `${k}: ${n}`).join('\n'));
  const { report, wrong: overlaps } = judge();
  console.log(report);
  wrongs.push(...overlaps);
  console.log([...wrongs.slice(0, 40), `${wrongs.length} wrong answers`].join('\n'));
  process.exitCode = wrongs.length > 0 ? 1 : 0;
}

void main();
