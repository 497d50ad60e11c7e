import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import * as path from 'node:path';
import { test } from 'node:test';
import { Client } from '../src/index.js';
import { Tally } from '../src/tally.js';
import { hit, Server, sidecar, until } from './server.js';

const options = { timeout: 60_000 };
const { pid } = process;
const { socket, skip } = sidecar();

/** Returns the sidecar's count of a namespace's hits in near caches. */
async function counted(c: Client, namespace: string): Promise<number> {
  const { namespaces } = await c.stats() as { namespaces: { name: string; near_hits: number }[] };
  return Number(namespaces.find((n) => n.name === namespace)?.near_hits ?? 0);
}

/** Counts reads as Hits does. */
function read(t: Tally, keys: string[]): void {
  for (const key of keys) {
    if (++t.reads >= t.due) {
      t.noted(key);
    }
  }
}

test('of sixteen reads in a row the key of one is sampled, also of reads in turn', () => {
  const t = new Tally('n');
  const names = Array.from({ length: 16 }, (_, i) => `k${i}`);
  read(t, Array.from({ length: 200 * 16 }, (_, i) => names[i % 16]!));
  const [namespace, keys, , , near] = t.take() as [string, Uint8Array[], null, null, number];
  assert.deepEqual([namespace, keys.length, near], ['n', 200, 3200]);
  assert.deepEqual(new Set(keys.map(String)), new Set(names));
  assert.equal(t.take(), undefined);
});

test('a report is bounded', () => {
  const t = new Tally('n');
  read(t, Array.from({ length: 10_000 }, () => 'short'));
  assert.equal((t.take()![1] as unknown[]).length, 256);
  read(t, Array.from({ length: 10_000 }, (_, i) => String(i).padStart(1024)));
  const keys = t.take()![1] as Uint8Array[];
  assert.ok(keys.length > 10 && keys.reduce((n, k) => n + k.length, 0) <= (32 << 10) + 1024);
  t.reads += 2 ** 30 + 5;
  assert.deepEqual([t.take()![4], t.take()![4]], [2 ** 30, 5]);
});

test('hits are reported by namespace, soon and at close', { ...options, skip }, async () => {
  const other = await Client.connect({ socket });
  const c = new Client({ socket, namespace: `node-hits-${pid}`, nearCache: { bytes: 1 << 20 } });
  const view = c.inNamespace(`node-view-${pid}`);
  await c.set('k', 'v');
  await view.set('k', 'v');
  const from = async (client: Client, n: number): Promise<void> => {
    const before = c.nearStats()!.hits;
    await until('hits', async () => {
      await client.get('k');
      await client.getMany(['k']);
      return c.nearStats()!.hits >= before + n;
    });
  };
  await from(c, 40);
  const first = c.nearStats()!.hits;
  await until('the count', async () => await counted(other, `node-hits-${pid}`) === first);
  await from(view, 40);
  await c.close();
  const all = c.nearStats()!.hits;
  await until('the view\'s count', async () => await counted(other, `node-view-${pid}`) === all - first);
  assert.equal(await counted(other, `node-hits-${pid}`), first);
  await other.close();
});

test('a process that ends without close reports what is left', { ...options, skip }, async () => {
  const entry = JSON.stringify(path.join(__dirname, '../src/index.js'));
  const child = spawn(process.execPath, ['-e', `(async () => {
    const { Client } = require(${entry});
    const c = new Client({ socket: ${JSON.stringify(socket)}, namespace: 'node-ends-${pid}', nearCache: { bytes: 1 << 20 } });
    await c.set('k', 'v');
    while (c.nearStats().hits < 40) {
      await c.get('k');
      await new Promise(setImmediate);
    }
    console.log(c.nearStats().hits);
    process.exit();
  })()`], { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (b) => { out += String(b); });
  await new Promise((resolve) => child.on('close', resolve));
  const other = await Client.connect({ socket });
  await until('the count', async () => await counted(other, `node-ends-${pid}`) === Number(out));
  assert.ok(Number(out) >= 40);
  await other.close();
});

test('hits of the near cache are reported', options, async (t) => {
  const s = await Server.start(t, (q) => {
    if (q.op === 3) {
      q.conn.answer(...hit(q.id, 'v'), 100n, 'n', 99);
    } else if (q.op === 15 && (q.body[2] === undefined || q.body[2] === null)) {
      q.conn.answer(q.id, 0, { epoch: 7, after: 0, seq: 0, head: 0, events: [null, null], reset: true, behind_ms: 0 });
    } else if (q.op !== 15 && q.op !== 25) {
      q.conn.answer(q.id, 0);
    }
  });
  const c = new Client({ socket: s.path, namespace: 'n', timeout: 20_000, nearCache: { bytes: 1 << 20, bound: 60_000 } });
  await until('a hit', async () => await c.get('k') === 'v' && c.nearStats()!.hits >= 20);
  await c.close();
  await until('the end of all that was sent', () => s.peers.every((peer) => peer.ended));
  const reports = s.requests.filter((q) => q.op === 25);
  const near = reports.reduce((n, q) => n + Number(q.body[4]), 0);
  assert.deepEqual([reports[0]!.body[0], near], ['n', c.nearStats()!.hits]);
});
