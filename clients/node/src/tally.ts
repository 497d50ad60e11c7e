import { Bit, limits } from './codes.js';
import type { Arg } from './writer.js';

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
