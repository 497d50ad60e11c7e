/**
 * Client of cachesidecar, a cache that runs beside your services on each host.
 *
 * Values: a Uint8Array, a string, an integer, or what msgpack can say (null, booleans, numbers, arrays, plain objects,
 * Dates). They are read in every language.
 *
 * @packageDocumentation
 */
export type {
  AppendOptions, CallOptions, DeleteOptions, FlushOptions, GetOptions, IncrOptions, ManyOptions, SetOptions,
  TouchOptions, WriteOptions,
} from './calloptions.js';
export type { Results } from './batch.js';
export { Client } from './client.js';
export { AbortError } from './core.js';
export { Encoding } from './encoding.js';
export {
  BadRequestError, BusyError, CacheError, ClosedError, EncodingError, type ErrorCode, InternalError, NotStoredError,
  OriginError, TimeoutError, TooLargeError, UnauthorizedError, UnavailableError, UnsupportedError,
} from './errors.js';
export type { Loader, LoadOptions } from './loads.js';
export type { NearStats } from './near.js';
export type { CallInfo, ClientOptions, NearCacheOptions } from './options.js';
export type { Item, Stored } from './replies.js';
export { type Key, NO_EXPIRY } from './requests.js';
export type { WatchEvent, WatchOptions } from './watch.js';
