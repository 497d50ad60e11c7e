/** What kind of error a {@link CacheError} is. */
export type ErrorCode =
  | 'bad_request' | 'too_large' | 'unauthorized' | 'unavailable' | 'timeout' | 'busy' | 'origin' | 'unsupported'
  | 'internal' | 'not_stored' | 'encoding' | 'closed';

/** What the error of a call of several keys carries. */
interface Carried {
  readonly values: ReadonlyMap<string | Uint8Array, unknown>;
  readonly errors: ReadonlyMap<string | Uint8Array, CacheError>;
}

const carried = new WeakMap<CacheError, Carried>(); // no properties: a log would print all values with the error

/** The base of all errors of this package, but for TypeError (a wrong argument) and AbortError (a signal). */
export class CacheError extends Error {
  /** Says what happened; the same in every language. */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }

  /** Of a call of several keys: the results of those that have not failed, by key. */
  get values(): ReadonlyMap<string | Uint8Array, unknown> {
    return carried.get(this)?.values ?? new Map();
  }

  /** Of a call of several keys: the errors of those that have failed, by key. */
  get errors(): ReadonlyMap<string | Uint8Array, CacheError> {
    return carried.get(this)?.errors ?? new Map();
  }
}

/** An argument or an option is not valid. Correct the call. */
export class BadRequestError extends CacheError {}
/** The value, or the answer, is above the limit. Split it, or raise the sidecar's max_value. */
export class TooLargeError extends CacheError {}
/** The caller has no right to do this. Change the sidecar's settings access or tokens. */
export class UnauthorizedError extends CacheError {}
/** The sidecar, or the owner of the key, cannot be reached. The call was surely not executed. */
export class UnavailableError extends CacheError {}
/** There was no answer in time, or the connection broke. A write may have been executed, or may still be. */
export class TimeoutError extends CacheError {}
/** A limit of calls, loads or memory is reached. The call was surely not executed: make fewer at once. */
export class BusyError extends CacheError {}
/** The origin of the namespace has failed; of a write: nothing was written. */
export class OriginError extends CacheError {}
/** The sidecar is of an older version and does not know the call. Update it. */
export class UnsupportedError extends CacheError {}
/** The sidecar has a defect, or has sent an answer that cannot be read. Report it. */
export class InternalError extends CacheError {}
/** Nothing was stored: the value is no number (incr), or the sum is beyond 64 bits. */
export class NotStoredError extends CacheError {}
/** The bytes are not of the encoding that the flags name. getItem gives the bytes all the same. */
export class EncodingError extends CacheError {}
/** The client was closed. */
export class ClosedError extends CacheError {}

type Subclass = new (code: ErrorCode, message: string, options?: ErrorOptions) => CacheError;

/** The classes, with their names in words: where an app is minified they have lost their own. */
const classes: Record<ErrorCode, readonly [Subclass, string]> = {
  bad_request: [BadRequestError, 'BadRequestError'],
  too_large: [TooLargeError, 'TooLargeError'],
  unauthorized: [UnauthorizedError, 'UnauthorizedError'],
  unavailable: [UnavailableError, 'UnavailableError'],
  timeout: [TimeoutError, 'TimeoutError'],
  busy: [BusyError, 'BusyError'],
  origin: [OriginError, 'OriginError'],
  unsupported: [UnsupportedError, 'UnsupportedError'],
  internal: [InternalError, 'InternalError'],
  not_stored: [NotStoredError, 'NotStoredError'],
  encoding: [EncodingError, 'EncodingError'],
  closed: [ClosedError, 'ClosedError'],
};
for (const [subclass, name] of [[CacheError, 'CacheError'] as const, ...Object.values(classes)]) {
  subclass.prototype.name = name;
}

/** Gives an error what a call of several keys has brought. */
export function carry(error: CacheError, what: Carried): void {
  carried.set(error, what);
}

/** Returns the error of a code. */
export function cacheError(code: ErrorCode, message: string, cause?: unknown): CacheError {
  return new classes[code][0](code, message, cause === undefined ? undefined : { cause });
}

const statusCodes: Record<number, ErrorCode> = {
  5: 'not_stored',
  16: 'bad_request',
  17: 'too_large',
  18: 'unauthorized',
  19: 'unavailable',
  20: 'unavailable',
  21: 'timeout',
  22: 'busy',
  23: 'origin',
  24: 'unsupported',
  25: 'internal',
};

/** Returns the error of an answer's status. */
export function statusError(status: number, message: string): CacheError {
  const code = statusCodes[status];
  return code ? cacheError(code, message) : cacheError('internal', `the sidecar answered status ${status}: ${message}`);
}

export const closedError = (): CacheError => cacheError('closed', 'the client was closed');

/** Reports whether a failed write may have been executed. */
export function mayHaveChanged(error: unknown): boolean {
  if (!(error instanceof CacheError)) {
    return true;
  }
  return error.code === 'timeout' || error.code === 'origin' || error.code === 'internal'
    || error.code === 'not_stored' || error.code === 'closed';
}
