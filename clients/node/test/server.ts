import * as fs from 'node:fs';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import type { TestContext } from 'node:test';
import { decode, encode } from '@msgpack/msgpack';

const folders: string[] = [];
process.on('exit', () => folders.forEach((folder) => fs.rmSync(folder, { recursive: true, force: true })));

/** Returns a new path for a socket, in a folder that goes with the process. */
export function socketPath(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'csn'));
  folders.push(folder);
  return path.join(folder, 's.sock');
}

/** A request as a scripted server sees it. */
export interface Request {
  id: number;
  op: number;
  body: unknown[]; // after [id, op, timeout
  conn: Peer;
}

/** Peer is the server's side of one connection. */
export class Peer {
  private buf = Buffer.alloc(0);
  ended = false;
  writes = 0; // chunks that have come
  constructor(readonly socket: net.Socket, private readonly on: (q: Request) => void) {
    socket.on('data', (b) => this.data(b)).on('error', () => {}).on('close', () => {
      this.ended = true;
    });
  }

  private data(b: Buffer): void {
    this.writes++;
    this.buf = Buffer.concat([this.buf, b]);
    while (this.buf.length >= 4 && this.buf.length >= 4 + this.buf.readUInt32BE(0)) {
      const n = this.buf.readUInt32BE(0);
      const [id, op, , ...body] = decode(this.buf.subarray(4, 4 + n)) as [number, number, number, ...unknown[]];
      this.buf = this.buf.subarray(4 + n);
      this.on({ id, op, body, conn: this });
    }
  }

  answer(...message: unknown[]): void {
    this.socket.write(frame(...message));
  }
}

export function frame(...message: unknown[]): Buffer {
  const b = encode(message, { useBigInt64: true });
  const head = Buffer.alloc(4);
  head.writeUInt32BE(b.length);
  return Buffer.concat([head, b]);
}

export const welcome = {
  v: 1, node: 'n', server: 'test', features: [], epoch: 99,
  hash: { name: 'xxh3', seed: 0, partitions: 16384 }, limits: { value: 8 << 20 }, boot: { id: '', now_ns: 0 },
};

/** A server that answers HELLO, and everything else as told. */
export class Server {
  readonly path: string;
  readonly peers: Peer[] = [];
  readonly requests: Request[] = [];
  hello: (q: Request) => void = (q) => q.conn.answer(q.id, 0, welcome);
  leaving: Request[] = [];
  pings: Request[] = []; // that the client sends by itself, after a call without an answer
  onPing: (q: Request) => void = () => {};
  hangs = false; // answers no such PING
  private readonly server: net.Server;

  private constructor(on: (q: Request, s: Server) => void) {
    this.path = socketPath();
    this.server = net.createServer({ allowHalfOpen: false }, (socket) => {
      this.peers.push(new Peer(socket, (q) => {
        if (q.op === 1) {
          this.hello(q);
        } else if (q.op === 23) {
          this.leaving.push(q);
        } else if (q.op === 2 && q.id === 1) {
          this.pings.push(q);
          this.onPing(q);
          if (!this.hangs) {
            q.conn.answer(q.id, 0);
          }
        } else {
          this.requests.push(q);
          on(q, this);
        }
      }));
    });
  }

  static async start(t: TestContext, on: (q: Request, s: Server) => void): Promise<Server> {
    const s = new Server(on);
    await s.listen();
    t.after(() => s.stop());
    return s;
  }

  listen(): Promise<void> {
    return new Promise((resolve) => this.server.listen(this.path, resolve));
  }

  /** Ends all connections, and listens no more. */
  stop(): Promise<void> {
    for (const peer of this.peers) {
      peer.socket.destroy();
    }
    return new Promise((resolve) => this.server.close(() => resolve()));
  }
}

/** A hit as GET answers it. */
export const hit = (id: number, text: string, flags = 16): unknown[] => [id, 0, Buffer.from(text), flags, 7, 0, 2, 0];

/** Waits until a condition holds. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 20_000; !await holds();) {
    if (Date.now() > end) {
      throw new Error(`in 20 s there was not: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** The real sidecar's socket, or why the test is left out. */
export function sidecar(): { socket: string; skip: string | false } {
  const manifest = process.env['CONFORMANCE'];
  const socket = process.env['CACHESIDECAR_SOCKET']
    ?? (manifest ? (JSON.parse(fs.readFileSync(manifest, 'utf8')) as { sidecar: string }).sidecar : '');
  const remedy = 'run "go run . -- npm test --prefix ../node" in clients/conformance';
  return { socket, skip: socket === '' && `needs a sidecar: ${remedy}` };
}
