package memcached

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// client is a client of memcached that a row of docs/MEMCACHED.md is about, and a program that does what
// it can do. A program ends with another status than 0, and says why, if an answer is not memcached's.
type client struct {
	name    string
	has     []string // a command that succeeds if the client is there
	install string
	run     []string // in testdata/clients; the server's address comes behind it
}

const (
	nodeFolder = "npm ci in checks/memcached/testdata/clients/node"
	spyJar     = "/usr/share/java/spymemcached.jar"
)

var clients = []client{
	{"php-memcached", []string{"php", "-r", "new Memcached;"}, "the Debian packages php-cli and php-memcached",
		[]string{"php", "memcached.php"}},
	{"php-memcache", []string{"php", "-r", "new Memcache;"}, "the Debian packages php-cli and php-memcache",
		[]string{"php", "memcache.php"}},
	{"dalli", []string{"ruby", "-e", `require "dalli"; exit Gem::Version.new(Dalli::VERSION) >= Gem::Version.new("3.2")`},
		"ruby and dalli 3.2 or later, which Debian 12 does not have: RUBYLIB may name its lib folder",
		[]string{"ruby", "dalli.rb"}},
	{"memcached for Node", []string{"test", "-d", "node/node_modules/memcached"}, nodeFolder,
		[]string{"node", "node/memcached.cjs"}},
	{"memcache for Node", []string{"test", "-d", "node/node_modules/memcache"}, nodeFolder,
		[]string{"node", "node/memcache.mjs"}},
	{"memcache-client for Node", []string{"test", "-d", "node/node_modules/memcache-client"}, nodeFolder,
		[]string{"node", "node/memcache-client.cjs"}},
	{"pylibmc", []string{python, "-c", "import pylibmc"}, "the Debian package python3-pylibmc",
		[]string{python, "pylibmc_client.py"}},
	{"python-memcached", []string{python, "-c", "import memcache"}, "the Debian package python3-memcache",
		[]string{python, "memcache_client.py"}},
	{"Cache::Memcached", []string{"perl", "-MCache::Memcached", "-e1"}, "the Debian package libcache-memcached-perl",
		[]string{"perl", "cache_memcached.pl", "Cache::Memcached"}},
	{"Cache::Memcached::Fast", []string{"perl", "-MCache::Memcached::Fast", "-e1"},
		"the Debian package libcache-memcached-fast-perl", []string{"perl", "cache_memcached.pl", "Cache::Memcached::Fast"}},
	{"Memcached::libmemcached", []string{"perl", "-MMemcached::libmemcached", "-e1"},
		"the Debian package libmemcached-libmemcached-perl", []string{"perl", "libmemcached.pl"}},
	{"spymemcached", []string{"test", "-e", spyJar}, "the Debian packages libspymemcached-java and default-jdk-headless",
		[]string{"java", "-cp", spyJar, "Spy.java"}},
}

// inClients returns a command that runs where the programs are.
func inClients(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = filepath.Join("testdata", "clients")
	return cmd
}

// TestLengthyClients lets clients of other languages do what they can do. gomemcache, pymemcache and
// libmemcached's tools have tests of their own.
func TestLengthyClients(t *testing.T) {
	testenv.Takes(t, 20*time.Second)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			if inClients(c.has...).Run() != nil {
				t.Skipf("install %s", c.install)
			}
			if out, err := inClients(append(c.run, oneServer(t))...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestLengthySessions opens sessions of PHP. They need the one setting.
func TestLengthySessions(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	if inClients("php", "-r", "new Memcached;").Run() != nil {
		t.Skip("install the Debian packages php-cli and php-memcached")
	}
	address := oneServer(t)
	count := func(binary string) string {
		out, _ := inClients("php", "-d", "display_errors=0", "-d", "session.save_handler=memcached", "-d",
			"session.save_path="+address, "-d", "memcached.sess_binary_protocol="+binary, "sessions.php").Output()
		return string(out)
	}
	for _, want := range []string{"1", "2"} {
		if got := count("0"); got != want {
			t.Errorf("the session counts %q, want %s", got, want)
		}
	}
	if got := count("1"); *targetName == "sidecars" && got != "" {
		t.Errorf("a session over the binary protocol counts %q", got)
	}
}

// TestLengthyBinaryClient lets a client try that has the binary protocol alone: it stores nothing.
func TestLengthyBinaryClient(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	if inClients("test", "-d", "node/node_modules/memjs").Run() != nil {
		t.Skip("install " + nodeFolder)
	}
	out, err := inClients("node", "node/memjs.cjs", oneServer(t)).CombinedOutput()
	if stored := strings.Contains(string(out), "stored"); stored != (*targetName == "memcached") {
		t.Errorf("memjs: %v, %q", err, out)
	}
}
