// Does what the package memcache can do, against the server HOST:PORT.
import { isDeepStrictEqual } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { Memcache } from 'memcache';

const failures = [];
const same = (what, got, want) => {
  if (!isDeepStrictEqual(got, want)) failures.push(`${what}: ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
};

const c = new Memcache({ nodes: [process.argv[2]], timeout: 10000 });
c.on('error', () => {});
await c.connect();
same('flush', await c.flush(), true);
same('version', [...(await c.version()).values()], ['VERSION 1.6.18']);
same('get of nothing', await c.get('a'), undefined);
same('replace of nothing', await c.replace('a', 'x'), false);
same('append to nothing', await c.append('a', 'x'), false);
same('delete of nothing', await c.delete('a'), false);
same('touch of nothing', await c.touch('a', 100), false);
same('incr of nothing', await c.incr('a'), undefined);
same('set', await c.set('a', 'one', 100), true);
same('add of what is there', await c.add('a', 'x'), false);
same('add', await c.add('b', 'two', 100), true);
same('replace', await c.replace('b', 'three', 100), true);
same('append', await c.append('b', '>'), true);
same('prepend', await c.prepend('b', '<'), true);
same('get', await c.get('b'), '<three>');
same('touch', await c.touch('b', 100), true);
same('delete', [await c.delete('b'), await c.get('b')], [true, undefined]);
for (const value of ['ü', 'abc '.repeat(2000), '\r\nEND\r\n']) {
  await c.set('value', value);
  same('a value', await c.get('value'), value);
}
await c.set('n', '5');
same('incr', await c.incr('n', 3), 8);
same('decr', await c.decr('n', 20), 0);
const many = new Map();
for (let i = 0; i < 300; i++) many.set(`many-${i}`, `v${i}`);
await Promise.all([...many].map(([k, v]) => c.set(k, v, 100)));
same('gets', new Map([...(await c.gets([...many.keys(), 'none']))].sort()), new Map([...many].sort()));
same('cas with another token', await c.cas('a', 'x', '1'), false);
await c.set('short', 'x', 1);
for (let i = 0; i < 100 && (await c.get('short')) !== undefined; i++) await sleep(100);
same('what has expired', await c.get('short'), undefined);
same('stats', 'cmd_get' in [...(await c.stats()).values()][0], true);
same('flush', [await c.flush(), await c.get('a')], [true, undefined]);
await c.quit();
if (failures.length > 0) {
  console.error(failures.join('\n'));
  process.exitCode = 1;
}
