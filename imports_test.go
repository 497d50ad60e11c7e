package cachesidecar

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

const module = "github.com/cachesidecar/cachesidecar"

// inTable are the folders of the modules whose packages are in the table.
var inTable = []string{".", "clients/conformance"}

// allowed lists each package with the packages of ours that it may import, lowest
// floor first: all of them stand above it here. A package that is missing here has no place
// in its module. An import that is missing here points the wrong way.
var allowed = []struct {
	pkg     string
	imports []string
}{
	// Floor 0: nouns and bytes.
	{"internal/kv", nil},
	{".", nil}, // package cachesidecar: the words that client and sidecar share
	{"internal/wire", []string{"internal/kv"}},
	{"internal/failpoint", nil},
	{"internal/quota", []string{".", "internal/wire"}},
	{"internal/settings", nil},
	{"internal/sched", nil},
	{"internal/testing/race", nil},
	{"internal/testing/testenv", []string{"internal/testing/race"}},
	{"internal/testing/pty", []string{"internal/testing/testenv"}},
	{"internal/testing/clocks", nil},
	{"internal/testing/polled", nil},
	{"internal/testing/gossiptest", nil},
	{"internal/logs", []string{"."}},
	{"internal/table", []string{"internal/logs"}},
	{"internal/verify", []string{".", "internal/kv", "internal/wire"}},      // and nothing of what it judges
	{"internal/testing/history", nil},                                       // nor this
	{"internal/testing/checkhistory", []string{"internal/testing/history"}}, // judges the soaks of the clients
	{"internal/testing/linear", []string{"internal/testing/history"}},
	// Floor 1: one duty each.
	{"internal/transport", []string{"internal/quota", "internal/sched"}},
	{"internal/rpc", []string{"internal/quota", "internal/sched", "internal/transport", "internal/wire"}},
	{"internal/rpc/server", []string{".", "internal/quota", "internal/sched", "internal/transport", "internal/wire"}},
	{"internal/inspect", []string{"internal/kv"}},
	{"internal/shm", []string{"internal/kv"}},
	{"clients/c", nil}, // a header, and its tests
	{"l1", []string{".", "internal/kv"}},
	{"invalidation", []string{"internal/kv", "internal/failpoint", "internal/wire"}},
	{"gossip", []string{"."}},
	{"l2/ownership", []string{"internal/kv", "internal/failpoint", "internal/wire"}},
	{"l2/segment", []string{".", "internal/failpoint", "internal/kv"}},
	{"internal/load", []string{"internal/wire"}},
	{"internal/testing/attacks", nil}, // only tests, of the command
	{"internal/testing/simnet", nil},
	{"internal/testing/bubble", []string{"internal/testing/race"}},
	{"internal/testing/proctest", nil},
	{"internal/testing/mutants", nil},  // a program
	{"internal/testing/weigh", nil},    // a program
	{"internal/testing/contents", nil}, // a program
	{"internal/testing/peertest", nil},
	{"loader", []string{"internal/kv", "internal/settings", "internal/inspect", "internal/quota"}},
	{"internal/flight", []string{".", "internal/kv", "loader"}},
	{"internal/keyfilter", []string{".", "internal/kv", "loader"}},
	// Floor 2: the edges.
	{"internal/testing/origintest", []string{"internal/testing/testenv", "loader"}},
	{"internal/testing/memcachedtest", []string{"internal/testing/origintest", "internal/testing/testenv"}},
	{"loader/httporigin", []string{"internal/settings", "loader"}},
	{"loader/postgres", []string{"internal/kv", "internal/settings", "loader"}},
	{"loader/redisorigin", []string{"internal/kv", "internal/settings", "loader"}},
	{"loader/memcached", []string{"internal/settings", "loader"}},
	{"loader/execorigin", []string{"internal/settings", "loader"}},
	{"internal/peer", []string{".", "internal/kv", "internal/quota", "internal/rpc", "internal/rpc/server", "internal/settings", "internal/transport", "internal/wire"}},
	{"internal/cluster", []string{".", "gossip", "internal/kv", "internal/peer", "internal/quota", "internal/rpc", "internal/rpc/server", "internal/failpoint", "internal/sched", "internal/settings", "internal/transport", "internal/wire", "invalidation", "l2/ownership"}},
	{"unixsock", nil},
	{"internal/access", []string{".", "internal/kv", "internal/settings", "internal/wire", "unixsock"}},
	{"internal/calls", []string{".", "internal/kv", "internal/wire"}},
	{"client", []string{".", "internal/calls", "internal/kv", "internal/rpc", "internal/settings", "internal/shm", "internal/transport", "internal/wire", "invalidation", "unixsock"}},
	{"clients/conformance", []string{".", "client", "internal/kv", "internal/wire"}},
	{"internal/origin", []string{".", "internal/keyfilter", "internal/settings", "loader"}},
	{"internal/namespaces", []string{".", "internal/failpoint", "internal/flight", "internal/inspect", "internal/keyfilter", "internal/kv", "internal/origin", "internal/quota", "internal/shm", "internal/wire", "invalidation", "l2/segment", "loader"}},
	{"internal/handoff", []string{".", "internal/cluster", "internal/kv", "internal/namespaces", "internal/peer", "internal/failpoint", "internal/wire", "invalidation", "l2/ownership", "l2/segment"}},
	{"internal/engine", []string{".", "internal/access", "internal/calls", "internal/cluster", "internal/failpoint", "internal/flight", "internal/handoff", "internal/inspect", "internal/kv", "internal/namespaces", "internal/origin", "internal/peer", "internal/quota", "internal/rpc", "internal/rpc/server", "internal/shm", "internal/transport", "internal/verify", "internal/wire", "invalidation", "l1", "l2/ownership", "l2/segment", "loader"}},
	{"internal/changes", []string{".", "internal/failpoint", "internal/kv", "loader"}},
	{"internal/testing/onehost", []string{"internal/access", "internal/cluster", "internal/engine", "internal/kv", "internal/namespaces", "internal/quota", "internal/testing/testenv", "internal/wire", "loader"}},
	{"internal/session", []string{".", "internal/access", "internal/engine", "internal/kv", "internal/namespaces", "internal/peer", "internal/quota", "internal/rpc", "internal/rpc/server", "internal/inspect", "internal/transport", "internal/verify", "internal/wire", "unixsock"}},
	{"internal/memcached", []string{".", "internal/namespaces", "internal/quota", "internal/rpc/server", "internal/session", "internal/transport", "internal/wire", "unixsock"}},
	{"internal/testing/doors", []string{".", "internal/access", "internal/testing/bubble", "internal/kv", "internal/memcached", "internal/namespaces", "internal/quota", "internal/rpc/server", "internal/session", "internal/testing/simnet", "internal/testing/memcachedtest", "internal/testing/onehost", "internal/testing/testenv", "internal/wire", "unixsock"}},
	{"internal/telemetry", []string{".", "internal/access", "internal/cluster", "internal/engine", "internal/kv", "internal/logs", "internal/namespaces", "internal/peer", "internal/rpc/server", "internal/wire"}},
	{"internal/httpd", []string{".", "internal/logs", "internal/quota", "internal/rpc/server", "internal/settings", "internal/telemetry", "internal/transport"}},
	// Floor 3: the composition root.
	{"internal/testhook", []string{"internal/cluster", "internal/engine", "internal/kv", "internal/peer", "internal/rpc/server", "internal/session", "internal/telemetry", "internal/wire"}},
	{"sidecar", []string{".", "internal/access", "internal/calls", "internal/changes", "internal/cluster", "internal/engine", "internal/httpd", "internal/testhook", "internal/keyfilter", "internal/kv", "internal/logs", "internal/memcached", "internal/namespaces", "internal/origin", "internal/peer", "internal/quota", "internal/rpc/server", "internal/session", "internal/settings", "internal/shm", "internal/telemetry", "internal/transport", "internal/verify", "internal/wire", "loader", "unixsock"}},
	{"internal/testing/faults", nil},
	{"internal/testing/hosts", nil}, // only tests
	// Floor 4: the command.
	{"internal/configfile", []string{"internal/logs", "internal/settings", "loader", "loader/execorigin", "loader/httporigin", "loader/memcached", "loader/postgres", "loader/redisorigin", "sidecar"}},
	{"internal/top", []string{".", "client", "internal/logs", "internal/table", "internal/telemetry"}},
	{"cmd/cachesidecar", []string{".", "client", "internal/configfile", "internal/kv", "internal/load", "internal/logs", "internal/peer", "internal/rpc/server", "internal/sched", "internal/settings", "internal/table", "internal/telemetry", "internal/top", "internal/wire", "sidecar", "unixsock"}},
}

// forbidden lists packages of the standard library that a package must not import,
// because pure packages do no I/O.
var forbidden = map[string][]string{
	"internal/wire":   {"net", "os", "time"},
	"internal/verify": {"net", "os"},
	"l2/segment":      {"net"},
}

func TestImports(t *testing.T) {
	var out []byte
	for _, folder := range inTable {
		cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
		cmd.Dir, cmd.Stderr = folder, os.Stderr
		list, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list in %s: %v", folder, err)
		}
		out = append(out, list...)
	}
	seen := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := rel(p.ImportPath)
		at := slices.IndexFunc(allowed, func(a struct {
			pkg     string
			imports []string
		}) bool {
			return a.pkg == name
		})
		if at < 0 {
			t.Errorf("%s is not in the table: give it a floor, or another home", name)
			continue
		}
		seen[name] = true
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, module) && !slices.Contains(allowed[at].imports, rel(imp)) {
				t.Errorf("%s must not import %s", name, rel(imp))
			}
			if slices.Contains(forbidden[name], imp) {
				t.Errorf("%s must not import %s", name, imp)
			}
		}
	}
	above := map[string]bool{}
	for _, a := range allowed {
		if !seen[a.pkg] {
			t.Errorf("%s is in the table and does not exist", a.pkg)
		}
		for _, imp := range a.imports {
			if !above[imp] {
				t.Errorf("%s may import %s, which does not stand above it", a.pkg, imp)
			}
			if strings.HasPrefix(imp, "internal/testing/") && !strings.HasPrefix(a.pkg, "internal/testing/") {
				t.Errorf("%s may import %s, which is for tests", a.pkg, imp)
			}
		}
		above[a.pkg] = true
	}
}

// TestNamesOfLongTests checks that every test named TestLengthy… is left out of go test ./... unless
// LONG_TESTS asks for it.
func TestNamesOfLongTests(t *testing.T) {
	function := regexp.MustCompile(`(?sm)^func (Test\w*)\(t \*testing\.T\) \{\n(.*?)^\}`)
	takes, found := regexp.MustCompile(`(testenv\.Takes|scenario)\(\w+, `), 0
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if !strings.HasSuffix(path, "_test.go") || err != nil {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range function.FindAllSubmatch(src, -1) {
			if !strings.HasPrefix(string(m[1]), "TestLengthy") {
				continue
			}
			if found++; !takes.Match(m[2]) {
				t.Errorf("%s: %s does not call testenv.Takes", path, m[1])
			}
		}
		return err
	})
	if err != nil || found < 50 {
		t.Errorf("%d long tests: %v", found, err)
	}
}

// TestBubbles checks that package bubble begins all tests in virtual time.
func TestBubbles(t *testing.T) {
	begins, found := regexp.MustCompile(`(synctest|bubble)\.Test\(\w+, `), 0
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) != ".go" || err != nil {
			return err
		}
		src, err := os.ReadFile(path)
		for i, line := range strings.Split(string(src), "\n") {
			switch m := begins.FindStringSubmatch(line); {
			case m == nil:
			case m[1] == "bubble":
				found++
			case filepath.Dir(path) != "internal/testing/bubble":
				t.Errorf("%s:%d calls synctest.Test: use bubble.Test", path, i+1)
			}
		}
		return err
	})
	if err != nil || found < 100 {
		t.Errorf("%d calls of bubble.Test: %v", found, err)
	}
}

// TestArchitectureTable checks that the table of ARCHITECTURE.md has the same order, turned
// over, and that the page names every package.
func TestArchitectureTable(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	testenv.Must(t, err)
	rows := map[string]int{}
	for i, m := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(string(text), -1) {
		rows[m[1]] = i
	}
	row := func(pkg string) (int, bool) {
		if strings.HasPrefix(pkg, "loader/") {
			pkg = "loader"
		}
		i, ok := rows[pkg]
		return i, ok
	}
	for _, a := range allowed {
		at, ok := row(a.pkg)
		short := strings.TrimPrefix(strings.TrimPrefix(a.pkg, "internal/"), "testing/")
		if !ok && !strings.Contains(string(text), "`"+short+"`") &&
			!strings.Contains(string(text), "`"+a.pkg+"`") {
			t.Errorf("the page does not name %s", a.pkg)
		}
		for _, imp := range a.imports {
			if below, has := row(imp); ok && has && below < at {
				t.Errorf("%s imports %s, which has a row above it", a.pkg, imp)
			}
		}
	}
}

// rel returns the path of a package of this module below the module's root, which is ".".
func rel(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}
