import { onAbort } from './abort.js';
import { Call, repeatable } from './call.js';
import { Op, opName } from './codes.js';
import type { Connection, Owner } from './connection.js';
import { Dialer, Moves } from './dialer.js';
import { CacheError, cacheError, closedError } from './errors.js';
import type { Settings } from './options.js';
import { clearTimeout, monotonic, setTimeout } from './timers.js';

/** The error of a call whose signal was aborted, as Node's own: cause is the signal's reason. */
export class AbortError extends Error {
  readonly code = 'ABORT_ERR';
  constructor(signal: AbortSignal) {
    super('The operation was aborted', { cause: signal.reason });
  }

  static {
    this.prototype.name = 'AbortError';
  }
}

const maxTries = 3; // of a call that was never sent

/** Core makes calls over the client's connection, and repeats what may be repeated. */
export class Core implements Owner {
  readonly moves = new Moves();
  readonly dialer: Dialer;
  closed = false;
  private readonly waiting = new Set<Call>(); // for a connection

  constructor(readonly settings: Settings) {
    this.dialer = new Dialer(settings, this, this.moves, false);
  }

  /** Makes a call. */
  run<T>(call: Call, signal?: AbortSignal | undefined): Promise<T> {
    this.observe(call);
    return new Promise<T>((resolve, reject) => {
      call.resolve = resolve as (v: never) => void;
      call.reject = reject;
      if (signal !== undefined && !this.obey(call, signal)) {
        return;
      }
      this.begin(call);
    });
  }

  /** Lets the app's hook hear of the end of a call. */
  observe(call: Call): void {
    if (this.settings.onCall === undefined) {
      return;
    }
    const began = monotonic();
    call.over = (e) => {
      this.tell(call.op, call.ns, monotonic() - began, e === undefined
        ? (call.status === 1 ? 'miss' : 'ok') : e instanceof CacheError ? e.code : 'error', false);
    };
  }

  /** Tells the app of a call. */
  tell(op: number, ns: string | null, ms: number, outcome: string, near: boolean): void {
    // The hook is the app's; neither a call nor the process fails with it.
    try {
      const told: unknown = this.settings.onCall?.({
        op: opName(op), namespace: ns ?? this.settings.namespace, ms, outcome, near,
      });
      if (told instanceof Promise) {
        told.catch(() => {});
      }
    } catch {}
  }

  /** Lets a signal end the call. It returns false if it has. */
  private obey(call: Call, signal: AbortSignal): boolean {
    if (signal.aborted) {
      call.fail(new AbortError(signal));
      return false;
    }
    const abort = (): void => {
      const e = new AbortError(signal);
      if (call.conn !== undefined) {
        call.conn.giveUp(call, e);
      } else {
        call.fail(e);
      }
    };
    after(call, onAbort(signal, abort));
    return true;
  }

  private begin(call: Call): void {
    try {
      const live = this.dialer.live;
      if (live === undefined || !live.start(call)) {
        this.connect(call);
      }
    } catch (e) {
      call.fail(e);
    }
  }

  /** Makes a call over a connection that is still to be made. */
  private connect(call: Call): void {
    if (this.closed) {
      call.fail(closedError());
      return;
    }
    if (this.waiting.size >= this.settings.maxInFlight) {
      call.fail(cacheError('busy', `${this.waiting.size} calls wait for a connection: make fewer at once`));
      return;
    }
    const now = monotonic();
    if (call.deadline === 0) {
      call.deadline = now + call.timeout;
    }
    call.retain();
    this.waiting.add(call);
    let last: unknown;
    const timer = setTimeout(() => {
      call.fail(cacheError('unavailable', 'the sidecar was not reached in time, and the call was not executed', last));
    }, Math.max(0, call.deadline - now));
    const over = (): void => {
      clearTimeout(timer);
      this.waiting.delete(call);
    };
    after(call, over);
    void this.reach(call, (e) => {
      last = e;
    }).then(over, (e: unknown) => call.fail(e));
  }

  /** Starts a call as soon as there is a connection. */
  private async reach(call: Call, failed: (e: unknown) => void): Promise<void> {
    while (!call.settled) {
      let conn: Connection;
      try {
        conn = await this.dialer.get();
      } catch (e) {
        if (!this.moves.moving || !(e instanceof CacheError) || e.code !== 'unavailable') {
          throw e;
        }
        failed(e);
        await this.dialer.nextTry();
        continue;
      }
      await conn.certain();
      if (call.settled || conn.start(call)) {
        return;
      }
      await this.dialer.nextTry(); // it has gone already
    }
  }

  lost(call: Call, sent: boolean, reason: Error): void {
    if (this.closed) {
      call.fail(closedError());
    } else if (call.op === Op.hello) {
      call.fail(reason instanceof CacheError && reason.code === 'internal' ? reason : new Error(reason.message));
    } else if (sent && reason instanceof CacheError && reason.code === 'internal') {
      call.fail(reason);
    } else if (call.pinned || !this.mayRepeat(call, sent)) {
      call.fail(cacheError(sent ? 'timeout' : 'unavailable', sent
        ? 'the connection to the sidecar broke before the answer: the outcome is not known'
        : 'the connection to the sidecar broke, and the call was not executed', reason));
    } else {
      this.connect(call);
    }
  }

  private mayRepeat(call: Call, sent: boolean): boolean {
    call.tries += sent ? maxTries : 1;
    return sent ? repeatable(call.op) && call.tries < 2 * maxTries : call.tries < maxTries || this.moves.moving;
  }

  leaving(_conn: Connection): void {
    this.moves.moved();
  }

  /** Ends all calls and the connection. */
  async close(): Promise<void> {
    this.closed = true;
    for (const call of [...this.waiting]) {
      call.fail(closedError());
    }
    await this.dialer.close(closedError());
  }
}

/** Lets f be called too when a call is settled. */
function after(call: Call, f: () => void): void {
  const before = call.over;
  call.over = before === undefined ? f : (e): void => {
    before(e);
    f();
  };
}
