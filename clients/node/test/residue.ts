import * as fs from 'node:fs';
import * as net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

// What a client leaves behind in its process.

// @types/node does not have it yet.
const resources = (process as unknown as { getActiveResourcesInfo(): string[] }).getActiveResourcesInfo;

/** How many descriptors of each kind the process has. */
function descriptors(): Map<string, number> {
  const kinds = new Map<string, number>();
  for (const fd of fs.readdirSync('/proc/self/fd')) {
    let kind: string;
    try {
      kind = fs.readlinkSync(`/proc/self/fd/${fd}`).replace(/:\[\d+\]$/, '');
    } catch {
      continue; // of the listing itself
    }
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return kinds;
}

/** Residue compares what the process has with what it had before. */
export class Residue {
  private constructor(private readonly before: Map<string, number>, private readonly active: number) {}

  /** Notes what there is, after Node has opened what it opens once and keeps. */
  static async note(): Promise<Residue> {
    // With the first socket libuv opens /dev/null, to have a descriptor to spare when there are no more.
    await new Promise((resolve) => net.connect('/proc/self/no-socket').on('error', resolve).on('close', resolve));
    await sleep(10);
    return new Residue(descriptors(), resources().length);
  }

  /** Names what there is beyond that, after some time in which things may end. */
  async left(): Promise<string[]> {
    for (let i = 0; i < 100 && this.more().length > 0; i++) {
      await sleep(50);
    }
    return this.more();
  }

  private more(): string[] {
    const found: string[] = [];
    for (const [kind, n] of descriptors()) {
      const had = this.before.get(kind) ?? 0;
      if (n > had) {
        found.push(`descriptors: ${had} of ${kind} before, ${n} after`);
      }
    }
    if (resources().length > this.active + 1) { // one is the timer of the last sleep
      found.push(`resources: ${this.active} before, after: ${resources().join(', ')}`);
    }
    return found;
  }
}
