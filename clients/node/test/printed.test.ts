import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { test } from 'node:test';
import { format, inspect } from 'node:util';
import { Client, type ClientOptions } from '../src/index.js';
import { hit, Server } from './server.js';

// What a program may print, and what a minifier leaves of the names.

const token = 'a-secret-token';

test('nothing that is printed of a client has its token', async (t) => {
  const s = await Server.start(t, (q) => q.conn.answer(...hit(q.id, 'v')));
  const file = path.join(path.dirname(s.path), 'token');
  fs.writeFileSync(file, token, { mode: 0o600 });
  for (const secret of [{ token }, { tokenFile: file }] as ClientOptions[]) {
    const c = await Client.connect({ socket: s.path, timeout: 20_000, nearCache: { bytes: 1 << 20 }, ...secret });
    t.after(() => c.close());
    const view = c.inNamespace('users');
    const error = await c.incr('k').catch((e: unknown) => e);
    for (const one of [c, view, { cache: c }, [view], new Map([[c, view]]), { ...c }, Object.assign({}, view), error]) {
      const all = { depth: Infinity, showHidden: true, getters: true, maxArrayLength: Infinity };
      const shown = [
        inspect(one), inspect(one, all), inspect(one, { ...all, customInspect: false }), String(one),
        format('%o %O %s %j', one, one, one, c),
      ];
      shown.forEach((text) => assert.ok(!text.includes(token), text.slice(0, 1000)));
    }
    assert.equal(inspect([c, view]), '[ Client {"namespace":"default"}, Client {"namespace":"users"} ]');
    assert.equal(JSON.stringify([c, view]), '[{"namespace":"default"},{"namespace":"users"}]');
  }
});

test('errors keep their names where classes have lost theirs', () => {
  const text = fs.readFileSync(path.join(__dirname, '../src/errors.js'), 'utf8');
  const short = new Map<string, string>(); // as a minifier names the classes: everywhere but in texts
  const code = text.replace(/\/\*[^]*?\*\//g, '').replace(/'[^'\n]*'|\b[A-Z]\w+Error\b/g, (found) => (
    found.startsWith("'") ? found : short.get(found) ?? short.set(found, `e${short.size}`).get(found)!));
  const made: Record<string, new (...args: unknown[]) => Error> = {};
  new Function('exports', code)(made);
  assert.equal(short.size, 13);
  for (const [name, at] of short) {
    const e = new made[at]!('busy', 'text');
    assert.equal(made[at]!.name, at);
    assert.deepEqual([e.name, String(e), e.stack!.split('\n')[0]], [name, `${name}: text`, `${name}: text`]);
  }
});
