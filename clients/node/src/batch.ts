import { CacheError, cacheError, carry } from './errors.js';
import { nameOf } from './near.js';
import type { Key } from './requests.js';

/** What a call of several keys has brought with the option partial: the results, and the errors of the other keys. */
export interface Results<K extends Key, T> {
  values: Map<K, T>;
  errors: Map<K, CacheError>;
}

/** The results and the errors of a call of several keys, by the caller's own keys. */
export class Batch<K extends Key, T> {
  readonly values = new Map<K, T>();
  readonly errors = new Map<K, CacheError>();

  /** Notes why a key has no result. What is no CacheError, such as a TypeError or an AbortError, ends the call. */
  failed(key: K, e: unknown): void {
    if (!(e instanceof CacheError)) {
      throw e;
    }
    this.errors.set(key, e);
  }

  /** Runs a step for one key, and notes its failure. */
  attempt<R>(key: K, step: (key: K) => R): R | undefined {
    try {
      return step(key);
    } catch (e) {
      this.failed(key, e);
      return undefined;
    }
  }

  /** What a caller that has asked for both is given. */
  get results(): Results<K, T> {
    return { values: this.values, errors: this.errors };
  }

  /** Throws the error that carries both, if a key has failed and the caller has not asked for both. */
  end(partial: boolean | undefined): void {
    for (const [key, first] of partial ? [] : this.errors) {
      const n = this.errors.size;
      const more = n > 1 ? ` (of ${n} keys that have failed this is the first; errors has all)` : '';
      const e = cacheError(first.code, `key ${JSON.stringify(nameOf(key))}: ${first.message}${more}`, first);
      carry(e, this);
      throw e;
    }
  }
}
