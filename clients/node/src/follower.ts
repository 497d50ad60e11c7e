import type { Reading } from './clock.js';

const maxPolls = 8; // that wait to be covered; a later one is as good

/**
 * Follower is a place in the sidecar's stream, and the lease that follows from it: the moment up to which everything
 * that was accepted is applied here. Once everything up to the head that an answer names is applied, the lease reaches
 * to the moment at which its request was sent.
 */
export class Follower {
  lease: Reading | undefined;
  private applied = 0;
  private polls: { sent: Reading; head: number }[] = [];

  /** Takes an answer, and returns the lease. */
  polled(sent: Reading, head: number): Reading | undefined {
    if (this.polls.length < maxPolls) {
      this.polls.push({ sent, head });
    }
    return this.cover();
  }

  /** Everything after one place up to another is applied. It returns false if something is missing before it. */
  advance(after: number, to: number): boolean {
    if (after !== this.applied || to < after) {
      return false;
    }
    this.applied = to;
    this.cover();
    return true;
  }

  /** A reset that covers everything up to a place is applied. */
  reset(head: number): void {
    this.applied = head;
    this.cover();
  }

  private cover(): Reading | undefined {
    while (this.polls.length > 0 && this.polls[0]!.head <= this.applied) {
      const { sent } = this.polls.shift()!;
      if (this.lease === undefined || sent.mono > this.lease.mono) {
        this.lease = sent;
      }
    }
    return this.lease;
  }
}
