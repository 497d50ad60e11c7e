import type { Feed, Told } from './feed.js';
import type { Near } from './near.js';

/** NearFeed lets the near cache follow the sidecar until it is closed. It never holds the process. */
export class NearFeed {
  private closed = false;
  private readonly ended: Promise<void>;

  constructor(private readonly near: Near, private readonly feed: Feed) {
    near.restart = () => {
      this.generation++;
      feed.forget();
    };
    this.ended = this.run();
  }

  private generation = 0; // of the stream

  private async run(): Promise<void> {
    for (let tries = 0; !this.closed; tries++) {
      const { generation } = this;
      let told: Told;
      try {
        told = await this.feed.next();
        if (generation === this.generation) { // else it was sent before the clock has jumped
          this.near.apply(told.sent, told.watched, told.welcome);
        }
        tries = 0;
      } catch {
        this.near.end();
        this.feed.forget();
        await this.feed.rest(tries);
      }
    }
  }

  async close(): Promise<void> {
    this.closed = true;
    await this.feed.close();
    await this.ended;
    this.near.end();
  }
}
