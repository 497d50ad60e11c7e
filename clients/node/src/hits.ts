import type { Connection } from './connection.js';
import type { Tally } from './tally.js';
import { clearTimeout, setTimeout } from './timers.js';

const after = 250; // ms from the first read that is not reported to the report

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
      if (elements !== undefined) {
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
