import { Bit, limits } from './codes.js';
import type { Connection } from './connection.js';
import type { Arg } from './writer.js';

const after = 250; // ms from the first read that is not reported to the report
const sampleOf = 16; // reads in a row: the key of one is reported
const sampleKeys = 256; // of one report, at most
const sampleBytes = 32 << 10; // likewise, but for the last key

/** Tally has the reads of one namespace that the near cache has answered. */
export class Tally {
  reads = 0;
  due = 0; // the read of which Hits is to be told; 0: the next
  private pick = 1 + Math.floor(Math.random() * sampleOf); // the read whose key is to be reported
  private told = 0; // the reads that were reported
  private sample: Uint8Array[] = [];
  private bytes = 0; // of the sample

  constructor(readonly namespace: string) {}

  /** Takes the key if it is one of those that are reported. */
  noted(key: string | Uint8Array): void {
    if (this.reads >= this.pick) {
      // One of the next 16, at a place that varies: else of reads in turn always the same would be taken.
      const block = Math.ceil(this.reads / sampleOf);
      this.pick = block * sampleOf + 1 + Math.floor(Math.random() * sampleOf);
      if (this.sample.length < sampleKeys && this.bytes < sampleBytes) {
        const own = Buffer.from(key as string);
        this.sample.push(own);
        this.bytes += own.length;
      }
    }
    this.due = this.pick;
  }

  /** Returns the elements of a report of what was not reported; undefined: there is nothing. */
  take(): Arg[] | undefined {
    this.due = 0;
    const near = Math.min(this.reads - this.told, limits.hits);
    if (near === 0) {
      return undefined;
    }
    this.told += near;
    const keys = this.sample;
    this.sample = [];
    this.bytes = 0;
    return [this.namespace, keys, null, null, near, Bit.quiet];
  }
}

/**
 * Hits reports the reads that the near cache has answered: the sidecar cannot count them. What is lost with a report is
 * not reported again. It never holds the process.
 */
export class Hits {
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly tallies: () => Tally[], private readonly live: () => Connection | undefined) {}

  /** Counts a read. */
  count(t: Tally, key: string | Uint8Array): void {
    if (++t.reads < t.due) {
      return;
    }
    t.noted(key);
    if (this.timer === undefined) {
      this.timer = setTimeout(() => this.report(), after).unref();
      pending.add(this);
      atExit();
    }
  }

  /** Reports what was not reported, without waiting. It returns the connection that has it to send. */
  report(): Connection | undefined {
    clearTimeout(this.timer);
    this.timer = undefined;
    pending.delete(this);
    const conn = this.live();
    let used: Connection | undefined;
    for (const t of this.tallies()) {
      if (conn === undefined || conn.ended || conn.retiring || conn.doubted) {
        t.due = 0; // it is reported later
        continue;
      }
      const elements = t.take();
      if (elements !== undefined && conn.welcome.features.includes('hits')) {
        conn.report(elements);
        used = conn;
      }
    }
    return used;
  }
}

const pending = new Set<Hits>(); // what is to be reported if the process ends before
let listens = false;

/** When the process ends, nothing is sent later: a write is tried at once, and the system takes it. */
function atExit(): void {
  if (!listens) {
    listens = true;
    process.on('exit', () => [...pending].forEach((h) => h.report()?.flush()));
  }
}
