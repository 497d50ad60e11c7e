/** What ends with a signal. It has one listener, however many calls end with it: Node warns of a leak at eleven. */
class Ends {
  readonly calls = new Set<() => void>();
  readonly all = (): void => {
    ends.delete(this.signal);
    for (const f of this.calls) { // not those that another one takes back
      f();
    }
  };

  constructor(private readonly signal: AbortSignal) {
    signal.addEventListener('abort', this.all, { once: true });
    ends.set(signal, this);
  }

  take(f: () => void): void {
    this.calls.delete(f);
    if (this.calls.size === 0) {
      this.signal.removeEventListener('abort', this.all);
      ends.delete(this.signal);
    }
  }
}

const ends = new WeakMap<AbortSignal, Ends>();

/** Calls f when the signal aborts. The function that it returns takes that back. */
export function onAbort(signal: AbortSignal, f: () => void): () => void {
  const e = ends.get(signal) ?? new Ends(signal);
  e.calls.add(f);
  return () => e.take(f);
}
