import type { NO_EXPIRY } from './requests.js';

/** The options of every call. */
export interface CallOptions {
  /** Bounds the call, in milliseconds. Default: the client's. */
  timeout?: number | undefined;
  /** Ends the call with an AbortError. A write may have been executed all the same. */
  signal?: AbortSignal | undefined;
}

export interface GetOptions extends CallOptions {
  /** Ask the key's owner, read no copy. */
  fresh?: boolean | undefined;
  /** Do not ask the origin. */
  noLoad?: boolean | undefined;
  /** Accept a stale value if there is no current one. */
  staleOk?: boolean | undefined;
}

/** An option of the calls of several keys. */
export interface ManyOptions {
  /**
   * Return the results, and the errors of the keys that have failed, as `{ values, errors }`, and reject for neither.
   * Default: a call of which a key has failed rejects with an error that has both.
   */
  partial?: boolean | undefined;
}

export interface WriteOptions extends CallOptions {
  /** Return once no host can serve what was there before. */
  ackAll?: boolean | undefined;
}

export interface SetOptions extends WriteOptions {
  /** In milliseconds, or NO_EXPIRY. Default: the namespace's. */
  ttl?: number | typeof NO_EXPIRY | undefined;
  /** The app's own mark, in the upper 24 bits; the low 8 bits are 0. Default 0. */
  flags?: number | undefined;
}

export interface AppendOptions extends SetOptions {
  /** Store the piece, with ttl and flags, if the key has no value. Else ttl and flags have no effect. */
  create?: boolean | undefined;
}

export interface DeleteOptions extends WriteOptions {
  /** Keep the value for reads with staleOk, for the namespace's stale_limit. */
  soft?: boolean | undefined;
  /**
   * Remove the value from the cache alone: the origin of a namespace that writes through keeps its own.
   */
  cacheOnly?: boolean | undefined;
  /** The time in which loaded values are not kept, in milliseconds: at most the namespace's replica_lag. */
  replicaLag?: number | undefined;
}

export interface TouchOptions extends WriteOptions {
  ttl?: number | typeof NO_EXPIRY | undefined;
}

export interface IncrOptions extends TouchOptions {
  /** What an absent key becomes, with ttl. Default: nothing, and the result is undefined. */
  initial?: number | bigint | undefined;
}

export interface FlushOptions extends CallOptions {
  /** Every namespace. */
  all?: boolean | undefined;
  /** On every host, which is the default; false: on this host alone. */
  cluster?: boolean | undefined;
}
