import { Call } from './call.js';
import { Bit, Op } from './codes.js';
import { type Clock, read, type Reading } from './clock.js';
import type { Connection } from './connection.js';
import type { Core } from './core.js';
import { Dialer } from './dialer.js';
import { CacheError, cacheError, closedError } from './errors.js';
import { body } from './replies.js';
import { writeInNamespace } from './requests.js';
import { clearTimeout, setTimeout } from './timers.js';
import { Watched } from './watched.js';
import type { Welcome } from './welcome.js';

const firstRest = 10; // ms
const lastRest = 1_000; // ms

/** What one question has brought. */
export interface Told {
  watched: Watched;
  welcome: Welcome;
  sent: Reading;
}

/**
 * Feed is a place in the sidecar's stream of changes. It has a connection of its own, so that its answers do not wait
 * behind a long one.
 */
export class Feed {
  private readonly dialer: Dialer;
  private conn: Connection | undefined; // where the place is valid; undefined: nowhere
  private epoch: bigint | null = null;
  private seq: number | null = null;
  private closed = false;
  private wake: (() => void) | undefined; // of a rest

  constructor(
    private readonly core: Core,
    private readonly ns: string | null,
    private readonly all: boolean,
    private readonly wait: number, // ms
    private readonly clock: Clock,
    private readonly holds = false, // the process, while it waits
  ) {
    this.dialer = new Dialer(core.settings, core, core.moves, !holds);
  }

  /** Forgets the place: the next answer is a reset. */
  forget(): void {
    this.conn = undefined;
    this.epoch = this.seq = null;
  }

  /** Asks for the events after the place. After an error the next answer is a reset. */
  async next(): Promise<Told> {
    try {
      return await this.ask();
    } catch (e) {
      this.forget();
      throw e;
    }
  }

  private async ask(): Promise<Told> {
    const conn = await this.dialer.get();
    if (conn !== this.conn) {
      this.forget();
      this.conn = conn;
    }
    const timeout = this.wait + this.core.settings.timeout;
    const call = new Call(Op.watch, timeout, writeInNamespace, body, this.ns, '', 0);
    call.pinned = true;
    call.args = [this.all ? Bit.all : null, this.epoch, this.seq, this.wait];
    const sent = read(this.clock);
    const answer = await new Promise((resolve, reject) => {
      call.resolve = resolve;
      call.reject = reject;
      if (!conn.start(call)) {
        reject(cacheError('unavailable', 'the sidecar closes the connection'));
      }
    });
    const watched = new Watched(answer);
    this.epoch = watched.epoch; // nothing if it was to forget meanwhile: the connection is another one then
    this.seq = watched.seq;
    return { watched, welcome: conn.welcome, sent };
  }

  /** Waits before another try. The pause grows with the number of tries, and has jitter. */
  rest(tries: number): Promise<void> {
    const most = Math.min(firstRest * 2 ** Math.min(tries, 10), lastRest);
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, most / 2 + Math.random() * most / 2);
      if (!this.holds) {
        timer.unref();
      }
      this.wake = (): void => {
        clearTimeout(timer);
        resolve();
      };
      if (this.closed) {
        this.wake();
      }
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    this.wake?.();
    await this.dialer.close(closedError());
  }
}

/** Reports whether an error ends a stream, since another try would fail too. */
export function final(e: unknown): boolean {
  return !(e instanceof CacheError)
    || e.code === 'bad_request' || e.code === 'unsupported' || e.code === 'unauthorized' || e.code === 'closed';
}
