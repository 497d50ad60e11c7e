import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { test } from 'node:test';
import { inspect, isDeepStrictEqual } from 'node:util';
import { CacheError, Client, type ClientOptions, type Item, type Key, NO_EXPIRY } from '../src/index.js';
import { decodeValue, encodeValue } from '../src/encoding.js';
import { integerOf, valueOf } from './values.js';

// The conversations of clients/conformance, played by this client.

type Json = Record<string, any>; // eslint-disable-line @typescript-eslint/no-explicit-any

const path = process.env['CONFORMANCE'];
const skip = path === undefined && 'run "go run . -- npm test --prefix ../node" in clients/conformance';
const manifest: Json = path === undefined ? {} : parse(fs.readFileSync(path, 'utf8'));

/** Reads the manifest. The numbers of INCR may have 64 bits: they become strings. */
function parse(text: string): Json {
  return JSON.parse(text.replace(/"(delta|initial)":\s*(-?\d+)/g, '"$1":"$2"')) as Json;
}

/** Player plays a conversation. */
class Player {
  private last = 0n;
  constructor(private readonly client: Client) {}

  async step(step: Json): Promise<void> {
    if ('wait_ms' in step) {
      await new Promise((resolve) => setTimeout(resolve, step['wait_ms'] as number));
    } else if ('together' in step) {
      const done = await Promise.all((step['together'] as Json[]).map((call) => this.call(call)));
      if ('loads' in step) {
        assert.equal(done.reduce((sum, n) => sum + n, 0), step['loads'], 'loads of the step');
      }
    } else {
      await this.call(step);
    }
  }

  /** Makes a call and compares its outcome. It returns how often it has loaded. */
  private async call(c: Json): Promise<number> {
    let loads = 0;
    const got = await this.outcome(c, () => loads++);
    const want = c['want'] as Json | undefined;
    const what = JSON.stringify(c);
    if (want === undefined) {
      return loads;
    }
    if ('error' in want) {
      assert.ok([want['error']].flat().includes(got['error']), `${what}: ${JSON.stringify(got)}`);
      return loads;
    }
    if ('loads' in want) {
      assert.equal(loads, want['loads'], `${what}: loads`);
    }
    for (const [name, v] of Object.entries(want)) {
      if (name === 'value') {
        assert.ok(isDeepStrictEqual(got['value'], valueOf(v as Json)), `${what}: ${short(got)}`);
      } else if (name === 'values') {
        assert.deepEqual(got['values'], (v as (Json | null)[]).map((e) => e && valueOf(e)), what);
      } else if (name !== 'loads') {
        assert.deepEqual(got[name], v, `${what}: ${short(got)}`);
      }
    }
    return loads;
  }

  private async outcome(c: Json, loaded: () => void): Promise<Json> {
    try {
      return await this.make(c, loaded);
    } catch (e) {
      if (e instanceof CacheError) {
        return { error: e.code, message: e.message };
      }
      if ((e as Error).name === 'AbortError') {
        return { cancelled: true };
      }
      if ((e as Error).message === 'the loader has failed') {
        return { load_error: true };
      }
      throw e;
    }
  }

  private async make(c: Json, loaded: () => void): Promise<Json> {
    const o: Json = {};
    if ('ttl_ms' in c) {
      o['ttl'] = c['ttl_ms'] === 0 ? NO_EXPIRY : c['ttl_ms'];
    }
    if ('timeout_ms' in c) {
      o['timeout'] = c['timeout_ms'];
    }
    if ('cancel_ms' in c) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), c['cancel_ms'] as number);
      o['signal'] = controller.signal;
    }
    if ('create' in c) {
      o['create'] = c['create'];
    }
    if ('cache_only' in c) {
      o['cacheOnly'] = c['cache_only'];
    }
    const key = ('key' in c ? valueOf(c['key'] as Json) : '') as Key;
    const keys = ((c['keys'] ?? []) as Json[]).map((k) => valueOf(k) as Key);
    const value = 'value' in c ? valueOf(c['value'] as Json) : undefined;
    const { client } = this;
    switch (c['do']) {
      case 'get': {
        const reads = { ...o, fresh: c['fresh'] as boolean, staleOk: c['stale_ok'] as boolean };
        return 'until' in c ? this.awaitValue(key, valueOf(c['until'] as Json)) : found(await client.get(key, reads));
      }
      case 'get_item': return this.item(await client.getItem(key, o), (c['want'] ?? {}) as Json);
      case 'get_many': {
        const all = await client.getMany(keys, o);
        return { values: keys.map((k) => (all.has(k) ? all.get(k) : null)) };
      }
      case 'set': return { stored: (await client.set(key, value, o)) > 0n };
      case 'add': return { stored: (await client.add(key, value, o)) !== undefined };
      case 'replace': return { stored: (await client.replace(key, value, o)) !== undefined };
      case 'cas': {
        const version = c['version'] === 'last' ? this.last : BigInt(c['version'] as number);
        const r = await client.compareAndSwap(key, value, version, o);
        return !r.stored && r.version === undefined ? { miss: true, stored: false } : { stored: r.stored };
      }
      case 'delete': return { deleted: await client.delete(key, o) };
      case 'delete_many': return { deleted: await client.deleteMany(keys, o) };
      case 'touch': return { touched: await client.touch(key, o) };
      case 'append': case 'prepend': {
        const piece = value as string | Uint8Array;
        const version = c['do'] === 'append' ? client.append(key, piece, o) : client.prepend(key, piece, o);
        return { stored: (await version) !== undefined };
      }
      case 'get_and_touch': {
        const { ttl, ...others } = o;
        return found(await client.getAndTouch(key, ttl as number, others));
      }
      case 'incr_unsigned': case 'decr_unsigned': {
        if ('initial' in c) {
          o['initial'] = integerOf(String(c['initial']));
        }
        const delta = integerOf(String(c['delta']));
        const down = c['do'] === 'decr_unsigned';
        const n = down ? await client.decrUnsigned(key, delta, o) : await client.incrUnsigned(key, delta, o);
        return n === undefined ? { miss: true } : { number: String(n) };
      }
      case 'incr': {
        if ('initial' in c) {
          o['initial'] = integerOf(String(c['initial']));
        }
        const sum = await client.incr(key, integerOf(String(c['delta'])), o);
        return sum === undefined ? { miss: true } : { number: String(sum) };
      }
      case 'get_or_set': return found(await client.getOrSet(key, () => {
        loaded();
        if ('error' in (c['load'] as Json)) {
          throw new Error('the loader has failed');
        }
        return valueOf(c['load'] as Json);
      }, o));
      case 'flush': await client.flush(o); return { ok: true };
      case 'ping': await client.ping(o); return { ok: true };
      default: throw new Error(`the manifest has the call ${String(c['do'])}, which is not known`);
    }
  }

  private item(it: Item | undefined, want: Json): Json {
    if (it === undefined) {
      return { miss: true };
    }
    this.last = it.version;
    const version = typeof want['version'] === 'string' ? String(it.version) : Number(it.version);
    return { bytes: it.value.toString('hex'), flags: it.flags, version, ttl: it.ttl !== undefined };
  }

  private async awaitValue(key: Key, want: unknown): Promise<Json> {
    for (const end = Date.now() + 5000; ;) {
      const got = await this.client.get(key).catch(() => undefined);
      try {
        assert.deepEqual(got, want);
        return found(got);
      } catch (e) {
        if (Date.now() > end) {
          throw e;
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** Shows the beginning of what has come. */
const short = (got: Json): string => inspect(got, { maxStringLength: 100, maxArrayLength: 20 });

const found = (v: unknown): Json => (v === undefined ? { miss: true } : { value: v });

function optionsOf(socket: string, c: Json): ClientOptions {
  return {
    socket,
    timeout: c['timeout_ms'] as number,
    connectTimeout: c['connect_timeout_ms'] as number,
    namespace: c['namespace'] as string,
    maxInFlight: c['max_in_flight'] as number,
    failOpen: c['fail_open'] as boolean,
    nearCache: c['near_cache'] ? { bytes: 16 << 20 } : undefined,
  };
}

test('the encodings of values', { skip, timeout: 60_000 }, () => {
  for (const e of manifest['encodings'] as Json[]) {
    const name = JSON.stringify(e).slice(0, 200);
    const b = Buffer.from(e['hex'] as string, 'hex');
    const flags = e['flags'] as number;
    if ('error' in e) {
      const want = { code: e['error'] as string };
      assert.throws(() => decodeValue(b, 0, b.length, flags, false, 'k'), want, name);
      continue;
    }
    const want = valueOf(e['value'] as Json);
    assert.deepEqual(decodeValue(b, 0, b.length, flags, false, 'k'), want, name);
    if (typeof want === 'bigint' && want > 2n ** 63n - 1n) {
      assert.throws(() => encodeValue(want), { code: 'too_large' }); // by itself it would be an integer
      continue;
    }
    const again = encodeValue(want);
    const bytes = Buffer.from(again.bytes);
    if ([0, 2, 16].includes(flags & 0xff)) {
      assert.deepEqual([bytes.toString('hex'), again.flags], [e['hex'], flags & 0xff]);
    } else {
      assert.deepEqual(decodeValue(bytes, 0, bytes.length, again.flags, false, 'k'), want);
    }
  }
});

test('the conversations', { skip, timeout: 120_000 }, async (t) => {
  const players = Number(process.env['CONFORMANCE_PLAYER'] ?? 0);
  for (const c of manifest['conversations'] as Json[]) {
    await t.test(c['name'] as string, async () => {
      const client = new Client(optionsOf((c['sockets'] as string[])[players]!, c['client'] as Json));
      const player = new Player(client);
      try {
        for (const step of (c['calls'] as Json[][])[players]!) {
          await player.step(step);
        }
      } finally {
        await client.close();
      }
    });
  }
});
