import * as fs from 'node:fs';

// The history of a soak, in lines of JSON that package internal/testing/history describes.

/** An operation on one key. Times are nanoseconds of this process's clock. */
export interface Op {
  op: 'read' | 'set' | 'delete' | 'incr';
  key: string;
  host?: string;
  number?: number;
  began: number;
  ended?: number;
  outcome?: 'done' | 'not stored' | 'unknown';
  fresh?: boolean;
  ttl?: number;
  initial?: number;
  origin?: boolean;
  committed?: number;
}

export const nanoseconds = (): number => Math.floor(performance.now() * 1e6);

export class History {
  readonly #file: number;
  #lines: string[] = [];

  /** Times are in ms: how old a near cache's values may be, the slack, and when a write of unknown outcome is over. */
  constructor(path: string, bound: number, slack: number, late: number) {
    this.#file = fs.openSync(path, 'w');
    this.#line({ history: 1, bound: bound * 1e6, slack: slack * 1e6, late: late * 1e6 });
  }

  #line(fields: object): void {
    if (this.#lines.push(JSON.stringify(fields) + '\n') > 1000) {
      this.#write();
    }
  }

  #write(): void {
    fs.writeSync(this.#file, this.#lines.join(''));
    this.#lines = [];
  }

  note(op: Op): void {
    this.#line({ ended: nanoseconds(), ...op });
  }

  /** Notes a write that a call makes. Its outcome is unknown if the call fails. */
  async write<T>(op: Omit<Op, 'began'>, call: (op: Op) => Promise<T>): Promise<T> {
    const noted: Op = { began: nanoseconds(), outcome: 'unknown', ...op };
    try {
      const result = await call(noted);
      if (noted.outcome === 'unknown') {
        noted.outcome = 'done';
      }
      return result;
    } finally {
      this.note(noted);
    }
  }

  close(): void {
    this.#write();
    fs.closeSync(this.#file);
  }
}
