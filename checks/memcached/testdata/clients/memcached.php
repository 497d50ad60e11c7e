<?php
// Does what php-memcached can do, against the server HOST:PORT.
[$host, $port] = explode(':', $argv[1]);
$failures = [];

function same($what, $got, $want)
{
    global $failures;
    if ($got !== $want) {
        $failures[] = "$what: " . var_export($got, true) . ', want ' . var_export($want, true);
    }
}

$m = new Memcached();
$m->addServer($host, (int) $port);
same('flush', $m->flush(), true);
same('version', array_values($m->getVersion()), ['1.6.18']);

same('get of nothing', $m->get('a'), false);
same('its result', $m->getResultCode(), Memcached::RES_NOTFOUND);
same('replace of nothing', $m->replace('a', 'x'), false);
same('append to nothing', $m->append('a', 'x'), null); // compression is on: it is refused with a warning
$m->setOption(Memcached::OPT_COMPRESSION, false);
same('append to nothing', $m->append('a', 'x'), false);
same('delete of nothing', $m->delete('a'), false);
same('touch of nothing', $m->touch('a', 10), false);
same('set', $m->set('a', 'one', 100), true);
same('add of what is there', $m->add('a', 'x'), false);
same('its result', $m->getResultCode(), Memcached::RES_NOTSTORED);
same('add', $m->add('b', 'two'), true);
same('replace', $m->replace('b', 'three'), true);
same('append', $m->append('b', '>'), true);
same('prepend', $m->prepend('b', '<'), true);
same('get', $m->get('b'), '<three>');
same('touch', $m->touch('b', 100), true);
same('delete', $m->delete('b'), true);
same('get of what is deleted', $m->get('b'), false);

foreach ([
    'text' => 'ü', 'empty' => '', 'int' => -7, 'float' => 1.5, 'true' => true, 'false' => false, 'null' => null,
    'list' => [1, 'two', [3]], 'map' => ['a' => ['b' => 1]], 'long' => str_repeat('abc ', 2000),
    'bytes' => "\r\nEND\r\n\0\xff",
] as $name => $value) {
    foreach ([false, true] as $compressed) {
        $m->setOption(Memcached::OPT_COMPRESSION, $compressed);
        same("set of $name", $m->set("type-$name", $value), true);
        same("get of $name", $m->get("type-$name"), $value);
    }
}
$m->setOption(Memcached::OPT_COMPRESSION, false);
same('an object', [$m->set('object', new ArrayObject([1])), count($m->get('object'))], [true, 1]);

same('set of a number', $m->set('n', 5), true);
same('increment', $m->increment('n', 3), 8);
same('decrement', $m->decrement('n', 2), 6);
same('decrement below 0', $m->decrement('n', 20), 0);
same('get of a number', $m->get('n'), 0);
same('increment of nothing', $m->increment('none'), false);
same('increment of text', $m->increment('a'), false);

$many = [];
for ($i = 0; $i < 300; $i++) {
    $many["many-$i"] = "v$i";
}
same('setMulti', $m->setMulti($many, 100), true);
same('getMulti', $m->getMulti(array_merge(array_keys($many), ['none'])), $many);
same('deleteMulti', $m->deleteMulti(['many-1', 'none']), ['many-1' => true, 'none' => Memcached::RES_NOTFOUND]);
same('getMulti in order', $m->getMulti(['many-1', 'many-2'], Memcached::GET_PRESERVE_ORDER), ['many-1' => null, 'many-2' => 'v2']);
same('getDelayed', $m->getDelayed(['many-2', 'many-3'], true), true);
same('fetchAll', array_column($m->fetchAll(), 'value', 'key'), ['many-2' => 'v2', 'many-3' => 'v3']);

$m->setOption(Memcached::OPT_USER_FLAGS, 1234);
same('set with flags', $m->set('flagged', 'x'), true);
$m->setOption(Memcached::OPT_USER_FLAGS, -1);
$got = $m->get('flagged', null, Memcached::GET_EXTENDED);
same('get of flags', [$got['value'], $got['flags']], ['x', 1234]);
same('cas', $m->cas($got['cas'], 'flagged', 'y'), true);
same('cas again', $m->cas($got['cas'], 'flagged', 'z'), false);
same('its result', $m->getResultCode(), Memcached::RES_DATA_EXISTS);
same('get behind cas', $m->get('flagged'), 'y');
same('cas of nothing', $m->cas(1.0, 'none', 'z'), false);
same('a callback', $m->get('loaded', function ($m, $key, &$value) {
    $value = 'by the app';
    return true;
}), 'by the app');
same('what it has stored', $m->get('loaded'), 'by the app');

same('set for a second', $m->set('short', 'x', 1), true);
same('set until a point in time', [$m->set('point', 'x', time() + 100), $m->get('point')], [true, 'x']);
for ($i = 0; $i < 100 && $m->get('short') !== false; $i++) {
    usleep(100000);
}
same('what has expired', $m->get('short'), false);
same('set in the past', [$m->set('a', 'x', -1), $m->get('a')], [true, false]);

same('a key with a space', $m->set('a b', 'x'), false);
same('its result', $m->getResultCode(), Memcached::RES_BAD_KEY_PROVIDED);
$stats = $m->getStats();
same('stats', isset($stats["$host:$port"]['cmd_get'], $stats["$host:$port"]['bytes'], $stats["$host:$port"]['threads']), true);
same('all keys, of which there is no list, or a list', is_array($m->getAllKeys()), true);

foreach (['quick' => [Memcached::OPT_NO_BLOCK => true, Memcached::OPT_BUFFER_WRITES => true, Memcached::OPT_NOREPLY => true],
    'prefixed' => [Memcached::OPT_PREFIX_KEY => 'p-']] as $name => $options) {
    $q = new Memcached();
    $q->setOptions($options);
    $q->addServer($host, (int) $port);
    same("$name set", $q->set($name, 'x'), true);
    if ($name === 'quick') {
        $q->quit();
    }
    same("$name get", $q->get($name), 'x');
}
same('get of the prefixed key', $m->get('p-prefixed'), 'x');
same('flush', [$m->flush(), $m->get('point')], [true, false]);

fwrite(STDERR, implode("\n", $failures) . "\n");
exit($failures ? 1 : 0);
