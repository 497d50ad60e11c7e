package record

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rounds")
	want := File{
		Head: Head{
			What: Idle, Command: "go run ./cmd/bench idle", Commit: "abc+", Date: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
			Machine: Machine{CPU: "a <fast> one", Cores: 2}, Versions: map[string]string{"go": "1.26"},
		},
		Parameters: Parameters{Keys: 7, Rounds: 2, Conns: 10},
	}
	want.Rows.Add("10 idle connections", Sidecar, "KiB", 1.0/3, 2)
	want.Rows.Add("10 idle connections", Redis, "KiB", 4)
	for range 2 { // the second write replaces the first
		if err := Write(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(dir, Idle)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, error %v, want %+v", got, err, want)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "idle.json"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(raw), "\n    {\"shape\":"); n != len(want.Rows) {
		t.Errorf("got %d lines with a row, want %d:\n%s", n, len(want.Rows), raw)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestReadErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir, GC); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "go run ./cmd/bench gc") {
		t.Errorf("no file: got error %v", err)
	}
	for _, c := range []struct{ name, content, want string }{
		{"no JSON", "{", "measure it again"},
		{"of another", `{"what": "idle", "rows": [{"round": 1}]}`, `of "idle", want some of "gc"`},
		{"no rows", `{"what": "gc", "rows": []}`, "holds 0 rows"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "gc.json"), []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir, GC); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestRows(t *testing.T) {
	var r Rows
	r.Add("a", "x", "f", 1)
	r.Add("a", "y", "f", 1.0/3)
	r.Add("a", "x", "f", 2, 3)
	if got := r.Of("a", "x", "f"); !slices.Equal(got, []float64{1, 2, 3}) {
		t.Errorf("got %v, want the values of all rounds", got)
	}
	if got := r.Of("a", "y", "f"); !slices.Equal(got, []float64{0.333333333}) || r.Of("a", "z", "f") != nil || len(r) != 2 {
		t.Errorf("got %v of %v", got, r)
	}
}

// TestFurtherRounds checks that rounds of the same commit join those that are there, and others do not.
func TestFurtherRounds(t *testing.T) {
	dir := t.TempDir()
	if _, err := Kept(dir, Propagation); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no rounds: got error %v", err)
	}
	f := File{Head: Head{What: Propagation, Commit: Commit()}}
	f.Rows.Add("stream", "x", "f", 1, 2)
	if err := Write(dir, f); err != nil {
		t.Fatal(err)
	}
	kept, err := Kept(dir, Propagation)
	if err != nil {
		t.Fatal(err)
	}
	var more Rows
	more.Add("stream", "x", "f", 3)
	more.Add("hang", "x", "f", 4)
	if kept.Rows.Join(more); len(kept.Rows) != 2 || len(kept.Rows[0].Values) != 3 || len(kept.Rows[1].Values) != 1 {
		t.Errorf("got %+v, want the third round of one and the first of the other", kept.Rows)
	}
	f.Commit = "another"
	if err := Write(dir, f); err != nil {
		t.Fatal(err)
	}
	if _, err := Kept(dir, Propagation); err == nil || !strings.Contains(err.Error(), "measure all of them again") {
		t.Errorf("rounds of another commit: got error %v", err)
	}
}

// TestKeptParts checks that the parts that are not measured stay if they are of the same
// commit.
func TestKeptParts(t *testing.T) {
	dir := t.TempDir()
	f := File{Head: Head{What: Loads, Commit: Commit(), Versions: map[string]string{"x": "v1"}}, Rows: Rows{{Part: Crowd}, {Part: Served}, {Part: Outage}}}
	if err := Write(dir, f); err != nil {
		t.Fatal(err)
	}
	kept, err := Kept(dir, Loads, Crowd, Outage)
	if err != nil || len(kept.Rows) != 1 || kept.Rows[0].Part != Served || kept.Versions["x"] != "v1" {
		t.Errorf("got %v, error %v, want what is served alone", kept, err)
	}
	f.Commit = "another"
	if err := Write(dir, f); err != nil {
		t.Fatal(err)
	}
	if _, err := Kept(dir, Loads, Crowd); err == nil || !strings.Contains(err.Error(), "measure all of them again") {
		t.Errorf("rounds of another commit: got error %v", err)
	}
	if _, err := Kept(dir, Loads, Crowd, Served, Outage); err != nil {
		t.Errorf("all parts are measured again: got error %v", err)
	}
}

func TestLibrariesOf(t *testing.T) {
	info := debug.BuildInfo{Deps: []*debug.Module{
		{Path: "github.com/groupcache/groupcache-go/v3", Version: "v3.2.0"}, {Path: "github.com/buraksezer/olric", Version: "v0.5.7"}, {Path: "example.com/other", Version: "v1.0.0"},
	}}
	want := map[string]string{"groupcache-go": "v3.2.0", "olric": "v0.5.7"}
	if got := LibrariesOf(&info); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestThisMachine(t *testing.T) {
	m := ThisMachine()
	if m.Cores < 1 || m.OS == "" || m.Kernel == "" {
		t.Errorf("got %+v", m)
	}
	if v := Libraries(); v["go"] == "" {
		t.Errorf("got versions %v, want that of Go among them", v)
	}
	if Commit() == "" {
		t.Error("no commit, not even an unknown one")
	}
}
