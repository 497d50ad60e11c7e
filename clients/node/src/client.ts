import { Batch, type Results } from './batch.js';
import { Call, type ReadAnswer } from './call.js';
import { Bit, limits, Mode, Op } from './codes.js';
import type {
  AppendOptions, CallOptions, DeleteOptions, FlushOptions, GetOptions, IncrOptions, ManyOptions, SetOptions,
  TouchOptions, WriteOptions,
} from './calloptions.js';
import { type Clock, systemClock } from './clock.js';
import { AbortError, Core } from './core.js';
import { decodeValue, encodeValue } from './encoding.js';
import { type CacheError, cacheError, mayHaveChanged } from './errors.js';
import { Feed } from './feed.js';
import { Hits } from './hits.js';
import type { Kept } from './kept.js';
import { type Loader, type LoadOptions, Loads } from './loads.js';
import { nameOf, Near, type NearStats, type Space, wrote } from './near.js';
import { NearFeed } from './nearfeed.js';
import { type ClientOptions, namespaceOf, settingsOf } from './options.js';
import * as replies from './replies.js';
import {
  type Key, keyOf, markedFlags, type NO_EXPIRY, optional, prepareNear, ttlArg, writeBare, writeInNamespace, writeKeyed,
  writeRead,
} from './requests.js';
import type { Arg } from './writer.js';
import { watch, type WatchEvent, type WatchOptions } from './watch.js';

/** What all views of a client share. */
class Shared {
  readonly core: Core;
  readonly loads: Loads;
  readonly near: Near | undefined;
  readonly hits: Hits | undefined;
  readonly feeds = new Set<Feed>();
  private readonly nearFeed: NearFeed | undefined;
  private closing: Promise<void> | undefined;

  constructor(o: ClientOptions, clock: Clock) {
    const settings = settingsOf(o);
    this.core = new Core(settings);
    this.loads = new Loads(this.core);
    if (settings.nearCache !== undefined) {
      const { bytes, bound } = settings.nearCache;
      const near = this.near = new Near(bytes, bound, clock);
      this.hits = new Hits(() => near.tallies(), () => this.core.dialer.live);
      this.nearFeed = new NearFeed(near, new Feed(this.core, null, true, Math.floor(bound / 4), clock));
    }
  }

  close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  private async end(): Promise<void> {
    this.hits?.report();
    this.core.closed = true;
    this.loads.close();
    await Promise.all([...this.feeds].map((feed) => feed.close()));
    await this.nearFeed?.close();
    await this.core.close();
  }
}

const internals = new WeakMap<Client, Shared>();

/** A client of the sidecar on this host. It connects when it is first used, and again when the sidecar is back. */
export class Client {
  private readonly core: Core;
  private readonly ns: string | null = null;
  private readonly space: Space | undefined;
  private readonly hits: Hits | undefined;
  private readonly timeout: number;

  constructor(options: ClientOptions = {}, within?: { client: Client; namespace: string }) {
    const shared = within === undefined
      ? new Shared(options, (options as { clock?: Clock }).clock ?? systemClock) : internals.get(within.client)!;
    internals.set(this, shared);
    this.core = shared.core;
    const namespace = within === undefined ? shared.core.settings.namespace : namespaceOf(within.namespace);
    if (namespace !== shared.core.settings.namespace) {
      this.ns = namespace;
    }
    this.space = shared.near?.space(namespace);
    this.hits = shared.hits;
    this.timeout = shared.core.settings.timeout;
  }

  /** Returns a client that is connected, or fails with the reason why it cannot be. */
  static async connect(options: ClientOptions = {}): Promise<Client> {
    const client = new Client(options);
    try {
      await client.core.dialer.get();
    } catch (e) {
      await client.close();
      throw e;
    }
    return client;
  }

  /** Returns a view with another namespace. It shares the connection and the near cache; closing one closes both. */
  inNamespace(name: string): Client {
    return new Client({}, { client: this, namespace: name });
  }

  /** What JSON has of a client, and what console.log prints: no settings, which have a token. */
  toJSON(): { namespace: string } {
    return { namespace: this.ns ?? this.core.settings.namespace };
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `Client ${JSON.stringify(this)}`;
  }

  /** Returns the key's value, or undefined if it has none. */
  get<T = unknown>(key: Key, o?: GetOptions): Promise<T | undefined> {
    return this.read<T | undefined>(key, o, replies.value);
  }

  private read<T>(key: Key, o: GetOptions | undefined, readAnswer: ReadAnswer): Promise<T> {
    try {
      key = keyOf(key);
      if (this.space !== undefined && !o?.fresh && !o?.signal?.aborted && !this.core.closed) {
        const kept = this.space.near.get(this.space, nameOf(key));
        if (kept !== undefined) {
          return Promise.resolve(this.fromNear(kept, key) as T);
        }
      }
      const options = o === undefined ? 0 : readBits(o);
      const call = new Call(Op.get, this.time(o), writeRead, readAnswer, this.ns, key, options);
      prepareNear(call, this.space);
      return this.core.run(call, o?.signal);
    } catch (e) {
      return Promise.reject(e);
    }
  }

  private fromNear(k: Kept, key: Key): unknown {
    this.hits?.count(this.space!.tally, key);
    if (this.core.settings.onCall !== undefined) {
      this.core.tell(Op.get, this.ns, 0, 'ok', true);
    }
    const { value } = k;
    return value instanceof Uint8Array
      ? decodeValue(value, 0, value.length, k.flags, false, key) : value;
  }

  private time(o: CallOptions | undefined): number {
    const timeout = o?.timeout;
    if (timeout === undefined) {
      return this.timeout;
    }
    if (typeof timeout !== 'number' || !(timeout > 0 && timeout <= limits.timeout)) {
      throw cacheError('bad_request', `a timeout of ${timeout} ms: give more than 0, and at most ${limits.timeout}`);
    }
    return timeout;
  }

  /** Returns the key's bytes, flags, version and more, or undefined if it has no value. The near cache is not asked. */
  async getItem(key: Key, o?: GetOptions): Promise<replies.Item | undefined> {
    key = keyOf(key);
    const options = o === undefined ? 0 : readBits(o);
    const call = new Call(Op.get, this.time(o), writeRead, replies.item, this.ns, key, options);
    return this.core.run(call, o?.signal);
  }

  /**
   * Returns the values of those keys that have one. If a key fails, the call rejects with an error of the class of the
   * first failure, whose `values` has those of the other keys, and `errors` the errors by key; see `partial`.
   */
  getMany<T = unknown, K extends Key = Key>(
    keys: Iterable<K>, o: GetOptions & ManyOptions & { partial: true },
  ): Promise<Results<K, T>>;
  getMany<T = unknown, K extends Key = Key>(
    keys: Iterable<K>, o?: GetOptions & { partial?: false | undefined },
  ): Promise<Map<K, T>>;
  async getMany<T, K extends Key>(
    keys: Iterable<K>, o?: GetOptions & ManyOptions,
  ): Promise<Map<K, T> | Results<K, T>> {
    if (o?.signal?.aborted) {
      throw new AbortError(o.signal);
    }
    const time = this.time(o);
    const batch = new Batch<K, T>();
    const left: [K, Key][] = []; // the caller's own keys name the values
    for (const given of new Set(keys)) {
      batch.attempt(given, () => {
        const key = keyOf<Key>(given);
        const kept = this.space !== undefined && !o?.fresh && !this.core.closed
          ? this.space.near.get(this.space, nameOf(key)) : undefined;
        if (kept === undefined) {
          left.push([given, key]);
        } else {
          batch.values.set(given, this.fromNear(kept, key) as T);
        }
      });
    }
    while (left.length > 0) {
      const asked = left.splice(0, limits.keys);
      const some = asked.map(([, key]) => key);
      const call = new Call(Op.mget, time, writeInNamespace, replies.several(some), this.ns, '', 0);
      call.options = o === undefined ? 0 : readBits(o);
      prepareNear(call, this.space);
      call.args = [bytesOf(some), optional(call.options)];
      try {
        const got = await this.core.run<replies.Got[]>(call, o?.signal);
        const again = got.some((one) => !one.busy); // mostly the answer would be too long
        asked.forEach(([given, key], i) => {
          const { value, error, busy } = got[i]!;
          if (busy && again) {
            left.push([given, key]);
          } else if (error !== undefined) {
            batch.failed(given, error);
          } else if (value !== undefined) {
            batch.values.set(given, value as T);
          }
        });
      } catch (e) {
        asked.forEach(([given]) => batch.failed(given, e));
      }
    }
    batch.end(o?.partial);
    return o?.partial ? batch.results : batch.values;
  }

  /** Stores a value and returns its version. */
  async set(key: Key, value: unknown, o?: SetOptions): Promise<bigint> {
    return (await this.store(key, value, Mode.set, null, o)).version!;
  }

  /** Stores a value if the key has none. It returns the version, or undefined if the key has one. */
  async add(key: Key, value: unknown, o?: SetOptions): Promise<bigint | undefined> {
    const { stored, version } = await this.store(key, value, Mode.add, null, o);
    return stored ? version : undefined;
  }

  /** Stores a value if the key has one. It returns the version, or undefined if the key has none. */
  async replace(key: Key, value: unknown, o?: SetOptions): Promise<bigint | undefined> {
    const { stored, version } = await this.store(key, value, Mode.replace, null, o);
    return stored ? version : undefined;
  }

  /** Stores a value if the key's version is still the given one. */
  async compareAndSwap(key: Key, value: unknown, version: bigint, o?: SetOptions): Promise<replies.Stored> {
    if (typeof version !== 'bigint') {
      throw new TypeError(`a version of type ${typeof version}: give the bigint of getItem`);
    }
    return this.store(key, value, Mode.swap, version, o);
  }

  /**
   * Puts a piece behind the key's value, and returns the version; undefined if the key has none. The value keeps its
   * encoding, flags and TTL.
   */
  append(key: Key, piece: string | Uint8Array, o?: AppendOptions): Promise<bigint | undefined> {
    return this.join(key, piece, Mode.append, o);
  }

  /** Puts a piece before the key's value, as append puts it behind. */
  prepend(key: Key, piece: string | Uint8Array, o?: AppendOptions): Promise<bigint | undefined> {
    return this.join(key, piece, Mode.prepend, o);
  }

  private async join(
    key: Key, piece: string | Uint8Array, mode: number, o: AppendOptions | undefined,
  ): Promise<bigint | undefined> {
    if (typeof piece !== 'string' && !(piece as unknown instanceof Uint8Array)) {
      throw new TypeError(`a piece of type ${typeof piece}: give a string or a Uint8Array`);
    }
    const { stored, version } = await this.store(key, piece, mode, null, o, o?.create ? Bit.create : 0);
    return stored ? version : undefined;
  }

  private store(
    key: Key, value: unknown, mode: number, compare: bigint | null, o: SetOptions | undefined, bits = 0,
  ): Promise<replies.Stored> {
    key = keyOf(key);
    const { bytes, flags } = encodeValue(value);
    const most = this.core.dialer.live?.welcome.limits.value ?? 0;
    if (most > 0 && bytes.length > most) {
      throw cacheError('too_large', `the value of ${nameOf(key)} has ${bytes.length} bytes, and the sidecar's `
        + `max_value is ${most}: split it, or raise max_value`);
    }
    const marked = markedFlags(flags, o?.flags);
    return this.write(Op.set, key, replies.stored, [
      bytes, ttlArg(o?.ttl), optional(marked), optional(mode), compare,
      optional(bits | (ack(o) ?? 0)),
    ], o);
  }

  /** Makes a write of a key. The near cache hears of it before the caller does. */
  private write<T>(
    op: number, key: Key, readAnswer: ReadAnswer, args: readonly Arg[], o: CallOptions | undefined,
  ): Promise<T> {
    const call = new Call(op, this.time(o), writeKeyed, readAnswer, this.ns, key, 0);
    call.args = args;
    this.noting(call, [key]);
    return this.core.run(call, o?.signal);
  }

  private noting(call: Call, keys: readonly Key[]): void {
    const { space } = this;
    if (space !== undefined) {
      call.space = space;
      call.failed = (e) => {
        if (mayHaveChanged(e)) {
          for (const key of keys) {
            wrote(space, key, 0, 0);
          }
        }
      };
    }
  }

  /**
   * Stores several values, one request each. If a key fails, the call rejects after all have ended, with an error that
   * has the versions and the errors by key, as that of getMany has.
   */
  setMany<K extends Key = Key>(
    entries: Iterable<readonly [K, unknown]>, o: SetOptions & ManyOptions & { partial: true },
  ): Promise<Results<K, bigint>>;
  setMany<K extends Key = Key>(
    entries: Iterable<readonly [K, unknown]>, o?: SetOptions & { partial?: false | undefined },
  ): Promise<void>;
  async setMany<K extends Key>(
    entries: Iterable<readonly [K, unknown]>, o?: SetOptions & ManyOptions,
  ): Promise<void | Results<K, bigint>> {
    this.time(o);
    ttlArg(o?.ttl);
    markedFlags(0, o?.flags);
    const list = [...entries];
    const batch = new Batch<K, bigint>();
    const width = Math.max(1, this.core.settings.maxInFlight >> 1);
    for (let i = 0; i < list.length; i += width) {
      const some = list.slice(i, i + width);
      const all = await Promise.allSettled(some.map(([key, value]) => this.set(key, value, o)));
      all.forEach((one, j) => {
        const key = some[j]![0];
        if (one.status === 'fulfilled') {
          batch.values.set(key, one.value);
        } else {
          batch.failed(key, one.reason);
        }
      });
    }
    batch.end(o?.partial);
    return o?.partial ? batch.results : undefined;
  }

  /** Removes the key's value from the whole cluster, and returns whether it had one. */
  async delete(key: Key, o?: DeleteOptions): Promise<boolean> {
    const { values, errors } = await this.deleteMany([key], { ...o, partial: true });
    for (const e of errors.values()) {
      throw e;
    }
    return values.get(key)!;
  }

  /**
   * Removes the keys' values from the whole cluster, and returns which of them had one, in their order. If a key fails,
   * the call rejects with an error that has this by key, as that of getMany has.
   */
  deleteMany<K extends Key = Key>(
    keys: Iterable<K>, o: DeleteOptions & ManyOptions & { partial: true },
  ): Promise<Results<K, boolean>>;
  deleteMany<K extends Key = Key>(
    keys: Iterable<K>, o?: DeleteOptions & { partial?: false | undefined },
  ): Promise<boolean[]>;
  async deleteMany<K extends Key>(
    keys: Iterable<K>, o?: DeleteOptions & ManyOptions,
  ): Promise<boolean[] | Results<K, boolean>> {
    const lag = o?.replicaLag ?? 0;
    if (!(lag >= 0 && lag <= limits.timeout)) {
      throw cacheError('bad_request', `a replicaLag of ${lag} ms: give 0 to ${limits.timeout}`);
    }
    const time = this.time(o);
    const bits = (o?.ackAll ? Bit.ackAll : 0) | (o?.soft ? Bit.soft : 0) | (o?.cacheOnly ? Bit.cacheOnly : 0);
    const batch = new Batch<K, boolean>();
    const list: [K, Key][] = [];
    for (const given of keys) {
      batch.attempt(given, () => list.push([given, keyOf<Key>(given)]));
    }
    const had: boolean[] = [];
    for (let i = 0; i < list.length; i += limits.keys) {
      const asked = list.slice(i, i + limits.keys);
      const some = asked.map(([, key]) => key);
      const call = new Call(Op.delete, time, writeInNamespace, replies.deleted(some), this.ns, '', 0);
      call.args = [bytesOf(some), optional(bits), optional(Math.ceil(lag))];
      this.noting(call, some);
      try {
        const got = await this.core.run<(boolean | CacheError)[]>(call, o?.signal);
        asked.forEach(([given], j) => {
          const one = got[j]!;
          if (typeof one === 'boolean') {
            batch.values.set(given, one);
            had.push(one);
          } else {
            batch.failed(given, one);
          }
        });
      } catch (e) {
        asked.forEach(([given]) => batch.failed(given, e));
      }
    }
    batch.end(o?.partial);
    return o?.partial ? batch.results : had;
  }

  /** Gives the key's value a new TTL, and returns whether there is one. */
  async touch(key: Key, o?: TouchOptions): Promise<boolean> {
    key = keyOf(key);
    return this.write(Op.touch, key, replies.touched, [ttlArg(o?.ttl), ack(o)], o);
  }

  /**
   * Returns the key's value, or undefined if it has none, and gives it a new TTL in the same step: in milliseconds, or
   * NO_EXPIRY. The key's owner is asked, never a copy.
   */
  async getAndTouch<T = unknown>(
    key: Key, ttl: number | typeof NO_EXPIRY, o?: CallOptions,
  ): Promise<T | undefined> {
    key = keyOf(key);
    const arg = ttlArg(ttl);
    if (arg === null) {
      throw cacheError('bad_request', 'getAndTouch without a ttl: give milliseconds, or NO_EXPIRY');
    }
    return this.write(Op.metaget, key, replies.gotAndTouched, [arg, Bit.touch], o);
  }

  /** Adds to a number and returns the sum, or undefined if there is no number and no initial one. */
  async incr(key: Key, delta: number | bigint = 1, o?: IncrOptions): Promise<number | bigint | undefined> {
    key = keyOf(key);
    const initial = o?.initial === undefined ? null : integer(o.initial, 'initial');
    return this.write(Op.incr, key, replies.incremented, [integer(delta, 'delta'), initial, ttlArg(o?.ttl), ack(o)], o);
  }

  /** Subtracts from a number, as incr adds. */
  async decr(key: Key, delta: number | bigint = 1, o?: IncrOptions): Promise<number | bigint | undefined> {
    return this.incr(key, typeof delta === 'bigint' ? -delta : 0 - delta, o);
  }

  /**
   * Adds to a number of 64 bits without a sign, and returns the sum, which wraps at 2^64; undefined if there is no
   * number and no initial one.
   */
  incrUnsigned(key: Key, delta: number | bigint = 1, o?: IncrOptions): Promise<number | bigint | undefined> {
    return this.count(key, delta, Bit.unsigned, o);
  }

  /** Subtracts from a number of 64 bits without a sign, as incrUnsigned adds. The result stops at 0. */
  decrUnsigned(key: Key, delta: number | bigint = 1, o?: IncrOptions): Promise<number | bigint | undefined> {
    return this.count(key, delta, Bit.unsigned | Bit.down, o);
  }

  private async count(
    key: Key, delta: number | bigint, bits: number, o: IncrOptions | undefined,
  ): Promise<number | bigint | undefined> {
    key = keyOf(key);
    const initial = o?.initial === undefined ? null : unsigned(o.initial, 'initial');
    const args = [unsigned(delta, 'delta'), initial, ttlArg(o?.ttl), bits | (ack(o) ?? 0)];
    return this.write(Op.incr, key, replies.incrementedUnsigned, args, o);
  }

  /**
   * Returns the key's value. If it has none, one caller in the whole cluster calls its loader; the value is stored, and
   * all callers get it. If the loader returns undefined, so does getOrSet, and nothing is stored.
   *
   * A loader that asks getOrSet for its own key gets an error: it would wait for itself.
   */
  async getOrSet<T>(key: Key, loader: Loader<T>, o: LoadOptions = {}): Promise<T | undefined> {
    ttlArg(o.ttl);
    markedFlags(0, o.flags);
    key = keyOf(key);
    const { loads } = internals.get(this)!;
    loads.refuseOwn(this.ns, key);
    let alone = false;
    try {
      const reads = { fresh: o.fresh, timeout: o.timeout, signal: o.signal };
      const found = await this.read<unknown>(key, reads, replies.lookup);
      if (!(found instanceof replies.Miss)) {
        return found as T;
      }
      if (found === replies.Miss.absent) {
        return undefined; // the origin says so
      }
      alone = found === replies.Miss.degraded; // the sidecar need not be asked again
    } catch (e) {
      if (!loads.loadsAfter(e)) {
        throw e;
      }
      alone = true;
    }
    if (o.signal?.aborted) {
      throw new AbortError(o.signal);
    }
    return loads.join({ ns: this.ns, space: this.space }, key, loader, o, alone) as Promise<T | undefined>;
  }

  /** Drops all keys of the namespace on every host, or as the options say. */
  async flush(o?: FlushOptions): Promise<void> {
    const call = new Call(Op.flush, this.time(o), writeInNamespace, replies.nothing, this.ns, '', 0);
    call.args = [optional((o?.all ? Bit.all : 0) | (o?.cluster ?? true ? Bit.cluster : 0))];
    try {
      await this.core.run(call, o?.signal);
    } finally {
      internals.get(this)!.near?.drop();
    }
  }

  /** Asks the sidecar for an empty answer. */
  ping(o?: CallOptions): Promise<void> {
    return this.bare(Op.ping, replies.nothing, [], o);
  }

  /** Returns the sidecar's statistics; with cluster those of every host. */
  stats(o?: CallOptions & { cluster?: boolean | undefined }): Promise<Record<string, unknown>> {
    return this.bare(Op.stats, replies.body, [o?.cluster ? Bit.cluster : null], o);
  }

  /** Returns the hosts of the cluster, as this host sees them. */
  members(o?: CallOptions): Promise<Record<string, unknown>[]> {
    return this.bare(Op.members, replies.body, [], o);
  }

  private async bare<T>(
    op: number, readAnswer: ReadAnswer, args: readonly Arg[], o: CallOptions | undefined,
  ): Promise<T> {
    const call = new Call(op, this.time(o), writeBare, readAnswer, null, '', 0);
    call.args = args;
    return this.core.run(call, o?.signal);
  }

  /** Reports changes in the whole cluster as the sidecar on this host hears of them. */
  watch(o: WatchOptions = {}): AsyncGenerator<WatchEvent, void, undefined> {
    const shared = internals.get(this)!;
    return watch(shared.core, shared.feeds, this.ns, o);
  }

  /** Returns the near cache's statistics, or undefined without one. */
  nearStats(): NearStats | undefined {
    const near = internals.get(this)!.near;
    return near && {
      following: near.stream !== undefined, ...near.stats,
      entries: near.values.entries, bytes: near.values.bytes, limit: near.values.limit,
    };
  }

  /** Closes the connections. Calls in flight fail with a ClosedError; loaders get an aborted signal. */
  close(): Promise<void> {
    return internals.get(this)!.close();
  }
}

// Node 18 has it from 18.18 on; "await using" needs it.
if (typeof Symbol.asyncDispose === 'symbol') {
  Object.defineProperty(Client.prototype, Symbol.asyncDispose, {
    value(this: Client): Promise<void> { return this.close(); }, writable: true, configurable: true,
  });
}

export interface Client {
  [Symbol.asyncDispose](): Promise<void>;
}

function readBits(o: GetOptions): number {
  return (o.fresh ? Bit.fresh : 0) | (o.noLoad ? Bit.noLoad : 0) | (o.staleOk ? Bit.staleOk : 0);
}

const ack = (o: WriteOptions | undefined): number | null => (o?.ackAll ? Bit.ackAll : null);

const bytesOf = (keys: readonly Key[]): Uint8Array[] =>
  keys.map((key) => (typeof key === 'string' ? Buffer.from(key) : key));

/** Checks a number for incr. */
function integer(n: number | bigint, name: string): number | bigint {
  if (typeof n === 'bigint' ? n !== BigInt.asIntN(64, n) : !Number.isSafeInteger(n)) {
    throw cacheError('bad_request', `${name} is ${n}: give a safe integer, or a bigint of 64 bits with a sign`);
  }
  return n;
}

/** Checks a number for incrUnsigned. */
function unsigned(n: number | bigint, name: string): number | bigint {
  if (typeof n === 'bigint' ? n !== BigInt.asUintN(64, n) : !Number.isSafeInteger(n) || n < 0) {
    throw cacheError('bad_request', `${name} is ${n}: give a safe integer, or a bigint of 64 bits, that is not negative`);
  }
  return n;
}
