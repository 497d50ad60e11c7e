import * as net from 'node:net';
import { Call } from './call.js';
import { limits, Op, versions } from './codes.js';
import { Connection, type Owner } from './connection.js';
import { isPermissionDenied, permissionError } from './permission.js';
import { type CacheError, cacheError, closedError } from './errors.js';
import type { Settings } from './options.js';
import { findSocket } from './paths.js';
import { clearTimeout, monotonic, setImmediate, setTimeout } from './timers.js';
import { type Welcome, readWelcome } from './welcome.js';
import type { Arg, Writer } from './writer.js';

/** How long calls wait for a sidecar that has said that it closes: it is mostly started again. */
const moveFor = 5_000; // ms
const moveAgain = 5; // ms between two attempts meanwhile
const firstPause = 10; // ms
const lastPause = 1_000; // ms
const inputSize = 64 << 10;

/** Moves is when the sidecar last said that it closes. All connections of a client share it. */
export class Moves {
  private at = -Infinity;
  moved(): void {
    this.at = monotonic();
  }
  get moving(): boolean {
    return monotonic() - this.at < moveFor;
  }
}

/**
 * Dialer keeps one connection. It connects on demand, and again after the connection was lost. After a failed attempt
 * calls fail fast for a pause that doubles up to a second, with jitter.
 */
export class Dialer {
  live: Connection | undefined;
  private dialing: Promise<Connection> | undefined;
  private failed: Error | undefined;
  private until = 0;
  private pause = 0;
  private closed = false;
  private readonly open = new Set<Connection>();
  private readonly attempts = new Set<net.Socket>();

  constructor(
    private readonly settings: Settings,
    private readonly owner: Owner,
    private readonly moves: Moves,
    private readonly background: boolean,
  ) {}

  /** Returns a connection, or makes one. */
  get(): Promise<Connection> {
    const live = this.live;
    if (live !== undefined && !live.ended && !live.retiring) {
      return Promise.resolve(live);
    }
    if (this.closed) {
      return Promise.reject(closedError());
    }
    if (this.dialing === undefined) {
      if (this.failed !== undefined && monotonic() < this.until) {
        return Promise.reject(this.failed);
      }
      this.dialing = this.dial().finally(() => {
        this.dialing = undefined;
      });
    }
    return this.dialing;
  }

  /** Reports whether a failed attempt may soon succeed. The caller waits for nextTry before. */
  get moving(): boolean {
    return this.moves.moving;
  }

  /** Waits until another attempt may be made. The call in flight holds the process. */
  nextTry(): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, moveAgain));
  }

  private async dial(): Promise<Connection> {
    try {
      const conn = await this.attempt();
      this.failed = undefined;
      this.pause = 0;
      this.live = conn;
      return conn;
    } catch (e) {
      this.failed = e as Error;
      if (this.moving) {
        this.until = monotonic() + moveAgain - 1;
      } else {
        this.pause = Math.min(Math.max(2 * this.pause, firstPause), lastPause);
        this.until = monotonic() + this.pause * (0.5 + Math.random());
      }
      throw e;
    }
  }

  private async attempt(): Promise<Connection> {
    const s = this.settings;
    const path = findSocket(s.socket);
    const token = s.secret();
    // The socket may be there before the sidecar is.
    const by = monotonic() + (this.moving ? Math.max(moveFor, s.connectTimeout) : s.connectTimeout);
    for (let again = true; ; again = false) {
      try {
        return await this.greet(path, token, by);
      } catch (e) {
        // A sidecar that ends closes what it has just accepted. The next connection may wait for the next sidecar.
        if (!again || this.closed || !(e instanceof Dropped) || monotonic() >= by) {
          throw e instanceof Dropped ? e.error : e;
        }
      }
    }
  }

  private async greet(path: string, token: string | undefined, by: number): Promise<Connection> {
    const buffer = Buffer.allocUnsafeSlow(inputSize);
    let conn: Connection | undefined;
    const socket = await this.connect(path, by, (n) => conn?.received(n, buffer), buffer);
    conn = new Connection(socket, this.settings.maxInFlight, this.owner);
    conn.background = this.background;
    const made = conn;
    this.open.add(made);
    made.whenEnded(() => this.open.delete(made));
    attach(socket, made);
    made.welcome = await this.hello(made, token, path, by);
    if (this.closed) {
      made.end(closedError());
      throw closedError();
    }
    made.awaitLeaving();
    return made;
  }

  private hello(conn: Connection, token: string | undefined, path: string, by: number): Promise<Welcome> {
    return new Promise((resolve, reject) => {
      // What is left may have gone by while the event loop was blocked.
      const left = Math.max(this.settings.connectTimeout / 2, by - monotonic());
      const call = new Call(Op.hello, left, (_, w, id, timeout) => {
        writeHello(w, id, timeout, this.settings, token);
      }, (_call, _status, _elements, r) => readWelcome(r), null, '', 0);
      call.resolve = resolve;
      call.reject = (e: unknown): void => {
        const error = e as CacheError;
        conn.end(error);
        if (error.code === 'timeout') {
          reject(cacheError('unavailable', `no HELLO from the sidecar at ${path} in time`, e));
        } else {
          reject(error instanceof Dropped || error.code !== undefined ? error : new Dropped(path, error));
        }
      };
      conn.start(call);
    });
  }

  private async connect(
    path: string, by: number, received: (n: number) => void, buffer: Buffer,
  ): Promise<net.Socket> {
    for (;;) {
      try {
        return await this.connectOnce(path, by, received, buffer);
      } catch (e) {
        if ((e as NodeJS.ErrnoException).code === 'EAGAIN' && monotonic() < by && !this.closed) {
          await this.nextTry(); // more connections come than the sidecar takes at once
          continue;
        }
        if (this.closed) {
          throw closedError();
        }
        throw isPermissionDenied(e) ? permissionError(path, e) : cacheError('unavailable',
          `cannot connect to the sidecar at ${path} (${(e as Error).message}): is it running?`, e);
      }
    }
  }

  private connectOnce(
    path: string, by: number, received: (n: number) => void, buffer: Buffer,
  ): Promise<net.Socket> {
    return new Promise((resolve, reject) => {
      const socket = net.connect({
        path,
        onread: { buffer, callback: (n) => { received(n); return true; } },
      });
      if (this.background) {
        socket.unref();
      }
      this.attempts.add(socket);
      // An event loop that was blocked looks at the socket before it gives up.
      const timer = setTimeout(() => setImmediate(() => {
        if (this.attempts.has(socket)) {
          socket.destroy(new Error('no connection in time'));
        }
      }), by - monotonic());
      timer.unref();
      const over = (e?: Error): void => {
        clearTimeout(timer);
        this.attempts.delete(socket);
        socket.off('connect', over).off('error', over).off('close', over);
        socket.on('error', () => {}); // what comes later is told elsewhere
        if (e !== undefined || socket.destroyed) {
          reject(e ?? new Error('it closed'));
        } else {
          socket.unref();
          resolve(socket);
        }
      };
      socket.on('connect', over).on('error', over).on('close', over);
    });
  }

  /** Ends all connections. */
  async close(reason: Error): Promise<void> {
    this.closed = true;
    for (const socket of this.attempts) {
      socket.destroy(reason);
    }
    const all = [...this.open].map((conn) => new Promise<void>((resolve) => {
      conn.whenEnded(resolve);
      conn.close(reason);
    }));
    await Promise.all(all);
  }
}

/** Dropped means that the connection ended before the answer to HELLO came. */
export class Dropped extends Error {
  readonly error: CacheError;
  constructor(path: string, cause: unknown) {
    super('dropped');
    this.error = cacheError('unavailable', `no HELLO from the sidecar at ${path}: the connection was closed`, cause);
  }
}

/** Connects a socket's events with a connection. */
function attach(socket: net.Socket, conn: Connection): void {
  const ended = (): void => conn.end(cacheError('timeout', 'the connection to the sidecar has ended'));
  const destroy = socket.destroy.bind(socket);
  // The stream destroys itself after a failed write, and would lose the answers that still come.
  socket.destroy = (e?: Error): net.Socket => {
    if (e !== undefined && !conn.ended && (e as NodeJS.ErrnoException).syscall === 'write') {
      conn.refused(e);
      return socket;
    }
    return destroy(e);
  };
  socket.on('end', ended).on('close', ended).on('error', ended);
}

function writeHello(w: Writer, id: number, timeout: number, s: Settings, token: string | undefined): void {
  w.reserve(32);
  const at = w.begin(4, id, Op.hello, Math.min(Math.ceil(timeout), limits.timeout));
  const fields = new Map<string, Arg>([['v', versions]]);
  if (s.name !== undefined) {
    fields.set('client', s.name);
  }
  if (token !== undefined) {
    fields.set('token', token);
  }
  fields.set('ns', s.namespace);
  w.arg(fields);
  w.end(at);
}
