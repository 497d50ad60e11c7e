# Does what Memcached::libmemcached, Perl's binding of libmemcached, can do, against the server HOST:PORT.
use strict;
use warnings;
use Memcached::libmemcached;
use Time::HiRes qw(sleep);

my ($host, $port) = split /:/, $ARGV[0];
my @failures;

sub text { my ($v) = @_; return defined $v ? "'$v'" : 'nothing' }

sub same {
    my ($what, $got, $want) = @_;
    push @failures, "$what: " . text($got) . ', want ' . text($want) if text($got) ne text($want);
}

my $c = Memcached::libmemcached->new;
$c->memcached_server_add($host, $port);
same('flush', $c->memcached_flush(0), 1);
same('get of nothing', scalar $c->memcached_get('a'), undef);
same('set', $c->memcached_set('a', 'one', 100, 7), 1);
my $flags = 0;
same('get', scalar $c->memcached_get('a', $flags), 'one');
same('its flags', $flags, 7);
same('add of what is there', !!$c->memcached_add('a', 'x'), !!0);
same('add', $c->memcached_add('b', 'two'), 1);
same('replace', $c->memcached_replace('b', 'three'), 1);
same('append', $c->memcached_append('b', '>'), 1);
same('prepend', $c->memcached_prepend('b', '<'), 1);
same('get behind these', scalar $c->memcached_get('b'), '<three>');
$c->memcached_set('n', 5);
my $n = 0;
same('increment', $c->memcached_increment('n', 3, $n) && $n, 8);
same('decrement', $c->memcached_decrement('n', 2, $n) && $n, 6);
my %got;
same('mget', $c->memcached_mget(['a', 'b', 'none']), 1);
while (defined(my $v = $c->memcached_fetch(my $key))) { $got{$key} = $v }
same('fetch', join(',', map { "$_=$got{$_}" } sort keys %got), 'a=one,b=<three>');
same('delete', $c->memcached_delete('b'), 1);
same('get of what is deleted', scalar $c->memcached_get('b'), undef);
same('version', join('.', $c->memcached_version), '1.6.18');
my %stats;
$c->walk_stats('', sub { my ($key, $value) = @_; $stats{$key} = $value; return });
same('stats', exists $stats{$_} ? 'there' : 'missing', 'there') for qw(cmd_get bytes version);
$c->memcached_set('short', 'x', 1);
for (1 .. 100) { last unless defined $c->memcached_get('short'); sleep 0.1 }
same('what has expired', scalar $c->memcached_get('short'), undef);
print STDERR "$_\n" for @failures;
exit(@failures ? 1 : 0);
