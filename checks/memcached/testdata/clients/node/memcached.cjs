// Does what the package memcached can do, against the server HOST:PORT.
'use strict';
const { isDeepStrictEqual, promisify } = require('node:util');
const { setTimeout: sleep } = require('node:timers/promises');
const Memcached = require('memcached');

const failures = [];
const same = (what, got, want) => {
  if (!isDeepStrictEqual(got, want)) failures.push(`${what}: ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
};

async function main(server) {
  const m = new Memcached(server, { retries: 0, timeout: 10000 });
  const c = {};
  for (const name of ['get', 'gets', 'getMulti', 'set', 'add', 'replace', 'append', 'prepend', 'cas', 'incr', 'decr',
    'del', 'touch', 'flush', 'version', 'stats', 'settings', 'slabs', 'items', 'cachedump']) {
    c[name] = promisify(m[name].bind(m));
  }
  const fails = async (what, promise) => {
    try {
      failures.push(`${what}: ${JSON.stringify(await promise)}, want an error`);
    } catch {
      // as it should be
    }
  };
  same('flush', await c.flush(), [true]);
  same('version', (await c.version())[0].version, '1.6.18');
  same('get of nothing', await c.get('a'), undefined);
  await fails('replace of nothing', c.replace('a', 'x', 100));
  await fails('append to nothing', c.append('a', 'x'));
  same('delete of nothing', await c.del('a'), false);
  same('touch of nothing', await c.touch('a', 100), false);
  same('incr of nothing', await c.incr('a', 1), false);
  same('set', await c.set('a', 'one', 100), true);
  await fails('add of what is there', c.add('a', 'x', 100));
  same('add', await c.add('b', 'two', 100), true);
  same('replace', await c.replace('b', 'three', 100), true);
  same('append', await c.append('b', '>'), true);
  same('prepend', await c.prepend('b', '<'), true);
  same('get', await c.get('b'), '<three>');
  same('touch', await c.touch('b', 100), true);
  same('delete', [await c.del('b'), await c.get('b')], [true, undefined]);
  for (const value of ['ü', '', 'abc '.repeat(2000), 7, -1.5, [1, 'two'], { a: { b: 1 } }, Buffer.from('\r\nEND\r\n\0')]) {
    await c.set('value', value, 100);
    same('a value', await c.get('value'), value);
  }
  await c.set('n', 5, 100);
  same('incr', await c.incr('n', 3), 8);
  same('decr', await c.decr('n', 2), 6);
  same('decr below 0', await c.decr('n', 20), 0);
  const many = {};
  for (let i = 0; i < 300; i++) many[`many-${i}`] = `v${i}`;
  await Promise.all(Object.entries(many).map(([k, v]) => c.set(k, v, 100)));
  same('getMulti', { ...(await c.getMulti([...Object.keys(many), 'none'])) }, many);
  const got = await c.gets('a');
  same('gets', got.a, 'one');
  same('cas', await c.cas('a', 'four', got.cas, 100), true);
  same('cas again', await c.cas('a', 'five', got.cas, 100), false);
  same('get behind cas', await c.get('a'), 'four');
  await c.set('short', 'x', 1);
  for (let i = 0; i < 100 && (await c.get('short')) !== undefined; i++) await sleep(100);
  same('what has expired', await c.get('short'), undefined);
  same('stats', typeof (await c.stats())[0].cmd_get, 'number');
  same('settings', typeof (await c.settings())[0].maxconns, 'number');
  same('items', Array.isArray(await c.items()), true);
  same('slabs', Array.isArray(await c.slabs()), true);
  same('cachedump', await c.cachedump(server, 63, 10), undefined);
  same('flush', [await c.flush(), await c.get('a')], [[true], undefined]);
  m.end();
  if (failures.length > 0) throw new Error(failures.join('\n'));
}

main(process.argv[2]).catch((e) => {
  console.error(e.message);
  process.exitCode = 1;
});
