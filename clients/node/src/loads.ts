import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';

import { onAbort } from './abort.js';
import { Call } from './call.js';
import { Bit, Op, Status } from './codes.js';
import { AbortError, type Core } from './core.js';
import { type Encoded, decodeValue, encodeValue } from './encoding.js';
import { CacheError, cacheError, closedError, type ErrorCode } from './errors.js';
import { lateLease, Lease, leased } from './lease.js';
import { nameOf, type Space } from './near.js';
import { Miss } from './replies.js';
import { type Key, markedFlags, type NO_EXPIRY, prepareNear, ttlArg, writeRead } from './requests.js';
import { clearTimeout, setTimeout } from './timers.js';

/**
 * The function of a getOrSet. The signal ends with the client, with loadTimeout, and if no caller waits any more.
 * It must not ask getOrSet for its own key.
 */
export type Loader<T> = (key: Key, context: { signal: AbortSignal }) => T | Promise<T>;

export interface LoadOptions {
  /** Of the value, in milliseconds. Default: the namespace's. */
  ttl?: number | typeof NO_EXPIRY | undefined;
  /** The app's own mark, in the upper 24 bits; the low 8 bits are 0. Default 0. */
  flags?: number | undefined;
  /** Take a stale value rather than wait for another load. */
  staleOk?: boolean | undefined;
  /** Ask the key's owner, read no copy. */
  fresh?: boolean | undefined;
  /** Bounds one question to the sidecar, in milliseconds. */
  timeout?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** The namespace of a load: as requests name it, and its values in the near cache, if there is one. */
export interface Namespace {
  ns: string | null;
  space: Space | undefined;
}

/** The errors of the sidecar after which this process loads all the same, if it is to fail open. */
const open: readonly ErrorCode[] = ['unavailable', 'busy', 'timeout', 'unsupported'];

/** What a loader loads, and the loader that has begun it. What a loader leaves running is no part of it. */
interface Loading {
  readonly by: Loads;
  readonly id: string;
  readonly within: Loading | undefined;
  over: boolean;
}

/** The loader that runs here. One storage for all clients: Node keeps each for ever. */
const loading = new AsyncLocalStorage<Loading>();

/** Returns the innermost loader that runs here. Those that are over are forgotten: their chain would have no end. */
function running(): Loading | undefined {
  let l = loading.getStore();
  while (l?.over) {
    l = l.within;
  }
  return l;
}

/** Flight is one question to the sidecar, followed by a load if one is needed, for all callers that came before it. */
class Flight {
  callers = 0;
  settled = false;
  readonly controller = new AbortController();
  /** Calls a function in the context of the first caller: the loader may be called when another flight ends. */
  readonly within = AsyncResource.bind(<T>(f: () => T): T => f());
  private readonly waiters: { resolve: (v: unknown) => void; reject: (e: unknown) => void }[] = [];

  constructor(
    readonly key: Key,
    readonly loader: Loader<unknown>,
    readonly options: LoadOptions,
    readonly namespace: Namespace,
    public alone: boolean, // do not ask the sidecar
  ) {}

  /** Waits for the end of the flight, or of the signal. The last caller that leaves ends the load. */
  wait(signal: AbortSignal | undefined): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        reject(new AbortError(signal!));
        if (--this.callers === 0 && !this.settled) {
          this.controller.abort(signal!.reason);
        }
      };
      const stay = signal === undefined ? (): void => {} : onAbort(signal, abort);
      const over = <V>(f: (v: V) => void) => (v: V): void => {
        stay();
        f(v);
      };
      this.waiters.push({ resolve: over(resolve), reject: over(reject) });
    });
  }

  /** Gives the callers a value of their own each. */
  share({ bytes, flags }: Encoded): void {
    for (const w of this.end()) {
      try {
        w.resolve(decodeValue(Buffer.from(bytes), 0, bytes.length, flags, true, this.key));
      } catch (e) {
        w.reject(e);
      }
    }
  }

  /** Gives the callers a value that the loader has made. */
  succeed(v: unknown, encoded: Encoded | undefined): void {
    if (this.waiters.length > 1 && encoded !== undefined) {
      this.share(encoded);
      return;
    }
    for (const w of this.end()) {
      w.resolve(v);
    }
  }

  fail(e: unknown): void {
    for (const w of this.end()) {
      w.reject(e);
    }
  }

  private end(): typeof this.waiters {
    this.settled = true;
    return this.waiters.splice(0);
  }
}

/**
 * Loads makes sure that this process asks for a key, or loads it, only once at a time.
 *
 * A caller may share only a question that was not yet sent when it came: an answer under way may be from before a
 * change that it knows of. So each key has one flight under way, and callers that come meanwhile gather for the next.
 * A flight that gets a lease no longer counts as under way: the sidecar lets the others wait from then on.
 */
export class Loads {
  private readonly keys = new Map<string, { next: Flight | undefined }>();
  private readonly flights = new Set<Flight>();

  constructor(private readonly core: Core) {}

  private idOf(ns: string | null, key: Key): string {
    return `${ns ?? this.core.settings.namespace}/${nameOf(key)}`;
  }

  /** Refuses a call that a loader makes for the key that it loads: it would wait for itself. */
  refuseOwn(ns: string | null, key: Key): void {
    const id = this.idOf(ns, key);
    for (let l = running(); l !== undefined; l = l.within) {
      if (l.by === this && l.id === id && !l.over) {
        throw cacheError('bad_request', `the loader of ${JSON.stringify(nameOf(key))} asks getOrSet for its own key: `
          + 'let it return the value');
      }
    }
  }

  /** Joins the key's next flight, which begins at once if none is under way. */
  join(namespace: Namespace, key: Key, loader: Loader<unknown>, o: LoadOptions, alone: boolean): Promise<unknown> {
    if (this.core.closed) {
      throw closedError();
    }
    const bits = (o.fresh ? Bit.fresh : 0) | (o.staleOk ? Bit.staleOk : 0);
    const id = `${bits}/${this.idOf(namespace.ns, key)}`;
    const queue = this.keys.get(id);
    const f = queue?.next;
    if (f !== undefined && !f.controller.signal.aborted) {
      f.callers++;
      f.alone &&= alone;
      return f.wait(o.signal);
    }
    if (f !== undefined) {
      this.flights.delete(f); // all its callers have left
    }
    return this.add(namespace, key, loader, o, alone, id, bits);
  }

  /** Adds a flight, and lets it begin if none is under way. */
  private add(
    namespace: Namespace, key: Key, loader: Loader<unknown>, o: LoadOptions, alone: boolean, id: string, bits: number,
  ): Promise<unknown> {
    const queue = this.keys.get(id);
    if (this.flights.size >= this.core.settings.maxLoads) {
      throw cacheError('busy', `${this.flights.size} keys are being loaded: try again, or raise maxLoads`);
    }
    const f = new Flight(key, loader, o, namespace, alone);
    f.callers = 1;
    this.flights.add(f);
    const result = f.wait(o.signal);
    if (queue === undefined) {
      this.keys.set(id, { next: undefined });
      void this.fly(id, f, bits);
    } else {
      queue.next = f;
    }
    return result;
  }

  /** Lets the key's next flight begin. */
  private pass(id: string, bits: number): void {
    const queue = this.keys.get(id)!;
    const f = queue.next;
    queue.next = undefined;
    if (f === undefined) {
      this.keys.delete(id);
    } else {
      void this.fly(id, f, bits);
    }
  }

  /** Carries out a flight. It never rejects. */
  private async fly(id: string, f: Flight, bits: number): Promise<void> {
    let passed = false;
    try {
      let lease: Lease | undefined;
      if (!f.alone && !f.controller.signal.aborted) {
        const found = await this.await(f, bits);
        if (found instanceof Lease) {
          lease = found;
          passed = true;
          this.pass(id, bits);
        } else if (!(found instanceof Miss)) {
          f.share(found as Encoded);
          return;
        } else if (found === Miss.absent) {
          f.succeed(undefined, undefined);
          return;
        }
      }
      await this.load(f, lease);
    } catch (e) {
      f.fail(e);
    } finally {
      this.flights.delete(f);
      if (!passed) {
        this.pass(id, bits);
      }
    }
  }

  /**
   * Asks the sidecar until its answer is other than "another caller still loads". It returns the value, a Lease, or a
   * Miss, also if the sidecar cannot be asked and the load is made all the same.
   */
  private async await(f: Flight, bits: number): Promise<unknown> {
    const s = this.core.settings;
    const timeout = f.options.timeout ?? s.timeout;
    for (let steps = Math.max(1, Math.floor(s.waitTimeout / timeout)); ; steps--) {
      const { ns, space } = f.namespace;
      const call = new Call(Op.lease, timeout, writeRead, leased, ns, f.key, bits);
      prepareNear(call, space);
      call.late = lateLease;
      try {
        return await this.core.run(call, f.controller.signal);
      } catch (e) {
        if (f.controller.signal.aborted) {
          throw e;
        }
        if (call.status === Status.timeout && steps > 1) {
          continue; // a sidecar that gives this answer is alive
        }
        if (!this.loadsAfter(e)) {
          throw e;
        }
        return Miss.degraded;
      }
    }
  }

  /** Reports whether this process loads after a read has failed. */
  loadsAfter(e: unknown): boolean {
    return this.core.settings.failOpen && e instanceof CacheError && open.includes(e.code);
  }

  /** Calls the loader, and fills or gives back the lease. */
  private async load(f: Flight, lease: Lease | undefined): Promise<void> {
    const giveBack = (): void => lease?.abandon();
    f.controller.signal.addEventListener('abort', giveBack, { once: true });
    try {
      const v = await this.call(f);
      if (v === undefined) { // there is none
        lease?.abandon();
        f.succeed(undefined, undefined);
        return;
      }
      const encoded = encodeValue(v);
      encoded.flags = markedFlags(encoded.flags, f.options.flags);
      const filled = lease?.fill(encoded, ttlArg(f.options.ttl), encoded.flags, f.namespace.space, this.core);
      await filled?.catch(() => {}); // the value is good for those who have waited
      f.succeed(v, encoded);
    } catch (e) {
      lease?.abandon();
      throw e;
    } finally {
      f.controller.signal.removeEventListener('abort', giveBack);
    }
  }

  /** Calls the loader, until its time is over. */
  private call(f: Flight): Promise<unknown> {
    const { signal } = f.controller;
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(new AbortError(signal));
        return;
      }
      const most = this.core.settings.loadTimeout;
      const timer = setTimeout(() => {
        const e = cacheError('timeout', `the loader of ${JSON.stringify(nameOf(f.key))} took longer than `
          + `${most} ms: raise loadTimeout`);
        reject(e);
        f.controller.abort(e);
      }, most);
      const own: Loading = {
        by: this, id: this.idOf(f.namespace.ns, f.key), within: f.within(running), over: false,
      };
      const over = (): void => {
        own.over = true;
        clearTimeout(timer);
        signal.removeEventListener('abort', abort);
      };
      const abort = (): void => {
        over();
        reject(new AbortError(signal));
      };
      signal.addEventListener('abort', abort, { once: true });
      f.within(() => loading.run(own, async () => {
        try {
          return await f.loader(f.key, { signal });
        } finally {
          over();
        }
      })).then(resolve, reject);
    });
  }

  /** Ends all flights. */
  close(): void {
    const e = closedError();
    for (const f of [...this.flights]) {
      f.fail(e);
      f.controller.abort(e);
    }
  }
}
