<?php
// What PHP does with its memcached extension in the binary mode, and its session handler, which takes that mode by
// default. Arguments: host, port, and perhaps a user and a password.

[, $host, $port] = $argv;

function check(string $name, $got, $expected): void
{
    if ($got !== $expected) {
        fwrite(STDERR, "$name: " . var_export($got, true) . ' instead of ' . var_export($expected, true) . "\n");
        exit(1);
    }
}

$cache = new Memcached();
$cache->setOption(Memcached::OPT_BINARY_PROTOCOL, true);
if (isset($argv[3])) {
    $cache->setSaslAuthData($argv[3], $argv[4]);
}
$cache->addServer($host, (int) $port);

check('flush', $cache->flush(), true);
check('miss', [$cache->get('none'), $cache->getResultCode()], [false, Memcached::RES_NOTFOUND]);
foreach ([1, 2.5, true, 'text', '', ['a' => [1, null]], str_repeat('x', 500000), "\r\n\0"] as $value) {
    check('set', $cache->set('k', $value, 300), true);
    check('get', $cache->get('k'), $value);
}
check('add', [$cache->add('k', 1), $cache->getResultCode()], [false, Memcached::RES_DATA_EXISTS]);
check('replace', $cache->replace('none', 1), false);
$found = $cache->get('k', null, Memcached::GET_EXTENDED);
check('cas', $cache->cas($found['cas'], 'k', 'other'), true);
check('old cas', [$cache->cas($found['cas'], 'k', 'x'), $cache->getResultCode()], [false, Memcached::RES_DATA_EXISTS]);
check('increment', $cache->increment('n', 1, 5, 60), 5);
check('increment again', $cache->increment('n', 2), 7);
check('decrement', $cache->decrement('n', 100), 0);
$cache->setOption(Memcached::OPT_COMPRESSION, false);
$cache->set('a', 'b');
check('append', $cache->append('a', 'c'), true);
check('prepend', $cache->prepend('a', 'a'), true);
check('appended', $cache->get('a'), 'abc');
$many = [];
for ($n = 0; $n < 200; $n++) {
    $many["m$n"] = "value $n";
}
check('setMulti', $cache->setMulti($many), true);
check('getMulti', $cache->getMulti(array_merge(array_keys($many), ['none'])), $many);
check('touch', $cache->touch('k', 60), true);
check('delete', $cache->delete('k'), true);
check('deleted', [$cache->delete('k'), $cache->getResultCode()], [false, Memcached::RES_NOTFOUND]);
$stats = $cache->getStats();
check('stats', reset($stats)['pid'] > 0, true);

if (!isset($argv[3])) {
    ini_set('session.save_handler', 'memcached');
    ini_set('session.save_path', "$host:$port");
    ini_set('session.use_cookies', '0');
    ini_set('session.cache_limiter', '');
    check('the session handler takes the binary protocol', ini_get('memcached.sess_binary_protocol'), '1');
    session_id('abc');
    check('session', session_start(), true);
    $_SESSION['visits'] = 1;
    session_write_close();
    $_SESSION = [];
    check('session again', session_start(), true);
    check('visits', $_SESSION['visits'] ?? null, 1);
    check('destroyed', session_destroy(), true);
}
echo "as expected\n";
