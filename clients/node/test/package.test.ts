import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { test } from 'node:test';
import { settingsOf } from '../src/options.js';
import { hit, Server, sidecar } from './server.js';

// The package as users get it: packed, and installed without a network.

const root = path.join(__dirname, '../..');
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cachesidecar-package'));
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));

const quiet = ['--offline', '--no-audit', '--no-fund', '--cache', path.join(folder, 'cache'), '--loglevel', 'error'];
const npm = (args: string[], cwd: string): string =>
  execFileSync('npm', [...args, ...quiet], { cwd, encoding: 'utf8' });

/** Packs the package and its dependency, and installs both into an empty folder. */
function install(): string {
  const app = path.join(folder, 'app');
  if (!fs.existsSync(app)) {
    const to = ['--ignore-scripts', '--pack-destination', folder];
    const pack = (from: string): string => path.join(folder, npm(['pack', from, ...to], root).trim());
    const tarballs = [pack('.'), pack('./node_modules/@msgpack/msgpack')];
    fs.mkdirSync(app);
    fs.writeFileSync(path.join(app, 'package.json'), '{"private": true}');
    npm(['install', ...tarballs], app);
  }
  return app;
}

/** Runs a node program in the folder, while this process serves. */
async function node(app: string, file: string, text: string, env: Record<string, string>): Promise<string> {
  fs.writeFileSync(path.join(app, file), text);
  const { execFile } = await import('node:child_process');
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [file], { cwd: app, env: { ...process.env, ...env }, encoding: 'utf8' },
      (e, out, err) => (e ? reject(new Error(`${e.message}\n${out}${err}`)) : resolve(out)));
  });
}

const options = { timeout: 80_000 };

test('the package has what it needs, and no more', options, () => {
  const files = fs.readdirSync(path.join(install(), 'node_modules/cachesidecar'), { recursive: true }) as string[];
  assert.ok(files.includes('README.md') && files.includes('LICENSE') && files.includes('dist/index.mjs') && files.includes('dist/index.d.ts'));
  assert.deepEqual(files.filter((f) => /test|^src|tools/.test(f)), []);
  const { dependencies } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  assert.deepEqual(Object.keys(dependencies), ['@msgpack/msgpack']);
  assert.ok(!fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8').includes('"resolved"'));
});

test('import and require give one client, which gets a value', options, async (t) => {
  const s = await Server.start(t, (q) => q.conn.answer(...hit(q.id, 'v')));
  const app = install();
  const body = 'const c = new Client({ socket: process.env.S });'
    + 'c.get("k").then((v) => { console.log(v); return c.close(); });';
  const env = { S: s.path };
  assert.equal(await node(app, 'a.cjs', `const { Client } = require('cachesidecar'); ${body}`, env), 'v\n');
  assert.equal(await node(app, 'a.mjs', `import { Client } from 'cachesidecar'; ${body}`, env), 'v\n');
  const same = `import { createRequire } from 'node:module'; import * as esm from 'cachesidecar';
    const cjs = createRequire(import.meta.url)('cachesidecar');
    const names = Object.keys(cjs).sort();
    const all = names.join() === Object.keys(esm).sort().join();
    console.log(all && names.every((n) => cjs[n] === esm[n]), names.length);`;
  assert.match(await node(app, 'same.mjs', same, {}), /^true \d\d\n$/);
});

test('TypeScript finds the types both ways', options, () => {
  const app = install();
  const uses = `const c: Client = new Client({ timeout: 5 });
    export const n: Promise<string | undefined> = c.get<string>('k');
    export const v: Promise<bigint> = c.set('k', 1, { ttl: NO_EXPIRY });
    // @ts-expect-error: a number is no key
    void c.get(5);
    // @ts-expect-error: there is no such option
    void c.set('k', 1, { tll: 5 });
    export const e = (x: CacheError): boolean => x.code === 'timeout';`;
  const names = '{ CacheError, Client, NO_EXPIRY } from \'cachesidecar\'';
  fs.writeFileSync(path.join(app, 'types.mts'), `import ${names};\n${uses}`);
  fs.writeFileSync(path.join(app, 'types.cts'), `import ${names};\n${uses}`);
  const types = path.join(root, 'node_modules/@types');
  const args = ['--noEmit', '--strict', '--module', 'node16', '--moduleResolution', 'node16', '--target', 'es2022',
    '--types', 'node', '--typeRoots', types, 'types.mts', 'types.cts'];
  try {
    execFileSync(process.execPath, [require.resolve('typescript/bin/tsc'), ...args], { cwd: app, encoding: 'utf8' });
  } catch (e) {
    assert.fail((e as { stdout: string }).stdout);
  }
});

test('the table of settings in README.md has the defaults', () => {
  const readme = fs.readFileSync(path.join(root, 'README.md'), 'utf8').split('## Settings')[1]!.split('\n## ')[0]!;
  const near = settingsOf({ nearCache: { bytes: 1 << 20 } }).nearCache!;
  const defaults: Record<string, unknown> = { ...settingsOf({}), 'nearCache.bound': near.bound };
  const told = [...readme.matchAll(/^\| `([\w.]+)`(?:, `[\w.]+`)* \| ([^|]+) \|/gm)];
  assert.ok(told.length >= 12, 'the table is gone');
  for (const [, name, text] of told) {
    const number = /^[\d,]+$/.test(text!) ? Number(text!.replaceAll(',', '')) : undefined;
    const want = number ?? { '`"default"`': 'default', '`true`': true }[text!];
    assert.equal(defaults[name!], want, name);
  }
});

const real = sidecar();

test('the tour of README.md, line by line', { ...options, skip: real.skip }, async () => {
  const readme = fs.readFileSync(path.join(root, 'README.md'), 'utf8');
  const tours = [...readme.matchAll(/```js\n([\s\S]*?)```/g)].map((m) => m[1]!);
  assert.ok(tours.length >= 3, 'the tour is gone');
  let checks = 0;
  const lines = tours.join('\n').split('\n').map((line) => {
    const m = /^(\s*)(const \w+ = )?(.*?);?\s*\/\/ → (.*)$/.exec(line);
    if (m === null) {
      return line;
    }
    checks++;
    const [, , assign, code, want] = m;
    const name = /^const (\w+)/.exec(assign ?? '')?.[1];
    return name === undefined ? `same(${code}, ${want}, ${JSON.stringify(line)});`
      : `${assign}${code}; same(${name}, ${want}, ${JSON.stringify(line)});`;
  });
  assert.ok(checks >= 12, `${checks} lines with a result`);
  const script = `import assert from 'node:assert/strict';
    const same = (got, want, line) => assert.deepEqual(got, want, line + ' gave ' + String(got));
    ${lines.join('\n')}
    console.log('done');`;
  const out = await node(install(), 'tour.mjs', script, { CACHESIDECAR_SOCKET: real.socket });
  assert.match(out, /done\n$/);
});

test('the tour of README.md as it is pasted, into a module and into CommonJS', { ...options, skip: real.skip }, async () => {
  const readme = fs.readFileSync(path.join(root, 'README.md'), 'utf8');
  const tours = [...readme.matchAll(/```js\n([\s\S]*?)```/g)].map((m) => m[1]!);
  const env = { CACHESIDECAR_SOCKET: real.socket };
  const begin = "import { Client, NO_EXPIRY } from 'cachesidecar';";
  assert.ok(tours[0]!.startsWith(begin));
  const all = `${tours.join('\n')}\nconsole.log('done');`;
  assert.equal(await node(install(), 'pasted.mjs', all, env), 'done\n');
  const required = "const { Client, NO_EXPIRY } = require('cachesidecar'); (async () => {";
  assert.equal(await node(install(), 'pasted.cjs', `${all.replace(begin, required)} })();`, env), 'done\n');
});
