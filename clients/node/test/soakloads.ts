import * as fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Loads } from '../src/loads.js';

// One loader of a key runs at a time in the whole cluster, but for the cases that PROTOCOL.md names. Here each load
// that overlaps another one is put to one of them, so that what is left over is a defect.

interface Load {
  key: number;
  state: number; // of the key: what the load returns
  token: boolean;
  began: number;
  ended: number;
}

interface Span {
  from: number;
  to: number;
}

const slack = 30; // ms that an answer may wait for the event loop
const pause = 1_800; // ms for which a client may still fail fast after the sidecar is back: 1.5 s and an attempt
const rare = 1_000; // one of so many loads may be without a token though the sidecar is there: a slow machine

const now = (): number => performance.now();

const loads: Load[] = [];
const deletions = new Map<number, Span[]>();
const tokens = new WeakMap<AbortSignal, boolean>(); // whether the load that has this signal has a token

// Which loads have a token, only the client knows.
const inner = Loads.prototype as unknown as {
  load(f: { controller: AbortController }, lease: unknown): Promise<void>;
};
const { load: original } = inner;
inner.load = function (this: unknown, f, lease): Promise<void> {
  tokens.set(f.controller.signal, lease !== undefined);
  return original.call(this, f, lease);
};

/** Notes a load, which takes some milliseconds. It ends early if nobody waits for it any more. */
export async function noteLoad(key: number, state: number, signal: AbortSignal): Promise<void> {
  const load = { key, state, token: tokens.get(signal)!, began: now(), ended: Infinity };
  loads.push(load);
  signal.addEventListener('abort', () => (load.ended = now()), { once: true });
  await sleep(Math.floor(Math.random() * 20));
  load.ended = Math.min(load.ended, now());
}

/** Notes that a key is being deleted, and returns what is called when that is acknowledged. */
export function noteDeletion(key: number, outlasts: number): () => void {
  const span = { from: now(), to: now() + outlasts }; // if the outcome stays unknown
  let spans = deletions.get(key);
  if (spans === undefined) {
    deletions.set(key, spans = []);
  }
  spans.push(span);
  return () => void (span.to = now());
}

const meets = (spans: readonly Span[], from: number, to: number): boolean =>
  spans.some((s) => s.from <= to + slack && s.to >= from - slack);

/** Returns when the sidecar was down, by this process's clock. */
function outages(): Span[] {
  const file = process.env['CACHESIDECAR_RESTARTS'];
  // The file has the boot clock. Which moment of this process's clock that is, a bracket tells well enough.
  const shift = now() - Number(fs.readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000;
  const spans: Span[] = [];
  for (const line of file === undefined ? [] : fs.readFileSync(file, 'utf8').split('\n')) {
    const [, what, ns] = line.split(' ');
    if (what === 'down') {
      spans.push({ from: Number(ns) / 1e6 + shift, to: Infinity });
    } else if (what === 'up') {
      spans[spans.length - 1]!.to = Number(ns) / 1e6 + shift;
    }
  }
  return spans;
}

/** Returns what there is to say about the loads, and what is wrong with them. */
export function judge(): { report: string; wrong: string[] } {
  const down = outages();
  const later = down.map(({ from, to }) => ({ from, to: to + pause }));
  const wrong: string[] = [];
  const latest = new Map<string, Load>();
  let without = 0, restarted = 0, deleted = 0, alone = 0;
  for (const l of loads.sort((a, b) => a.began - b.began)) {
    if (!l.token) { // the client fails open
      without++;
      alone += meets(later, l.began, l.began) ? 0 : 1;
      continue;
    }
    const id = `${l.key} ${l.state}`;
    const other = latest.get(id);
    if (other === undefined || l.ended > other.ended) {
      latest.set(id, l);
    }
    if (other === undefined || other.ended <= l.began) {
      continue;
    }
    if (meets(down, other.began, l.began)) {
      restarted++; // the token has ended with the sidecar that gave it
    } else if (meets(deletions.get(l.key) ?? [], other.began, l.began)) {
      deleted++; // the deletion was executed after the first load had begun, and has ended its token
    } else {
      wrong.push(`key ${l.key}: a load began ${l.began - other.began} ms after another one, and `
        + `${other.ended - l.began} ms before its end, and both had a token`);
    }
  }
  const unexplained = wrong.length;
  if (alone > 1 + loads.length / rare) {
    wrong.push(`${alone} loads had no token though the sidecar was there`);
  }
  return {
    report: `loads: ${loads.length}, ${without} without a token (${alone} of them with the sidecar there); overlaps: `
      + `${deleted} by a deletion, ${restarted} by a restart, ${unexplained} without a reason`, wrong,
  };
}
