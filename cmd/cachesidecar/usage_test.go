package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestUsageErrors(t *testing.T) {
	// A line that passes the check ends with 3.
	t.Setenv("CACHESIDECAR_SOCKET", filepath.Join(tempDir(t), "absent"))
	for _, tc := range []struct {
		name, line, want string
	}{
		{"nothing", "", "no command given"},
		{"unknown command", "gets k", `there is no command "gets": did you mean "get"? See "cachesidecar help"`},
		{"command like no other", "xyzzy", `there is no command "xyzzy": see "cachesidecar help"`},
		{"unknown command with a flag", "gets --json k", `there is no command "gets"`},
		{"empty command", "\x00", `there is no command ""`},
		{"flag before the command", "--socket x get k", "not defined: -socket: flags stand behind the command"},
		{"flag of another command", "get k --add", "get: flag provided but not defined: -add: "},
		{"unknown flag", "get k --bogus", `get: flag provided but not defined: -bogus: see "cachesidecar get --help"`},
		{"version before a command", "--version flush", `--version before`},
		{"its short form", "-v get k", `--version before "get": it stands alone`},
		{"misspelt flag", "set k v --replce", `not defined: -replce: did you mean --replace? See "cachesidecar set --help"`},
		{"misspelt subcommand", "config chek f", `there is no command "config chek": did you mean "check"? See "cachesidecar help config"`},
		{"unknown flag with a value", "get --bogus=1 k", "not defined: -bogus"},
		{"three dashes", "get ---json k", "bad flag syntax: ---json"},
		{"no subcommand", "config", "config: no command given"},
		{"unknown subcommand", "config verify", `there is no command "config verify"`},
		{"flag of a subcommand", "config check --ns f", "check: flag provided but not defined: -ns"},
		{"help for nothing", "help gets", `there is no command "gets": did you mean "get"?`},
		{"value missing at the end", "get k --ns", "flag needs an argument: -ns"},
		{"value missing after an argument with dashes", "get k --timeout", "flag needs an argument: -timeout"},
		{"timeout is no time", "get k --timeout soon", `--timeout "soon": time "soon": give a time such as`},
		{"timeout without a unit", "get k --timeout 5", `: time "5": give a time such as`},
		{"timeout of zero", "get k --timeout 0s", `--timeout "0s": give 1ms to 365d`},
		{"negative timeout", "get k --timeout -1s", `--timeout "-1s": give 1ms to 365d`},
		{"bench: negative timeout", "bench --timeout -1s", `--timeout "-1s": give 1ms to 365d`},
		{"no bool", "get k --json=perhaps", `--json "perhaps": give true, false or nothing`},
		{"ttl is no time", "set k v --ttl soon", `: time "soon": give a time such as`},
		{"ttl is empty", "set k v --ttl=", `: time "": give a time such as`},
		{"negative ttl", "set k v --ttl -1s", `--ttl "-1s": give 0s to 365d`},
		{"ttl above a year", "set k v --ttl 8761h", `--ttl "8761h": give 0s to 365d`},
		{"touch: ttl", "touch k --ttl x", `--ttl "x": time`},
		{"incr: ttl", "incr k --ttl x", `--ttl "x": time`},
		{"lag is no time", "del k --replica-lag soon", `: time "soon": give a time such as 500ms`},
		{"lag of nothing", "del k --replica-lag 0s", `--replica-lag "0s": give 1ms to 365d`},
		{"ack", "set k v --ack some", `--ack "some": give owner or all`},
		{"flags are no number", "set k v --flags x", `--flags "x"`},
		{"negative flags", "set k v --flags -1", `--flags "-1"`},
		{"flags too high", "set k v --flags 4294967296", "--flags 4294967296: give a number below 2^32"},
		{"cas is no number", "set k v --cas x", `--cas "x"`},
		{"add and replace", "set k v --add --replace", "--add, --replace and --cas: give one of them"},
		{"add and cas", "set k v --add --cas 1", "--add, --replace and --cas: give one of them"},
		{"replace and cas of zero", "set k v --replace --cas 0", "--add, --replace and --cas: give one of them"},
		{"delta", "incr k five", `incr: "five" is no 64-bit number`},
		{"delta too large", "incr k 9223372036854775808", `"9223372036854775808" is no 64-bit number`},
		{"delta with a fraction", "incr k 1.5", `"1.5" is no 64-bit number`},
		{"initial", "incr k --initial x", `--initial "x" is no 64-bit number`},
		{"initial is empty", "incr k --initial=", `--initial "" is no 64-bit number`},
		{"flush without a terminal", "flush", "flush: stdin is no terminal on which to ask: give --yes to drop everything on every host of the cluster"},
		{"flush of this host without a terminal", "flush --this-host", "give --yes to drop everything on this host"},
		{"flush here and everywhere", "flush --yes --cluster --this-host", "flush: --cluster, --this-host: give one of them"},
		{"flush of a namespace without a terminal", "flush --ns a --cluster", "give --yes to drop namespace a on every host of the cluster"},
		{"ping: count", "ping --count 0", "--count 0: give 1 to 1000000"},
		{"ping: count above", "ping -c 1000001", "--count 1000001: give 1 to 1000000"},
		{"bench: conns", "bench --conns 0", "--conns 0: give 1 to 10000"},
		{"bench: conns is no number", "bench --conns many", `--conns "many"`},
		{"bench: pipeline", "bench --pipeline 1025", "--pipeline 1025: give 1 to 1024"},
		{"bench: keys", "bench --keys -1", "--keys -1: give 1 to 100000000"},
		{"bench: key size", "bench --key-size 15", "--key-size 15: give 16 to 1024"},
		{"bench: size", "bench --size 1048577", "--size 1048577: give 0 to 1048576"},
		{"bench: no duration", "bench --duration 0s", `--duration "0s": give 1ms to 1h`},
		{"bench: long duration", "bench --duration 2h", `--duration "2h": give 1ms to 1h`},
		{"bench: would not end", "bench --pipeline 1024 --key-size 1024 --size 4000", "give --pipeline 60 or less"},
		{"bench: memory", "bench --size 1048576", "the requests take 1.0 GiB, at most 512 MiB"},
		{"warm: concurrency", "warm - --concurrency 0", "--concurrency 0: give 1 to 1024"},
		{"warm: concurrency is no number", "warm - --concurrency all", `--concurrency "all"`},
		{"warm: stop-after", "warm - --stop-after -1", "--stop-after -1: give 0 to 2147483647"},
		{"warm: rate", "warm - --rate 0", "--rate 0: give 0.001 to 1e9 keys a second"},
		{"warm: rate is no number", "warm - --rate 5/s", `--rate "5/s"`},
		{"warm: rate is not a number", "warm - --rate NaN", "--rate NaN: give 0.001"},
		{"warm: no list", "warm", "warm: 0 arguments are too few; it is used so: cachesidecar warm FILE|-"},
		{"run: size", "run --l2-size 5parsec", `size "5parsec": give a number and a unit`},
		{"run: negative size", "run --l1-size -5MiB", `size "-5MiB" is negative`},
		{"run: size out of bounds", "run --l2-size 1MiB", "l2_size 1.0 MiB: give 8.0 MiB to 256 GiB"},
		{"run: mode", "run --socket-mode 999", `mode "999": give octal permission bits`},
		{"run: namespaces", "run --max-namespaces x", `--max-namespaces: max_namespaces: give a number, not "x"`},
		{"run: namespaces out of bounds", "run --max-namespaces 257", "max_namespaces 257: give 1 to 256"},
		{"run: connections", "run --max-connections -1", "max_connections -1: give 1 to"},
		{"run: request timeout", "run --request-timeout 2h", "request_timeout 2h0m0s: give 1ms to 1h"},
		{"run: log format", "run --log-format xml", `log_format "xml": give text or json`},
		{"run: log level", "run --log-level loud", `log_level "loud": give debug, info, warn or error`},
		{"run: http", "run --http nowhere", `http "nowhere": give host:port`},
		{"run: http port", "run --http 127.0.0.1:99999", `http "127.0.0.1:99999": give host:port`},
		{"run: node", "run --node a\x00b", `node "a\x00b"`},
		{"run: bind beyond loopback", "run --bind 10.0.0.1:7946", "bind 10.0.0.1:7946 is not loopback, and without a cluster key nothing that passes between hosts is encrypted: give all hosts one cluster_key_file (\"cachesidecar key generate\" makes it), use a loopback address, or say insecure"},
		{"run: join beyond loopback", "run --join 127.0.0.1:7946,10.0.0.1:7946", "join 10.0.0.1:7946 is not loopback"},
		{"run: advertise beyond loopback", "run --bind 127.0.0.1:7946 --advertise 10.0.0.1", "advertise 10.0.0.1 is not loopback"},
		{"run: pprof beyond loopback", "run --http 0.0.0.0:7948 --pprof", "http 0.0.0.0:7948 is not loopback, and pprof shows this process's memory to every caller"},
		{"run: key file", "run --cluster-key-file /no/such", "cluster_key_file /no/such: no such file"},
		{"run: a part of tls", "run --cluster-key-file /no/such --tls-ca /r", "tls.cert is not given: tls.cert, tls.key and tls.ca belong together"},
		{"key: a path of nothing", "key generate --out=", `--out "": give a file's path`},
		{"key: arguments", "key generate file", "1 arguments are too many"},
		{"run: bind of all addresses", "run --bind 0.0.0.0:7946", "bind 0.0.0.0:7946 is not loopback"},
		{"run: peer-bind beyond loopback", "run --bind 127.0.0.1:7946 --peer-bind 10.0.0.1:7947", "peer_bind 10.0.0.1:7947 is not loopback"},
		{"run: bind without a port", "run --bind 127.0.0.1", `bind "127.0.0.1": give host:port, such as 127.0.0.1:7946`},
		{"run: bind with a port too high", "run --bind 127.0.0.1:65536", `bind "127.0.0.1:65536": give host:port`},
		{"run: bind to the last port", "run --bind 127.0.0.1:65535", "peer_bind"},
		{"run: bind off and join", "run --bind off --join 127.0.0.1:7946", "join is given and bind is off: leave one of them out"},
		{"run: join without a port", "run --join 10.0.0.1", `join "10.0.0.1": give host:port, such as 10.0.0.7:7946`},
		{"run: join of nothing", "run --join=", `join "": give host:port`},
		{"run: join without a host", "run --join :7946", `join ":7946": give host:port`},
		{"run: join with a gap", "run --join a:1,,b:1", `join "": give host:port`},
		{"run: advertise is a name", "run --join a:1 --advertise host-a", `advertise "host-a": give the IP address`},
		{"run: advertise of all addresses", "run --join a:1 --advertise 0.0.0.0", `advertise "0.0.0.0": give the IP address`},
		{"run: advertise with a port", "run --join a:1 --advertise 10.0.0.1:7946", `advertise "10.0.0.1:7946": give the IP address`},
		{"run: all addresses, none advertised", "run --bind 0.0.0.0:7946 --insecure", "bind 0.0.0.0:7946 is every address of this host, and others must know one: set advertise"},
		{"run: bind to a name", "run --bind host-a:7946 --insecure", `bind "host-a:7946": give an IP address of this host and a port`},
		{"run: weight", "run --weight x", `--weight: weight: give a number from 0 to 4294967295, not "x"`},
		{"run: weight too high", "run --weight 4294967296", `weight: give a number from 0 to 4294967295, not "4294967296"`},
		{"run: staleness", "run --max-staleness 100ms", "max_staleness 100ms: give 500ms to 1m0s"},
		{"run: skew", "run --max-clock-skew 0.1ms", "max_clock_skew 100µs: give 1ms to 1m"},
		{"run: cluster", "run --cluster " + strings.Repeat("x", 65), `give 1 to 64 bytes without blanks`},
		{"run: policy", "run --join a:1 --partition-policy some", `partition_policy "some": give available or consistent`},
		{"run: no voters", "run --join a:1 --partition-policy consistent", "there are no voters: give the names of 3 or 5 nodes"},
		{"run: voters alone", "run --join a:1 --voters a,b,c", "voters a,b,c: they count under partition_policy consistent alone"},
		{"run: no such file", "run --config /nowhere/c.yaml", "/nowhere/c.yaml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := strings.Fields(tc.line)
			if tc.line == "\x00" {
				args = []string{""}
			}
			o := command(t, "", args...)
			if o.status != exitUsage || !strings.Contains(o.err, tc.want) {
				t.Errorf("%q: %v\nwant status %d and %q", tc.line, o, exitUsage, tc.want)
			}
			ours := strings.HasPrefix(o.err, "cachesidecar: ") || strings.Contains(o.err, "\ncachesidecar: ") // after problems
			if o.out != "" || !ours || strings.Contains(o.err, "Incorrect Usage") {
				t.Errorf("%q: the message is not ours, or not on stderr alone: %v", tc.line, o)
			}
		})
	}
}

// TestUsageErrorsInEnvironment checks that mistakes in the environment are distinguished
// from those in flags.
func TestUsageErrorsInEnvironment(t *testing.T) {
	for _, tc := range []struct{ name, value, want string }{
		{"CACHESIDECAR_MAX_NAMESPACES", "x\"y\n", `$CACHESIDECAR_MAX_NAMESPACES: max_namespaces: give a number, not "x\"y\n"`},
		{"CACHESIDECAR_REQUEST_TIMEOUT", "5", `$CACHESIDECAR_REQUEST_TIMEOUT: request_timeout: give a time such as 30s, 2h or 7d, not "5"`},
		{"CACHESIDECAR_PPROF", "perhaps", `could not parse "perhaps" as bool value from environment variable "CACHESIDECAR_PPROF"`},
		{"CACHESIDECAR_L2_SIZE", "x", `$CACHESIDECAR_L2_SIZE: l2_size: size "x": give a number and a unit`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(tc.name, tc.value)
			if o := command(t, "", "run"); o.status != exitUsage || !strings.Contains(o.err, tc.want) {
				t.Errorf("%v\nwant status %d and %q", o, exitUsage, tc.want)
			}
		})
	}
}

// TestArgumentCounts checks that every command refuses too few and too many arguments.
func TestArgumentCounts(t *testing.T) {
	t.Setenv("CACHESIDECAR_SOCKET", filepath.Join(tempDir(t), "absent"))
	const any = -1
	counts := map[string]struct{ least, most int }{
		"run": {0, 0}, "get": {1, any}, "set": {2, 2}, "del": {1, any}, "touch": {1, any}, "incr": {1, 2}, "ttl": {1, any}, "ping": {0, 0},
		"stats": {0, 0}, "changes": {0, 0}, "changes sql": {1, 1}, "flush": {0, 0}, "members": {0, 0}, "members forget": {1, 1}, "ring": {1, 1}, "watch": {0, any}, "warm": {1, 1}, "verify": {0, 0}, "bench": {0, 0}, "health": {0, 0},
		"demo":         {0, 0},
		"config check": {1, 1}, "config show": {0, 0}, "key generate": {0, 0}, "completion": {1, 1}, "man": {0, 0}, "top": {0, 0}, "hot": {0, 0}, "keys": {0, 1}, "slow": {0, 0}, "drain": {0, 0}, "reload": {0, 0}, "version": {0, 0},
	}
	commands := allCommands()
	for name := range commands {
		want, ok := counts[name]
		if !ok {
			t.Errorf("%s is not in the table", name)
			continue
		}
		check := func(n int, complaint string) {
			line := append(strings.Fields(name), strings.Fields(strings.Repeat("1 ", n))...)
			o := command(t, "", line...)
			use := "it is used so: cachesidecar " + name
			if len(commands[name].Subcommands) > 0 { // the argument should be one of them
				complaint, use = "there is no command", "cachesidecar help "+name
			}
			if o.status != exitUsage || !strings.Contains(o.err, complaint) || !strings.Contains(o.err, use) {
				t.Errorf("%s with %d arguments: %v", name, n, o)
			}
		}
		if want.least > 0 {
			check(want.least-1, "too few")
		}
		if want.most != any {
			check(want.most+1, "too many")
		}
	}
	for name := range counts {
		if commands[name] == nil {
			t.Errorf("%s is in the table and does not exist", name)
		}
	}
}

func TestHelpGoesToStdout(t *testing.T) {
	for _, tc := range []struct{ line, want string }{
		{"version", "protocol"}, {"--version", "protocol"}, {"-v", "protocol"}, {"help", "--version, -v"}, {"help", "COMMANDS"}, {"--help", "COMMANDS"}, {"-h", "COMMANDS"}, {"h", "COMMANDS"},
		{"help get", "cachesidecar get"}, {"get --help", "cachesidecar get"}, {"get k -h", "cachesidecar get"},
		{"help config", "check"}, {"config --help", "check"}, {"config help check", "FILE"}, {"config check --help", "FILE"},
		{"run --help", "CACHESIDECAR_L2_SIZE"}, {"bench -h", "--pipeline"},
	} {
		if o := command(t, "", strings.Fields(tc.line)...); o.status != exitDone || o.err != "" || !strings.Contains(o.out, tc.want) {
			t.Errorf("%q: %v\nwant %q on stdout", tc.line, o, tc.want)
		}
	}
}

// TestEverythingHasHelp checks that every flag and every command has a description.
func TestEverythingHasHelp(t *testing.T) {
	var check func(c *cli.Command)
	check = func(c *cli.Command) {
		if c.Usage == "" {
			t.Errorf("%s has no usage", c.Name)
		}
		for _, f := range c.Flags {
			if d, ok := f.(cli.DocGenerationFlag); !ok || d.GetUsage() == "" {
				t.Errorf("%s --%s has no usage", c.Name, f.Names()[0])
			}
		}
		for _, sub := range c.Subcommands {
			check(sub)
		}
	}
	for _, c := range (&program{}).app().Commands {
		check(c)
	}
}

// TestSuggestions checks what is suggested for words that name no command or flag.
func TestSuggestions(t *testing.T) {
	for _, tc := range []struct{ line, want string }{
		{"hepl", `there is no command "hepl": did you mean "help"? See "cachesidecar help"`},
		{"gest k", `did you mean "get"?`},
		{"GET k", `did you mean "get"?`},
		{"mgett k", `did you mean "mget"?`},
		{"delte k", `did you mean "delete"?`},
		{"flushall", `did you mean "flush"?`},
		{"tll k", `did you mean "ttl"?`},
		{"xyzzy", `there is no command "xyzzy": see "cachesidecar help"`},
		{"nosuch", `there is no command "nosuch": see "cachesidecar help"`},
		{"ehalth", `did you mean "health"?`},
		{"help xyzzy", `there is no command "xyzzy": see`},
		{"config info", `there is no command "config info": see "cachesidecar help config"`},
		{"config chekc f", `there is no command "config chekc": did you mean "check"? See "cachesidecar help config"`},
		{"help config chek", `there is no command "config chek": did you mean "check"?`},
		{"config help chek", `there is no command "config chek": did you mean "check"?`},
		{"config h chek", `there is no command "config chek": did you mean "check"?`},
		{"members forgt b", `there is no command "members forgt": did you mean "forget"? See "cachesidecar help members"`},
		{"get k --namespace x", "not defined: -namespace: did you mean --ns?"},
		{"flush --yess", "not defined: -yess: did you mean --yes?"},
		{"get k -x", `not defined: -x: see "cachesidecar get --help"`},
		{"members forget b --jsn", `not defined: -jsn: see "cachesidecar members forget --help"`},
	} {
		if o := command(t, "", strings.Fields(tc.line)...); o.status != exitUsage || !strings.Contains(o.err, tc.want) || o.out != "" {
			t.Errorf("%s: %v\nwant status %d and %q", tc.line, o, exitUsage, tc.want)
		}
	}
}

// TestEmptySettings checks that an empty flag is no default.
func TestEmptySettings(t *testing.T) {
	for _, flag := range []string{"--l2-size=", "--max-connections=", "--request-timeout=", "--weight=null"} {
		if o := command(t, "", "run", flag); o.status != exitUsage {
			t.Errorf("%s: %v", flag, o)
		}
	}
}
