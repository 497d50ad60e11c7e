import { cacheError } from './errors.js';
import { readToken } from './paths.js';

/** The settings of a {@link Client}. All times are in milliseconds. */
export interface ClientOptions {
  /** The path of the sidecar's socket. Default: $CACHESIDECAR_SOCKET, else the places where a sidecar puts it. */
  socket?: string | undefined;
  /** The namespace of calls. Default "default". */
  namespace?: string | undefined;
  /** Names this app to the sidecar's operators. Default: none. */
  name?: string | undefined;
  /** A secret that adds rights. Default: none. */
  token?: string | undefined;
  /** The path of a file with the token, in place of token. It is read for each connection. */
  tokenFile?: string | undefined;
  /** Bounds one attempt to connect. Default 250. */
  connectTimeout?: number | undefined;
  /** Bounds a call that names no time. Default 1,000. */
  timeout?: number | undefined;
  /** Bounds the loader of getOrSet. What took longer than the sidecars' lease_time, 10,000, is not kept. Default 30,000. */
  loadTimeout?: number | undefined;
  /** Bounds how long getOrSet waits for a load of another process. Default 10,000. */
  waitTimeout?: number | undefined;
  /** Bounds the calls in flight; a call above it fails as busy. Default 1,024. */
  maxInFlight?: number | undefined;
  /** Bounds the keys that getOrSet asks for or loads at one time; a key above it fails as busy. Default 4,096. */
  maxLoads?: number | undefined;
  /** Whether getOrSet calls its loader if the sidecar cannot be asked. Default true. */
  failOpen?: boolean | undefined;
  /** A cache in this process. Default: none. */
  nearCache?: NearCacheOptions | undefined;
  /** Is called after each call. It must be quick; its errors are lost. Default: none. */
  onCall?: ((info: CallInfo) => void) | undefined;
}

/** A cache in this process, in front of the sidecar's. */
export interface NearCacheOptions {
  /** Bounds the memory of the values, with overhead; at least 1 MiB. It needs 1.7 MiB beside it. */
  bytes: number;
  /** How much further, in milliseconds, a value may lag than one from the sidecar. Default 1,000; 100 to 60,000. */
  bound?: number | undefined;
}

/** What onCall is told. */
export interface CallInfo {
  /** The op: get, set, mget, lease, fill… */
  op: string;
  namespace: string;
  /** How long it took, in milliseconds. */
  ms: number;
  /** "ok", "miss", the code of a CacheError, or "error". */
  outcome: string;
  /** Whether the near cache has answered. */
  near: boolean;
}

/** The settings with their defaults. */
export interface Settings {
  socket: string | undefined;
  namespace: string;
  name: string | undefined;
  /** Returns the token. It is no property, which a log would print. */
  secret: () => string | undefined;
  connectTimeout: number;
  timeout: number;
  loadTimeout: number;
  waitTimeout: number;
  maxInFlight: number;
  maxLoads: number;
  failOpen: boolean;
  nearCache: { bytes: number; bound: number } | undefined;
  onCall: ((info: CallInfo) => void) | undefined;
}

const day = 24 * 3600 * 1000;

function number(name: string, v: number | undefined, standard: number, least: number, most: number): number {
  const n = v ?? standard;
  if (typeof n !== 'number' || !(n >= least && n <= most)) {
    throw cacheError('bad_request', `${name} is ${n}: give ${least} to ${most}`);
  }
  return n;
}

/** Checks the settings and adds the defaults. */
export function settingsOf(o: ClientOptions): Settings {
  const { token, tokenFile } = o;
  if (token !== undefined && tokenFile !== undefined) {
    throw cacheError('bad_request', 'token and tokenFile are given: leave out one of them');
  }
  const near = o.nearCache;
  return {
    socket: o.socket,
    namespace: namespaceOf(o.namespace ?? 'default'),
    name: o.name,
    secret: () => (tokenFile === undefined ? token : readToken(tokenFile)),
    connectTimeout: number('connectTimeout', o.connectTimeout, 250, 1, day),
    timeout: number('timeout', o.timeout, 1000, 1, 3600_000),
    loadTimeout: number('loadTimeout', o.loadTimeout, 30_000, 1, day),
    waitTimeout: number('waitTimeout', o.waitTimeout, 10_000, 1, day),
    maxInFlight: Math.floor(number('maxInFlight', o.maxInFlight, 1024, 1, 1 << 20)),
    maxLoads: Math.floor(number('maxLoads', o.maxLoads, 4096, 1, 1 << 24)),
    failOpen: o.failOpen ?? true,
    nearCache: near && {
      bytes: number('nearCache.bytes', near.bytes, 0, 1 << 20, Number.MAX_SAFE_INTEGER),
      bound: number('nearCache.bound', near.bound, 1000, 100, 60_000),
    },
    onCall: o.onCall,
  };
}

/** Checks a namespace. */
export function namespaceOf(name: string): string {
  if (!/^[a-z0-9_.-]{1,64}$/.test(name)) {
    throw cacheError('bad_request', `the namespace ${JSON.stringify(name)}: give 1 to 64 of a-z 0-9 _ . -`);
  }
  return name;
}
