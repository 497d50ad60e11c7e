# What the .t files of memcached use, for a server that runs already and whose settings
# stay as they are. It takes the place of the module of the same name in memcached's own
# suite: the files ask it for a server with options, and get a connection to the one server
# instead. The server's address is in T_MEMD_USE_DAEMON: host:port, or the path of a socket.
package MemcachedTest;
use strict;
use warnings;
use Carp qw(croak);
use Exporter 'import';
use IO::Socket::INET;
use IO::Socket::UNIX;

our @EXPORT = qw(new_memcached sleep
    mem_get_is mem_gets mem_gets_is mem_stats mem_move_time
    supports_sasl free_port supports_drop_priv supports_extstore
    wait_ext_flush supports_tls enabled_tls_testing run_help
    supports_unix_socket get_memcached_exe supports_proxy);

use constant MAX_READ_WRITE_SIZE => 16384;

sub address { return $ENV{T_MEMD_USE_DAEMON} || croak("T_MEMD_USE_DAEMON names no server") }

sub dial {
    my $to = address();
    my $conn = $to =~ m{^/}
        ? IO::Socket::UNIX->new(Peer => $to)
        : IO::Socket::INET->new(PeerAddr => $to);
    return $conn || croak("no connection to $to: $!");
}

# The options of a file are not for a server that runs already; the table of files says
# which files need them.
my $flushed = 0;
sub new_memcached {
    my $conn = dial();
    # What the file before has left is none of this one's business.
    if (!$flushed++) {
        print $conn "flush_all\r\n";
        my $answer = <$conn>;
        croak("flush_all: " . ($answer // "no answer")) unless defined $answer && $answer eq "OK\r\n";
        # Counters begin at 0, as with a server that has just begun.
        print $conn "stats reset\r\n";
        <$conn>;
    }
    return Memcached::Handle->new($conn);
}

# Fractions of a second are allowed, other than in Perl's own.
sub sleep { select undef, undef, undef, shift; return }

# The server's clock cannot be moved. So real time passes, and one second more, since a
# second of memcached's clock may have just begun.
sub mem_move_time {
    my ($sock, $seconds) = @_;
    MemcachedTest::sleep($seconds + 1.1);
    return;
}

sub supports_sasl { 0 }
sub supports_drop_priv { 0 }
sub supports_extstore { 0 }
sub supports_proxy { 0 }
sub supports_tls { 0 }
sub enabled_tls_testing { 0 }
sub supports_unix_socket { 0 }    # of a path that the file chooses
sub wait_ext_flush { croak("there is no extstore") }
sub get_memcached_exe { croak("there is no program to start: the server runs already") }
sub run_help { return -1 }    # the status of a program that there is not

sub free_port {
    my $sock = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => shift || 'tcp', Listen => 1)
        || croak("no free port: $!");
    return $sock->sockport;
}

# mem_stats returns the statistics of a kind as a map.
sub mem_stats {
    my ($sock, $kind) = @_;
    print $sock defined $kind && $kind ne "" ? "stats $kind\r\n" : "stats\r\n";
    my %stats;
    while (defined(my $line = <$sock>)) {
        last if $line =~ /^(?:END|\.|ERROR|CLIENT_ERROR|SERVER_ERROR|RESET)/;
        $stats{$1} = $2 if $line =~ /^(?:STAT|ITEM) (\S+)\s+([^\r\n]+)/;
    }
    return \%stats;
}

# answer reads what a get or gets prints for one key whose value is one line.
sub answer {
    my $sock = shift;
    my $text = <$sock> // "";
    $text .= (<$sock> // "") . (<$sock> // "") if $text =~ /^VALUE/;
    return $text;
}

# socket_and_flags takes what a caller names first: a connection, or a map with one in sock
# and the flags that it expects.
sub socket_and_flags {
    my $first = shift;
    return ref $first eq "HASH" ? ($first->{sock}, $first->{flags} || 0) : ($first, 0);
}

# mem_get_is is one subtest: the value of a key, or undef for a miss.
sub mem_get_is {
    my ($first, $key, $want, $name) = @_;
    my ($sock, $flags) = socket_and_flags($first);
    $name ||= "$key == " . (defined $want ? "'$want'" : "<undef>");
    print $sock "get $key\r\n";
    my $text = defined $want ? "VALUE $key $flags " . length($want) . "\r\n$want\r\nEND\r\n" : "END\r\n";
    Test::More::is(answer($sock), $text, $name);
}

# mem_gets_is is one subtest: the value of a key with its cas unique.
sub mem_gets_is {
    my ($first, $unique, $key, $want, $name) = @_;
    my ($sock, $flags) = socket_and_flags($first);
    $name ||= "$key == " . (defined $want ? "'$want'" : "<undef>");
    print $sock "gets $key\r\n";
    my $text = defined $want
        ? "VALUE $key $flags " . length($want) . " $unique\r\n$want\r\nEND\r\n" : "END\r\n";
    Test::More::is(answer($sock), $text, $name);
}

# mem_gets returns the cas unique and the value of a key, or NOT_FOUND.
sub mem_gets {
    my ($first, $key) = @_;
    my ($sock) = socket_and_flags($first);
    print $sock "gets $key\r\n";
    my $line = <$sock> // "";
    return "NOT_FOUND" unless $line =~ /^VALUE (?:.*) (\d+) (\d+) (\d+)/;
    my ($length, $unique) = ($2, $3);
    read $sock, my $value, $length;
    <$sock> for 1 .. 2;    # the end of the value's line, and END
    return ($unique, $value);
}

# The server that runs already. Nothing ends it.
package Memcached::Handle;

sub new { my ($class, $conn) = @_; return bless { conn => $conn }, $class }
sub host { (MemcachedTest::address() =~ /^(.*):\d+$/)[0] }
sub port { (MemcachedTest::address() =~ /:(\d+)$/)[0] }
sub stop { }
sub graceful_stop { }
sub is_running { 1 }

# sock returns the first connection, or another one once that is closed.
sub sock {
    my $self = shift;
    return $self->{conn} if $self->{conn} && getpeername($self->{conn});
    return $self->new_sock;
}

sub new_sock { return MemcachedTest::dial() }
sub udpport { Carp::croak("there is no UDP") }
sub new_udp_sock { Carp::croak("there is no UDP") }

1;
