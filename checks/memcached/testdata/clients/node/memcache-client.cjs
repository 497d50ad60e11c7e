// Does what the package memcache-client can do, against the server HOST:PORT.
'use strict';
const { isDeepStrictEqual } = require('node:util');
const { setTimeout: sleep } = require('node:timers/promises');
const { MemcacheClient } = require('memcache-client');

const failures = [];
const same = (what, got, want) => {
  if (!isDeepStrictEqual(got, want)) failures.push(`${what}: ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
};

async function main(server) {
  const c = new MemcacheClient({ server });
  const answer = (promise) => promise.then((r) => r, (e) => e.message);
  const value = async (key) => (await c.get(key))?.value;
  await c.cmd('flush_all');
  same('version', await c.version(), ['VERSION', '1.6.18']);
  same('get of nothing', await value('a'), undefined);
  same('replace of nothing', /NOT_STORED/.test(await answer(c.replace('a', 'x'))), true);
  same('delete of nothing', /NOT_FOUND/.test(await answer(c.delete('a'))), true);
  same('touch of nothing', /NOT_FOUND/.test(await answer(c.touch('a', 100))), true);
  same('incr of nothing', /NOT_FOUND/.test(await answer(c.incr('a', 1))), true);
  same('set', await c.set('a', 'one', { lifetime: 100 }), ['STORED']);
  same('add of what is there', /NOT_STORED/.test(await answer(c.add('a', 'x'))), true);
  same('add', await c.add('b', 'two'), ['STORED']);
  same('replace', await c.replace('b', 'three'), ['STORED']);
  same('append', await c.append('b', '>'), ['STORED']);
  same('prepend', await c.prepend('b', '<'), ['STORED']);
  same('get', await value('b'), '<three>');
  same('touch', await c.touch('b', 100), ['TOUCHED']);
  same('delete', [await c.delete('b'), await value('b')], [['DELETED'], undefined]);
  for (const v of ['ü', 'abc '.repeat(2000), 7, [1, 'two'], { a: { b: 1 } }, Buffer.from('\r\nEND\r\n\0')]) {
    await c.set('value', v);
    same('a value', await value('value'), v);
  }
  await c.set('n', '5');
  same('incr', await c.incr('n', 3), '8');
  same('decr', await c.decr('n', 20), '0');
  const keys = [];
  for (let i = 0; i < 300; i++) keys.push(`many-${i}`);
  await Promise.all(keys.map((k) => c.set(k, `v ${k}`)));
  const got = await c.get([...keys, 'none']);
  same('get of many', keys.every((k) => got[k].value === `v ${k}`) && Object.keys(got).length, 300);
  const { casUniq } = await c.gets('a');
  same('cas', await c.cas('a', 'four', { casUniq }), ['STORED']);
  same('cas again', /EXISTS/.test(await answer(c.cas('a', 'five', { casUniq }))), true);
  await c.set('a', 'quick', { noreply: true });
  same('get behind noreply', await value('a'), 'quick');
  await c.set('short', 'x', { lifetime: 1 });
  for (let i = 0; i < 100 && (await value('short')) !== undefined; i++) await sleep(100);
  same('what has expired', await value('short'), undefined);
  same('stats', (await c.cmd('stats')).STAT.some(([name]) => name === 'cmd_get'), true);
  await c.cmd('flush_all');
  same('get behind a flush', await value('a'), undefined);
  c.shutdown();
  if (failures.length > 0) throw new Error(failures.join('\n'));
}

main(process.argv[2]).catch((e) => {
  console.error(e.message);
  process.exitCode = 1;
});
