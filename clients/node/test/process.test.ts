import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import * as path from 'node:path';
import { test } from 'node:test';
import { hit, Server } from './server.js';

// What holds a process, and what does not. The servers are this process's.

const entry = JSON.stringify(path.join(__dirname, '../src/index.js'));

/** Runs a script with a Client, and returns what it has printed and its status. */
function run(socket: string, script: string): Promise<{ out: string; status: number | null; ms: number }> {
  const code = `const { Client } = require(${entry}); const socket = ${JSON.stringify(socket)};
    process.on('unhandledRejection', (e) => { console.log('unhandled', e); process.exit(70); });
    (async () => { ${script} })();`;
  const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  const began = Date.now();
  let out = '';
  child.stdout.on('data', (b) => { out += String(b); });
  return new Promise((resolve) => child.on('exit', (status) => resolve({ out, status, ms: Date.now() - began })));
}

const options = { timeout: 60_000 };

test('an idle client holds no process: also not its near cache and its watches', options, async (t) => {
  const s = await Server.start(t, (q) => {
    if (q.op === 3) {
      q.conn.answer(...hit(q.id, 'v'));
    } else if (q.op === 15 && (q.body[2] === undefined || q.body[2] === null)) {
      q.conn.answer(q.id, 0, { epoch: 7, after: 0, seq: 0, head: 0, events: [null, null], reset: true, behind_ms: 0 });
    }
  });
  const r = await run(s.path, `
    const c = new Client({ socket, timeout: 3600_000, nearCache: { bytes: 1 << 20 } });
    (async () => { for await (const e of c.watch()) console.log(e.kind); })();
    console.log(await c.get('k'));
    while (!c.nearStats().following) await new Promise((r) => setTimeout(r, 1));
    process.on('exit', () => console.log('exit'));
  `);
  assert.equal(r.status, 0);
  assert.deepEqual(r.out.trim().split('\n').filter((l) => l !== 'reset'), ['v', 'exit']);
});

test('a call in flight holds the process until its end', options, async (t) => {
  const s = await Server.start(t, (q) => {
    if (q.op === 3) {
      setTimeout(() => q.conn.answer(...hit(q.id, 'v')), 300);
    }
  });
  const r = await run(s.path, `
    const c = new Client({ socket, timeout: 20_000 });
    c.get('k').then((v) => console.log(v));
  `);
  assert.deepEqual([r.out, r.status], ['v\n', 0]);
  const timeout = await run(s.path, `
    const c = await Client.connect({ socket, timeout: 100, connectTimeout: 20_000 });
    c.set('k', 'v').catch((e) => console.log(e.code));
  `);
  assert.deepEqual([timeout.out, timeout.status], ['timeout\n', 0]);
});

test('a client without a sidecar holds no process', options, async (t) => {
  const s = await Server.start(t, () => {});
  await s.stop();
  const r = await run(s.path, `
    const c = new Client({ socket, nearCache: { bytes: 1 << 20 } });
    await c.get('k').catch((e) => console.log(e.code));
    await c.get('k').catch((e) => console.log(e.code));
  `);
  assert.deepEqual([r.out, r.status], ['unavailable\nunavailable\n', 0]);
});

test('process.exit in the middle of a call ends the process', options, async (t) => {
  const s = await Server.start(t, () => {});
  const r = await run(s.path, `
    const c = new Client({ socket });
    c.get('k'); c.set('k', 1); c.getOrSet('j', () => 1);
    setTimeout(() => process.exit(3), 50);
  `);
  assert.deepEqual([r.out, r.status], ['', 3]);
});
