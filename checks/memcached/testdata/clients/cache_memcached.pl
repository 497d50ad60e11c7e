# Does what Cache::Memcached and Cache::Memcached::Fast can do, against the server HOST:PORT. The
# first argument is the module.
use strict;
use warnings;
use Time::HiRes qw(sleep);

my ($module, $server) = @ARGV;
eval "require $module" or die $@;
my @failures;

sub text { my ($v) = @_; return defined $v ? "'$v'" : 'nothing' }

sub same {
    my ($what, $got, $want) = @_;
    push @failures, "$what: " . text($got) . ', want ' . text($want) if text($got) ne text($want);
}

my $fast = $module eq 'Cache::Memcached::Fast';
my $c = $module->new({servers => [$server], compress_threshold => 1000});
$c->flush_all;
same('get of nothing', $c->get('a'), undef);
same('replace of nothing', !!$c->replace('a', 'x'), !!0);
same('delete of nothing', !!$c->delete('a'), !!0);
same('incr of nothing', $c->incr('a') || undef, undef);
same('set', $c->set('a', 'one', 100), 1);
same('add of what is there', !!$c->add('a', 'x'), !!0);
same('add', $c->add('b', 'two'), 1);
same('replace', $c->replace('b', 'three'), 1);
same('append', $c->append('b', '>'), 1);
same('prepend', $c->prepend('b', '<'), 1);
same('get', $c->get('b'), '<three>');
same('delete', $c->delete('b'), 1);
same('get of what is deleted', $c->get('b'), undef);
$c->set('ref', {list => [1, 'two'], map => {a => 1}});
same('a reference', $c->get('ref')->{list}[1], 'two');
$c->set('long', 'abc ' x 2000);
same('a long value', $c->get('long'), 'abc ' x 2000);
$c->set('bytes', "\r\nEND\r\n\0\xff");
same('bytes', $c->get('bytes'), "\r\nEND\r\n\0\xff");
$c->set('n', 5);
same('incr', $c->incr('n', 3), 8);
same('decr', $c->decr('n', 2), 6);
same('decr below 0', $c->decr('n', 20) + 0, 0);
my %many = map { ("many-$_" => "v$_") } 0 .. 299;
if ($fast) {
    $c->set_multi(map { [$_, $many{$_}] } keys %many);
} else {
    $c->set($_, $many{$_}) for keys %many;
}
my $got = $c->get_multi(keys %many, 'none');
same('get_multi', join(',', map { "$_=$got->{$_}" } sort keys %$got), join(',', map { "$_=$many{$_}" } sort keys %many));
if ($fast) {
    my $it = $c->gets('a');
    same('gets', $it->[1], 'one');
    same('cas', $c->cas('a', $it->[0], 'four'), 1);
    same('cas again', !!$c->cas('a', $it->[0], 'five'), !!0);
    same('get behind cas', $c->get('a'), 'four');
    same('touch', $c->touch('a', 100), 1);
    same('gat', $c->gat(100, 'a'), 'four');
    same('server_versions', $c->server_versions->{$server}, '1.6.18');
    same('delete_multi', join(',', map { $_ // '' } @{[$c->delete_multi('many-1', 'many-2')]}), '1,1');
    same('noreply', (scalar $c->set_multi(['m', 1])) && $c->get('m'), 1);
    $c->nowait_push;
} else {
    my $misc = $c->stats('misc')->{hosts}{$server}{misc};
    same('stats', exists $misc->{$_} ? 'there' : 'missing', 'there') for qw(cmd_get bytes version total_items connection_structures);
}
$c->set('short', 'x', 1);
for (1 .. 100) { last unless defined $c->get('short'); sleep 0.1 }
same('what has expired', $c->get('short'), undef);
$c->flush_all;
same('get behind a flush', $c->get('a'), undef);
$c->disconnect_all;
same('behind disconnect_all', $c->set('again', 'x') && $c->get('again'), 'x');
print STDERR "$_\n" for @failures;
exit(@failures ? 1 : 0);
