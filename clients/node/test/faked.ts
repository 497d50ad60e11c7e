import * as fs from 'node:fs';
import { performance } from 'node:perf_hooks';
import * as timers from 'node:timers';
import { Client } from '../src/index.js';

// A process in which timers and clocks are replaced: see timers.test.ts. Its arguments are the names, and the sockets
// of a sidecar, and of one that never greets.

/** Replaces what is named, everywhere where a program finds it. The result puts it back. */
function fake(names: readonly string[]): () => void {
  const undo: (() => void)[] = [];
  const put = (where: object, name: string, value: unknown): void => {
    const before = Object.getOwnPropertyDescriptor(where, name);
    Object.defineProperty(where, name, { configurable: true, writable: true, enumerable: true, value });
    undo.push(() => (before ? Object.defineProperty(where, name, before) : Reflect.deleteProperty(where, name)));
  };
  const never = (): object => ({ ref: never, unref: never, hasRef: () => false, refresh: never });
  class Stopped extends Date {
    constructor() {
      super(0);
    }
    static override now(): number {
      return 0;
    }
  }
  for (const name of names) {
    if (name === 'performance') {
      put(globalThis, name, { now: () => 0 });
      put(performance, 'now', () => 0);
    } else if (name === 'nextTick' || name === 'hrtime') {
      put(process, name, never);
    } else {
      put(globalThis, name, name === 'Date' ? Stopped : never);
      if (name in timers) {
        put(require('node:timers') as object, name, never);
      }
    }
  }
  return () => undo.reverse().forEach((f) => f());
}

const realTimeout = setTimeout;
const realNow = performance.now.bind(performance);
const said: unknown[] = [];

/** Says what a call comes to, in a time that none needs. In doubt, on a busy machine, it is made again. */
async function say(call: () => Promise<unknown>, doubt = true): Promise<unknown> {
  for (const end = realNow() + 10_000; ;) {
    const outcome = await Promise.race([
      call().then((v) => String(v), (e: { code?: string }) => e.code ?? String(e)),
      new Promise((resolve) => realTimeout(resolve, 10_000, 'hangs')),
    ]);
    if (outcome !== 'unavailable' || !doubt || realNow() > end) {
      said.push(outcome);
      return outcome;
    }
    await new Promise((resolve) => realTimeout(resolve, 1));
  }
}

const slow = (c: Client, timeout = 30): Promise<unknown> => c.get('slow', { timeout });

async function connected(socket: string, names: readonly string[]): Promise<void> {
  const c = await Client.connect({ socket, timeout: 20_000, connectTimeout: 20_000, loadTimeout: 50 });
  const before = slow(c, 100).catch((e: unknown) => ({ code: (e as { code: string }).code }));
  const restore = fake(names);
  await say(() => c.get('k'));
  await say(() => c.set('k', 1));
  await say(() => before.then((e) => (e as { code: string }).code));
  await say(() => slow(c));
  await say(() => c.get('k'));
  await say(() => c.getOrSet('loads', () => new Promise(() => {})));
  await say(async () => {
    const over = slow(c, 100);
    restore();
    return over;
  });
  await say(() => c.get('k'));
  await say(() => slow(c));
  await say(() => c.get('k'));
  const next = c.watch({ beat: 20 }).next();
  await Promise.all([c.close(), say(() => next)]);
}

async function connecting(socket: string, hangs: string, names: readonly string[]): Promise<void> {
  const never = new Client({ socket: hangs, timeout: 100, connectTimeout: 60 });
  const later = new Client({ socket, timeout: 1000, connectTimeout: 500 });
  const restore = fake(names);
  await say(() => never.get('k'), false);
  await say(() => never.getOrSet('k', () => 'loaded'));
  await say(() => later.get('k'), false); // Node itself may need what is replaced to connect
  said.pop();
  restore();
  await say(() => later.get('k'));
}

const [names, socket, hangs] = process.argv.slice(2) as [string, string, string];
void connected(socket, names.split(',')).then(() => connecting(socket, hangs, names.split(','))).finally(() => {
  fs.writeSync(1, said.join(' '));
  process.exit(0);
});
process.on('exit', (status) => {
  if (status !== 0) {
    fs.writeSync(1, `${said.join(' ')} and then nothing`);
  }
});
