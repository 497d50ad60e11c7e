import { onAbort } from './abort.js';
import { limits } from './codes.js';
import { systemClock } from './clock.js';
import { AbortError, type Core } from './core.js';
import { cacheError, closedError } from './errors.js';
import { Feed, final, type Told } from './feed.js';
import { nameOf } from './near.js';
import { keyOf } from './requests.js';
import * as xxh3 from './xxh3.js';

/** A change that the sidecar has heard of, on whatever host it was made. */
export type WatchEvent =
  /** A key was written, touched or deleted. key is there if it is one of those that are watched. */
  | { kind: 'changed'; key: string | Uint8Array | undefined; hash: bigint; version: bigint }
  /** Some partitions have changed; their keys are not known. */
  | { kind: 'raised'; partitions: number[]; version: bigint }
  /** A namespace was emptied; "" is all of them. */
  | { kind: 'flushed'; namespace: string; version: bigint }
  /** Earlier changes are not known; the first event is one. */
  | { kind: 'reset' }
  /** No event came; all changes until now were reported. */
  | { kind: 'beat' };

export interface WatchOptions {
  /** Report changes of these keys only, at most 1,024. Default: of every key, in every namespace. */
  keys?: readonly (string | Uint8Array)[] | undefined;
  /** Report the flushes of all namespaces. Default: of the client's. */
  all?: boolean | undefined;
  /** The time without events after which a beat comes, in milliseconds. Default 1,000. */
  beat?: number | undefined;
  /** Whether a loop that waits holds the process. Default false: the process may end. */
  ref?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

type Keys = Map<bigint, string | Uint8Array>;

/** Reports changes until the loop over it ends. A loop that is too slow gets a reset; nothing is queued. */
export async function* watch(
  core: Core, feeds: Set<Feed>, ns: string | null, o: WatchOptions,
): AsyncGenerator<WatchEvent, void, undefined> {
  const beat = o.beat ?? 1000;
  let keys = o.keys ?? [];
  if (keys.length > limits.keys || !(beat >= 1 && beat <= limits.timeout)) {
    throw cacheError('bad_request', `to watch ${keys.length} keys with a beat of ${beat} ms: give at most `
      + `${limits.keys}, and 1 to ${limits.timeout}`);
  }
  keys = keys.map(keyOf);
  if (core.closed) {
    throw closedError();
  }
  const feed = new Feed(core, ns, o.all ?? false, Math.ceil(beat), systemClock, o.ref ?? false);
  feeds.add(feed);
  const stop = (): void => void feed.close();
  const stay = o.signal === undefined ? (): void => {} : onAbort(o.signal, stop);
  try {
    for (let tries = 0; ; tries++) {
      if (o.signal?.aborted) {
        throw new AbortError(o.signal);
      }
      let told: Told;
      try {
        told = await feed.next();
      } catch (e) {
        if (o.signal?.aborted) {
          continue;
        }
        if (core.closed) {
          throw closedError();
        }
        if (final(e)) {
          throw e;
        }
        await feed.rest(tries);
        continue;
      }
      tries = 0;
      yield* eventsOf(told, ns ?? core.settings.namespace, keys);
    }
  } finally {
    stay();
    feeds.delete(feed);
    await feed.close();
  }
}

function eventsOf(told: Told, namespace: string, keys: readonly (string | Uint8Array)[]): WatchEvent[] {
  const { watched, welcome } = told;
  if (watched.reset) {
    return [{ kind: 'reset' }];
  }
  const names = keys.length > 0 ? namesOf(keys, namespace, welcome.hash) : undefined;
  const events: WatchEvent[] = [];
  const known = watched.each((kind, hashHi, hashLo, hi, lo, detail) => {
    const version = big(hi, lo);
    if (kind === 0) {
      const hash = big(hashHi, hashLo);
      const key = names?.get(hash);
      if (names === undefined || key !== undefined) {
        events.push({ kind: 'changed', key, hash, version });
      }
    } else if (kind === 1) {
      events.push({ kind: 'raised', partitions: bitsOf(detail as Uint8Array), version });
    } else {
      events.push({ kind: 'flushed', namespace: detail as string, version });
    }
  });
  if (!known) {
    events.push({ kind: 'reset' });
  }
  if (events.length === 0 && watched.seq === watched.head) {
    events.push({ kind: 'beat' });
  }
  return events;
}

const big = (hi: number, lo: number): bigint => BigInt(hi >>> 0) << 32n | BigInt(lo >>> 0);

function namesOf(
  keys: readonly (string | Uint8Array)[], namespace: string, hash: { name: string; seed: bigint },
): Keys {
  if (hash.name !== 'xxh3') {
    throw cacheError('unsupported', `the sidecar hashes keys with ${JSON.stringify(hash.name)}: watch without keys`);
  }
  const names: Keys = new Map();
  const of = (b: Uint8Array, seed: bigint): bigint => {
    xxh3.hash(b, b.length, Number(seed >> 32n) | 0, Number(seed & 0xffffffffn) | 0);
    return big(xxh3.hi, xxh3.lo);
  };
  const seed = of(Buffer.from(namespace), hash.seed);
  for (const key of keys) {
    names.set(of(typeof key === 'string' ? Buffer.from(nameOf(key)) : key, seed), key);
  }
  return names;
}

function bitsOf(bits: Uint8Array): number[] {
  const list: number[] = [];
  for (let p = 0; p < 8 * bits.length; p++) {
    if ((bits[p >> 3]! >> (p & 7) & 1) !== 0) {
      list.push(p);
    }
  }
  return list;
}
