import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { inspect } from 'node:util';
import { CacheError, Client, type ClientOptions, OriginError, UnavailableError } from '../src/index.js';
import { type Request, Server } from './server.js';

// Calls of several keys of which some fail: the other ones have their results.

const statuses: Record<string, number> = { bad: 16, large: 17, down: 23, late: 21, lost: 19, busy: 22 };

interface Scene {
  s: Server;
  c: Client;
  asked: string[][];
}

/** Starts a server that answers each key as its name says; other keys have themselves as their values. */
async function start(t: TestContext, o: ClientOptions = {}): Promise<Scene> {
  const asked: string[][] = [];
  let found = 0;
  const item = (op: number, name: string): unknown[] => {
    for (const [begins, status] of Object.entries(statuses)) {
      if (name.startsWith(begins)) {
        return [status, `${begins} here`];
      }
    }
    if (name === 'absent') {
      return [1, 0];
    }
    if (name === 'again' && asked.filter((names) => names.includes('again')).length === 1) {
      return [22, 'the answer has become too long'];
    }
    if (name === 'twice' && found++ > 0) {
      return [22, 'the answer has become too long'];
    }
    return op === 4 ? [0, Buffer.from(name), name === 'strange' ? 3 : 16, 7, 0, 2, 0] : [0, 7];
  };
  const s = await Server.start(t, (q: Request) => {
    const keys = (Array.isArray(q.body[1]) ? q.body[1] : [q.body[1]]) as Uint8Array[];
    const names = keys.map((key) => Buffer.from(key).toString());
    asked.push(names);
    if (names.includes('cut')) {
      q.conn.socket.destroy();
      return;
    }
    const items = names.map((name) => item(q.op, name)).slice(names.includes('short') ? 1 : 0);
    const answer = q.op === 4 || q.op === 6 ? [0, items] : items[0]!;
    q.conn.answer(q.id, ...names.includes('all') ? [18, 'no right'] : answer);
  });
  const c = new Client({ socket: s.path, timeout: 20_000, connectTimeout: 20_000, ...o });
  t.after(() => c.close());
  return { s, c, asked };
}

const codes = (errors: ReadonlyMap<unknown, CacheError>): Record<string, string> =>
  Object.fromEntries([...errors].map(([key, e]) => [String(key), e.code]));

/** Returns the error that a promise is rejected with. */
async function caught(p: Promise<unknown>): Promise<CacheError> {
  const e = await p.then(() => undefined, (e: unknown) => e);
  assert.ok(e instanceof CacheError, String(e));
  return e;
}

const long = 'x'.repeat(1025);
const bytes = Buffer.from('b');

test('keys that fail leave the other ones alone', async (t) => {
  const { c, asked } = await start(t);
  const keys = ['down1', 'a', '', 'bad', 'absent', bytes, long, 'strange', 'late', 'lost'];
  const wanted = {
    '': 'bad_request', [long]: 'bad_request', down1: 'origin', bad: 'bad_request', strange: 'encoding', late: 'timeout',
    lost: 'unavailable',
  };
  const { values, errors } = await c.getMany(keys, { partial: true });
  assert.deepEqual(values, new Map<unknown, unknown>([['a', 'a'], [bytes, 'b']]));
  assert.deepEqual(codes(errors), wanted);
  const e = await caught(c.getMany(keys));
  assert.equal(e.name, 'BadRequestError');
  assert.match(e.message, /^key "": a key of 0 bytes.*of 7 keys that have failed this is the first/);
  assert.deepEqual([e.values, codes(e.errors)], [values, wanted]);
  assert.deepEqual(asked, Array(2).fill(['down1', 'a', 'bad', 'absent', 'b', 'strange', 'late', 'lost']));
});

test('the error is of the class of the first failure, and prints no values', async (t) => {
  const { c } = await start(t);
  const e = await caught(c.getMany(['a', 'down', 'lost']));
  assert.ok(e instanceof OriginError && e.code === 'origin' && e.cause === e.errors.get('down'));
  assert.deepEqual(e.values, new Map([['a', 'a']]));
  assert.match(e.message, /^key "down": down here/);
  assert.deepEqual([e.errors.get('down')!.values.size, e.errors.get('down')!.errors.size], [0, 0]);
  assert.ok(await caught(c.getMany(['lost', 'down'])) instanceof UnavailableError);
  assert.doesNotMatch(inspect(e, { depth: 9, showHidden: true }) + inspect(e) + JSON.stringify(e), /Map/);
});

test('without a failure the option returns both as well', async (t) => {
  const { c } = await start(t);
  assert.deepEqual(await c.getMany(['a', 'absent']), new Map([['a', 'a']]));
  const errors = new Map();
  assert.deepEqual(await c.getMany(['a', 'absent'], { partial: true }), { values: new Map([['a', 'a']]), errors });
  assert.deepEqual(await c.getMany([], { partial: true }), { values: new Map(), errors });
  assert.equal(await c.setMany([['a', 1]]), undefined);
  assert.deepEqual(await c.setMany([['a', 1]], { partial: true }), { values: new Map([['a', 7n]]), errors });
  assert.deepEqual(await c.deleteMany(['a', 'absent', 'a']), [true, false, true]);
});

test('busy keys are asked for again while that is of use', async (t) => {
  const { c, asked } = await start(t);
  assert.deepEqual(await c.getMany(['a', 'again', 'b']), new Map([['a', 'a'], ['b', 'b'], ['again', 'again']]));
  const { values, errors } = await c.getMany(['a', 'busy1', 'busy2', 'b'], { partial: true });
  assert.deepEqual([values, codes(errors)], [new Map([['a', 'a'], ['b', 'b']]), { busy1: 'busy', busy2: 'busy' }]);
  assert.deepEqual(asked, [['a', 'again', 'b'], ['again'], ['a', 'busy1', 'busy2', 'b'], ['busy1', 'busy2']]);
});

test('a key that is given twice is asked for once', async (t) => {
  const { c, asked } = await start(t);
  const { values, errors } = await c.getMany(['twice', 'a', 'twice', bytes, bytes], { partial: true });
  assert.deepEqual(values, new Map<unknown, unknown>([['twice', 'twice'], ['a', 'a'], [bytes, 'b']]));
  assert.deepEqual(codes(errors), {}); // no key is both found and failed
  assert.deepEqual(asked, [['twice', 'a', 'b']]);
});

const many = Array.from({ length: 3 * 1024 }, (_, i) => `k${i}`);

for (const [name, code] of [['cut', 'timeout'], ['short', 'internal'], ['all', 'unauthorized']] as const) {
  test(`one of several requests fails: ${name}`, async (t) => {
    const { c } = await start(t);
    const keys = [...many.slice(0, 1500), name, ...many.slice(1500)];
    const lost = keys.slice(1024, 2048);
    for (const { values, errors } of [
      await c.getMany(keys, { partial: true }), await c.deleteMany(keys, { partial: true }),
    ]) {
      assert.deepEqual([...values.keys()], keys.filter((key) => !lost.includes(key)));
      assert.deepEqual(codes(errors), Object.fromEntries(lost.map((key) => [key, code])));
    }
  });
}

test('without a sidecar each key has the error', async (t) => {
  const c = new Client({ socket: '/nowhere/s.sock' });
  t.after(() => c.close());
  const wanted = { a: 'unavailable', b: 'unavailable' };
  assert.deepEqual(codes((await c.getMany(['a', 'b'], { partial: true })).errors), wanted);
  assert.deepEqual(codes((await c.setMany([['a', 1], ['b', 2]], { partial: true })).errors), wanted);
  const e = await caught(c.deleteMany(['a', 'b']));
  assert.deepEqual([e.code, e.values, codes(e.errors)], ['unavailable', new Map(), wanted]);
  assert.match(e.message, /cannot connect/);
});

test('writes of some keys fail', async (t) => {
  const { c } = await start(t, { maxInFlight: 6 }); // three at a time
  const deep = (n: number): unknown => (n === 0 ? 0 : [deep(n - 1)]);
  const entries: [string, unknown][] = [
    ['a', 1], ['down', 2], ['', 3], ['late', 4], ['b', 5], ['deep', Array(1 << 21).fill(0)], ['c', deep(3)],
  ];
  const wanted = { down: 'origin', '': 'bad_request', late: 'timeout', deep: 'too_large' };
  const { values, errors } = await c.setMany(entries, { partial: true });
  assert.deepEqual([values, codes(errors)], [new Map([['a', 7n], ['b', 7n], ['c', 7n]]), wanted]);
  const e = await caught(c.setMany(entries));
  assert.deepEqual([e.code, e.values, codes(e.errors)], ['origin', values, wanted]);
  const keys = ['a', 'down', '', 'absent', 'bad', 'b'];
  const gone = await c.deleteMany(keys, { partial: true });
  assert.deepEqual(gone.values, new Map([['a', true], ['absent', false], ['b', true]]));
  assert.deepEqual(codes(gone.errors), { '': 'bad_request', down: 'origin', bad: 'bad_request' });
  const failed = await caught(c.deleteMany(keys));
  assert.deepEqual([failed.code, failed.values], ['bad_request', gone.values]);
  const one = await caught(c.delete('down'));
  assert.deepEqual([one.code, one.message, one.values.size], ['origin', 'down here', 0]);
});

test('what is wrong with the call is no key\'s error', async (t) => {
  const { c, asked } = await start(t);
  const partial = true as const;
  const wrong: [object, Promise<unknown>][] = [
    [{ name: 'TypeError' }, c.getMany(['a', null as unknown as string], { partial })],
    [{ name: 'TypeError' }, c.deleteMany(['a', 1 as unknown as string], { partial })],
    [{ code: 'bad_request' }, c.getMany(['a'], { timeout: -1, partial })],
    [{ code: 'bad_request' }, c.setMany([['a', 1]], { ttl: -1, partial })],
    [{ code: 'bad_request' }, c.setMany([['a', 1]], { flags: 1, partial })],
    [{ code: 'bad_request' }, c.setMany([['a', 1]], { timeout: -1, partial })],
    [{ code: 'bad_request' }, c.deleteMany(['a'], { replicaLag: -1, partial })],
    [{ name: 'AbortError' }, c.getMany(['a'], { signal: AbortSignal.abort(), partial })],
  ];
  for (const [want, call] of wrong) {
    await assert.rejects(call, want);
  }
  assert.deepEqual(asked, []);
  await assert.rejects(c.setMany([['a', 1], ['b', Symbol('s')]], { partial }), TypeError);
});

test('a call of several keys that is aborted has no results', async (t) => {
  const { c, s } = await start(t);
  const controller = new AbortController();
  s.hello = (): void => controller.abort();
  await assert.rejects(c.getMany(['a', 'b'], { signal: controller.signal, partial: true }), { name: 'AbortError' });
});
