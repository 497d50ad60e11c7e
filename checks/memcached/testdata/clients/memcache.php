<?php
// Does what PHP's older extension, memcache, can do, against the server HOST:PORT.
[$host, $port] = explode(':', $argv[1]);
$failures = [];

function same($what, $got, $want)
{
    global $failures;
    if ($got !== $want) {
        $failures[] = "$what: " . var_export($got, true) . ', want ' . var_export($want, true);
    }
}

$m = new Memcache();
same('connect', $m->connect($host, (int) $port), true);
same('flush', $m->flush(), true);
same('version', $m->getVersion(), '1.6.18');
same('get of nothing', $m->get('a'), false);
same('replace of nothing', $m->replace('a', 'x'), false);
same('delete of nothing', $m->delete('a'), false);
same('increment of nothing', $m->increment('a'), false);
same('set', $m->set('a', 'one', 0, 100), true);
same('add of what is there', $m->add('a', 'x'), false);
same('add', $m->add('b', 'two'), true);
same('replace', $m->replace('b', 'three'), true);
same('append', $m->append('b', '>'), true);
same('prepend', $m->prepend('b', '<'), true);
same('get', $m->get('b'), '<three>');
same('get of many', $m->get(['a', 'b', 'none']), ['a' => 'one', 'b' => '<three>']);
foreach ([
    'text' => 'ü', 'empty' => '', 'int' => -7, 'float' => 1.5, 'true' => true, 'list' => [1, 'two', [3]],
    'long' => str_repeat('abc ', 20000), 'bytes' => "\r\nEND\r\n\0\xff",
] as $name => $value) {
    foreach ([0, MEMCACHE_COMPRESSED] as $flags) {
        same("set of $name", $m->set("type-$name", $value, $flags), true);
        same("get of $name", $m->get("type-$name"), $value);
    }
}
$value = $m->get('a', $flags, $cas);
same('cas', $m->cas('a', 'four', 0, 0, $cas), true);
same('cas again', $m->cas('a', 'five', 0, 0, $cas), false);
same('get behind cas', $m->get('a'), 'four');
same('set of a number', $m->set('n', 5), true);
same('increment', $m->increment('n', 3), 8);
same('decrement', $m->decrement('n', 20), 0);
same('set for a second', $m->set('short', 'x', 0, 1), true);
for ($i = 0; $i < 100 && $m->get('short') !== false; $i++) {
    usleep(100000);
}
same('what has expired', $m->get('short'), false);
same('delete', [$m->delete('b'), $m->get('b')], [true, false]);
same('stats', isset($m->getStats()['cmd_get']), true);
same('stats slabs', is_array($m->getStats('slabs')), true);
same('flush', [$m->flush(), $m->get('a')], [true, false]);
same('close', $m->close(), true);

fwrite(STDERR, implode("\n", $failures) . "\n");
exit($failures ? 1 : 0);
