package memcached

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// peerSuite is the own test suite of a client of memcached. README.md lists them.
type peerSuite struct {
	name    string
	source  func(t *testing.T, s *peerSuite) string // its folder
	debian  string                                  // the source package, if Debian has it
	has     string                                  // a command of the shell that succeeds if it can be run
	install string
	// prepare leaves out what cannot apply: commands of the shell, in a copy of the source.
	prepare string
	run     string // the same; the server is at 127.0.0.1:$PORT, which stands in the place of 11211
	results *regexp.Regexp
	least   int // how many tests pass with memcached, or else something else is wrong
}

// What test runners print of a test: its name, and good if it has passed.
var (
	tapLine    = regexp.MustCompile(`^(?:(?P<good>ok)|not ok) \d+(?P<name>.*)$`)
	pytestLine = regexp.MustCompile(`^(?:(?P<good>PASSED)|FAILED|ERROR) (?P<name>\S+)`)
	goLine     = regexp.MustCompile(`^\s*--- (?:(?P<good>PASS)|FAIL): (?P<name>\S+)`)
	phpLine    = regexp.MustCompile(`^(?:(?P<good>PASS)|FAIL) .*\[(?P<name>tests/\S+)\]`)
	djangoLine = regexp.MustCompile(`^(?P<name>test\w* \([\w.]+\)).* \.\.\. (?:(?P<good>ok)|FAIL|ERROR)$`)
)

// perl runs all files of Perl's tests, each under its name.
const perlFiles = `for f in t/*.t; do echo "## $f"; perl -It "$f"; done`

// djangoSettings are those of Django's tests of its backends for memcached.
const djangoSettings = `
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3"}, "other": {"ENGINE": "django.db.backends.sqlite3"}}
SECRET_KEY = "x"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
CACHES = {name: {"BACKEND": "django.core.cache.backends.memcached." + backend, "LOCATION": "127.0.0.1:11211"}
    for name, backend in [("default", "PyMemcacheCache"), ("lib", "PyLibMCCache"), ("old", "MemcachedCache")]}
`

var peerSuites = []peerSuite{
	{
		name: "pymemcache", source: fromDebian, debian: "python-pymemcache", results: pytestLine, least: 500,
		has:     python + ` -c "import pytest, mock"`,
		install: "the Debian packages python3-pytest, python3-mock and python3-gevent",
		prepare: "rm pymemcache/test/test_benchmark.py",
		run:     python + ` -m pytest -q -rA -c /dev/null --rootdir . --server=127.0.0.1 --port=$PORT pymemcache/test`,
	},
	{
		name: "pylibmc", source: fromDebian, debian: "pylibmc", results: pytestLine, least: 35,
		has:     python + ` -c "import pytest, pylibmc"`,
		install: "the Debian packages python3-pytest and python3-pylibmc",
		prepare: "rm -r src/pylibmc && sed -i s/binary=True/binary=False/ tests/*.py",
		run:     `MEMCACHED_PORT=$PORT ` + python + ` -m pytest -q -rA tests`,
	},
	{
		name: "Django's cache", source: fromDebian, debian: "python-django", results: djangoLine, least: 140,
		has:     python + ` -c "import django, pymemcache, pylibmc, memcache"`,
		install: "the Debian packages python3-django, python3-pymemcache, python3-pylibmc and python3-memcache",
		prepare: "printf '%s' '" + djangoSettings + "' >tests/ours.py",
		run: `cd tests && PYTHONPATH=.. ` + python + ` runtests.py cache --settings=ours -v 2 --parallel 1 ` +
			`-k Memcache -k PyLibMC`,
	},
	{
		name: "php-memcached", source: fromDebian, debian: "php-memcached", results: phpLine, least: 100,
		has:     `php -r "new Memcached;" && ls /usr/lib/php/*/build/run-tests.php`,
		install: "the Debian packages php-memcached and php-dev",
		prepare: `find tests -type f | xargs sed -i -E "s/(OPT_BINARY_PROTOCOL *(=>|,) *)true/\1false/I"`,
		run: `php /usr/lib/php/*/build/run-tests.php -q -p "$(which php)" -d memcached.sess_binary_protocol=0 tests` +
			` | tr '\r' '\n' | sed 's/\x1b\[[0-9;]*m//g'`,
	},
	{
		name: "Cache::Memcached", source: fromDebian, debian: "libcache-memcached-perl", results: tapLine, least: 60,
		has: "perl -MCache::Memcached -e1", install: "the Debian package libcache-memcached-perl", run: perlFiles,
	},
	{
		name: "Cache::Memcached::Fast", source: fromDebian, debian: "libcache-memcached-fast-perl", results: tapLine,
		has: "perl -MCache::Memcached::Fast -MTest2::V0 -e1", least: 120, run: perlFiles,
		install: "the Debian packages libcache-memcached-fast-perl and libtest2-suite-perl",
	},
	{
		name: "Memcached::libmemcached", source: fromDebian, debian: "libmemcached-libmemcached-perl", results: tapLine,
		has: "perl -MMemcached::libmemcached -e1", install: "the Debian package libmemcached-libmemcached-perl",
		prepare: "rm t/12-set-get-binary.t", least: 200,
		run: `export PERL_MEMCACHED_TEST_SERVERS=127.0.0.1:$PORT; ` + perlFiles,
	},
	{
		name: "memcached for Node", source: fromNode, results: tapLine, least: 30,
		has: "test -d " + peerNode + "/mocha", install: nodeFolder,
		prepare: "rm test/memcached-connections.test.js && ln -s " + peerNode + " node_modules",
		run:     "MEMCACHED__HOST=127.0.0.1 node_modules/.bin/mocha -r should --reporter tap --exit test/*.test.js",
	},
	{
		name: "gomemcache", source: fromModule, results: goLine, least: 5, has: "true",
		prepare: "chmod -R u+w .", run: "go test -count=1 -v ./memcache",
	},
}

// TestLengthySuites runs the own test suites of clients against memcached and against a sidecar: what
// passes with memcached passes with the sidecar. PEERS_SUITES may name a folder that has the sources, by
// the names of their Debian packages.
func TestLengthySuites(t *testing.T) {
	testenv.Takes(t, 5*time.Minute)
	for i := range peerSuites {
		s := &peerSuites[i]
		t.Run(s.name, func(t *testing.T) {
			if exec.Command("sh", "-c", s.has).Run() != nil {
				t.Skipf("install %s", s.install)
			}
			folder := s.source(t, s)
			theirs, _ := s.outcomes(t, folder, (&realMemcached{}).Start(t, 1)[0])
			ours, printed := s.outcomes(t, folder, (&sidecarTarget{}).Start(t, 1)[0])
			maps.DeleteFunc(theirs, func(_ string, passed bool) bool { return !passed })
			if t.Logf("%d tests pass with memcached", len(theirs)); len(theirs) < s.least {
				t.Errorf("only %d tests pass with memcached, want %d and more", len(theirs), s.least)
			}
			passes := func(name string, _ bool) bool { return ours[name] }
			if maps.DeleteFunc(theirs, passes); len(theirs) > 0 { // some of the tests wait for times to pass: once more
				ours, printed = s.outcomes(t, folder, (&sidecarTarget{}).Start(t, 1)[0])
				maps.DeleteFunc(theirs, passes)
			}
			for _, name := range slices.Sorted(maps.Keys(theirs)) {
				t.Errorf("%s passes with memcached, and twice not with a sidecar", name)
			}
			if t.Failed() {
				t.Logf("with a sidecar:\n%s", printed)
			}
		})
	}
}

// outcomes runs a suite against a server, and returns which tests have passed, by name, and what it has
// printed.
func (s *peerSuite) outcomes(t *testing.T, source, address string) (passed map[string]bool, printed string) {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "suite")
	_, port, _ := net.SplitHostPort(address)
	for _, script := range []string{
		fmt.Sprintf("cp -rL '%s' '%s'", source, folder),
		"cd '" + folder + "' && chmod -R u+w . && " + s.prepare,
		"cd '" + folder + "' && grep -rlI 11211 . | xargs -r sed -i s/11211/" + port + "/g",
	} {
		if out, err := exec.Command("sh", "-c", strings.TrimSuffix(script, " && ")).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	cmd := exec.Command("sh", "-c", s.run)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), "PORT="+port)
	out, _ := cmd.CombinedOutput() // some tests fail with memcached too
	return s.parse(strings.ReplaceAll(string(out), port, "PORT")), string(out)
}

// parse reads what a suite has printed. A test that is named more than once has passed if it always has.
func (s *peerSuite) parse(text string) map[string]bool {
	passed, file, begun := map[string]bool{}, "", ""
	good, name := s.results.SubexpIndex("good"), s.results.SubexpIndex("name")
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if f, is := strings.CutPrefix(line, "## "); is {
			file = f + " "
			continue
		}
		if s.results == djangoLine { // a test that is described has its result on the next line
			if strings.HasPrefix(line, "test") && !strings.Contains(line, " ... ") {
				begun = line
				continue
			}
			line, begun = strings.TrimSpace(begun+" "+line), ""
		}
		m := s.results.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		key := file + m[name]
		if s.results == tapLine { // with its number: many have no name, or the same one
			key = file + strings.TrimPrefix(line, "not ")
		}
		before, known := passed[key]
		passed[key] = m[good] != "" && (before || !known)
	}
	return passed
}

// fromDebian returns the unpacked source of a Debian package. What has been fetched is kept.
func fromDebian(t *testing.T, s *peerSuite) string {
	t.Helper()
	if given := os.Getenv("PEERS_SUITES"); given != "" {
		if folder := filepath.Join(given, s.debian); exec.Command("test", "-d", folder).Run() == nil {
			return folder
		}
	}
	kept, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kept = filepath.Join(kept, "cachesidecar-suites", s.debian)
	if err := os.MkdirAll(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	archive := func() string {
		list, _ := filepath.Glob(filepath.Join(kept, "*.orig.tar.*"))
		return strings.Join(list, " ")
	}
	if archive() == "" {
		fetch := exec.Command("apt-get", "-qq", "-o", "Acquire::Retries=5", "source", "--download-only", "--tar-only", s.debian)
		fetch.Dir = kept
		if out, err := fetch.CombinedOutput(); err != nil {
			t.Skipf("apt-get has no source of %s: enable deb-src in /etc/apt and run apt-get update, or name a folder "+
				"with PEERS_SUITES: %v\n%s", s.debian, err, out)
		}
	}
	folder := t.TempDir()
	if out, err := exec.Command("tar", "xf", archive(), "--strip-components=1", "-C", folder).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", archive(), err, out)
	}
	return folder
}

// peerNode has the packages for Node.
var peerNode, _ = filepath.Abs("testdata/clients/node/node_modules")

func fromNode(*testing.T, *peerSuite) string { return filepath.Join(peerNode, "memcached") }

func fromModule(t *testing.T, _ *peerSuite) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bradfitz/gomemcache").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestPeerParse reads what each kind of runner prints.
func TestPeerParse(t *testing.T) {
	for _, test := range []struct {
		results    *regexp.Regexp
		text, want string
	}{
		{tapLine, "## t/a.t\n1..2\nok 1 - a\nnot ok 2 - b\n## t/b.t\nok 1 - a\nok 1 - a\nok 2\nnot ok 2\n",
			"map[t/a.t ok 1 - a:true t/a.t ok 2 - b:false t/b.t ok 1 - a:true t/b.t ok 2:false]"},
		{pytestLine, "PASSED a.py::test_a[x]\nFAILED a.py::test_b - why\nERROR a.py::test_c\n1 passed\n",
			"map[a.py::test_a[x]:true a.py::test_b:false a.py::test_c:false]"},
		{goLine, "=== RUN   TestA\n--- PASS: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\n--- SKIP: TestC (0.00s)\n",
			"map[TestA:true TestA/b:false]"},
		{phpLine, "PASS A name [tests/a.phpt] \nFAIL Another [tests/b.phpt] \nSKIP A third [tests/c.phpt] reason\n",
			"map[tests/a.phpt:true tests/b.phpt:false]"},
		{djangoLine, "test_a (cache.T.test_a) ... ok\ntest_b (cache.T.test_b)\nIt is described. ... ok\n" +
			"test_c (cache.T.test_c) ... FAIL\ntest_d (cache.T.test_d) ... skipped 'why'\n",
			"map[test_a (cache.T.test_a):true test_b (cache.T.test_b):true test_c (cache.T.test_c):false]"},
	} {
		s := peerSuite{results: test.results}
		if got := fmt.Sprint(s.parse(test.text)); got != test.want {
			t.Errorf("%q:\n got %s\nwant %s", test.text, got, test.want)
		}
	}
}
