import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import { test } from 'node:test';

// What a program is told whose user may not open the sidecar's socket.

const stranger = 65_533; // without names, as the groups
const apps = 65_532;
const others = 65_531;
const inGroup = 'and user 65533 is not in it: usermod -aG 65532 65533, and start this program anew from a new login';
const toApps = 'give it to the group of its apps (socket_group and socket_mode; ';

const cases: [string, number, number, number, number, number, string][] = [
  ['not in the group', 0o755, 0o660, 0, apps, others,
    `the socket belongs to group 65532 and has mode 0660, ${inGroup}`],
  ['of root\'s group', 0o755, 0o660, 0, 0, others, `the socket belongs to group root and has mode 0660: ${toApps}`],
  ['closed to the group', 0o755, 0o600, 0, apps, apps,
    `the socket belongs to group 65532 and has mode 0600: ${toApps}`],
  ['a folder of another group', 0o750, 0o666, apps, apps, others,
    `the folder FOLDER belongs to group 65532 and has mode 0750, ${inGroup}`],
  ['a folder of its own', 0o700, 0o666, apps, apps, apps,
    'the folder FOLDER belongs to group 65532 and has mode 0700: let all search it: chmod a+x FOLDER'],
];

// It becomes another user once all is loaded: the modules may be in a folder that is closed to others.
const program = `
  const { Client } = require(${JSON.stringify(path.join(__dirname, '../src/index.js'))});
  const fs = require('node:fs');
  const stat = fs.statSync;
  fs.statSync = (p, o) => String(p).startsWith('/run/cachesidecar/') ? undefined : stat(p, o); // of this machine
  const [socket, gid, uid] = process.argv.slice(1);
  process.setgroups([]); process.setgid(Number(gid)); process.setuid(Number(uid));
  const c = new Client(socket ? { socket } : {});
  c.set('k', 'v').catch((e) => { console.log(e.name, e.code, e.message); return c.close(); });
`;

const root = process.geteuid?.() === 0;
test('a user who may not open the socket is told of its group, and what to do', {
  skip: !root && process.env['CI'] !== 'true' && 'only root can become another user',
  timeout: 60_000,
}, (t) => {
  assert.ok(root, 'run it as root: only root can become another user');
  const top = fs.mkdtempSync('/tmp/denied');
  t.after(() => fs.rmSync(top, { recursive: true }));
  fs.chmodSync(top, 0o755);
  const folder = path.join(top, 'cachesidecar');
  const socket = path.join(folder, 'cachesidecar.sock');
  fs.mkdirSync(folder);
  const server = net.createServer().listen(socket);
  t.after(() => server.close());
  for (const [name, folderMode, mode, folderGroup, group, own, want] of cases) {
    fs.chownSync(socket, 0, group);
    fs.chmodSync(socket, mode);
    fs.chownSync(folder, 0, folderGroup);
    fs.chmodSync(folder, folderMode);
    for (const given of [socket, '']) {
      const env: NodeJS.ProcessEnv = { ...process.env, XDG_RUNTIME_DIR: top };
      delete env['CACHESIDECAR_SOCKET'];
      const args = ['-e', program, given, String(own), String(stranger)];
      const { stdout } = spawnSync(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
      const begin = `UnavailableError unavailable cannot connect to the sidecar at ${socket}: permission denied: `
        + want.replaceAll('FOLDER', folder);
      assert.equal(String(stdout).slice(0, begin.length), begin, name);
      assert.ok(!String(stdout).includes('cachesidecar run'));
    }
  }
});
