import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import * as net from 'node:net';
import * as path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { hit, Server, socketPath } from './server.js';

// Timers and clocks that a test has replaced, as jest and sinon do: none of them moves. Calls have their answers and
// their ends all the same, and also after the real ones are back.

const inAll = ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'setImmediate', 'clearImmediate',
  'queueMicrotask', 'nextTick', 'hrtime', 'Date', 'performance'];
const kinds: [string, readonly string[]][] = [
  ['all, as by jest.useFakeTimers()', inAll],
  ['all but nextTick and queueMicrotask', inAll.filter((name) => name !== 'nextTick' && name !== 'queueMicrotask')],
  ['timers and Date, as by sinon', ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date']],
  ...['setTimeout', 'setImmediate', 'nextTick', 'performance'].map((n): [string, string[]] => [`${n} alone`, [n]]),
];

const connected = 'v 5 timeout timeout v timeout timeout v timeout v closed';
const connecting = 'unavailable loaded v';

test('calls while timers and clocks are replaced, and after', { timeout: 120_000, concurrency: 2 }, async (t) => {
  const s = await Server.start(t, (q) => {
    const key = q.op === 15 ? 'slow' : Buffer.from(q.body[1] as Uint8Array).toString();
    if (q.op === 9) {
      q.conn.answer(q.id, 2, Buffer.from('token'), 5000);
    } else if (key === 'loads') {
      q.conn.answer(q.id, 1, 0);
    } else if (key !== 'slow') {
      q.conn.answer(...q.op === 3 ? hit(q.id, 'v') : [q.id, 0, 5]);
    }
  });
  const hangs = net.createServer().listen(socketPath()); // it never greets
  t.after(() => hangs.close());
  await Promise.all(kinds.map(([kind, names]) => t.test(kind, async () => {
    const args = [path.join(__dirname, 'faked.js'), names.join(), s.path, hangs.address() as string];
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 100_000 });
    assert.equal(stdout, `${connected} ${connecting}`);
  })));
});
