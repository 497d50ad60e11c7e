package record

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rounds")
	want := File[IdleParameters, IdleRow]{
		Head: Head{
			What: Idle, Command: "go run ./cmd/bench idle", Commit: "abc+", Date: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
			Machine: Machine{CPU: "a <fast> one", Cores: 2}, Versions: map[string]string{"go": "1.26"},
		},
		Parameters: IdleParameters{Data: Data{Keys: 7}, Rounds: 2, Conns: 10},
		Rows:       []IdleRow{{Round: 1, Sides: map[string]IdleSide{Sidecar: {Before: 1, AfterOne: 2, AfterAll: 3}}}, {Round: 2}},
	}
	for range 2 { // the second write replaces the first
		if err := Write(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read[IdleParameters, IdleRow](dir, Idle)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, error %v, want %+v", got, err, want)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "idle.json"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(raw), "\n    {\"round\":"); n != len(want.Rows) {
		t.Errorf("got %d lines with a row, want %d:\n%s", n, len(want.Rows), raw)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestReadErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read[GCParameters, GCRow](dir, GC); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "go run ./cmd/bench gc") {
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
		if _, err := Read[GCParameters, GCRow](dir, GC); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestSide(t *testing.T) {
	s := Side{Requests: 500, Seconds: 0.5}
	for i := range Percentiles {
		s.LatencyUS = append(s.LatencyUS, float64(i))
	}
	if s.PerSecond() != 1000 || s.At(50) != 0 || s.At(99) != 4 || s.At(100) != 8 || s.At(42) != 0 {
		t.Errorf("got %v/s, p50 %v, p99 %v, max %v", s.PerSecond(), s.At(50), s.At(99), s.At(100))
	}
}

func TestMoves(t *testing.T) {
	m := Moves{Windows: []Window{{Reads: 100, Hits: 100}, {Reads: 50, Hits: 25}, {Reads: 50, Hits: 49, Errors: 1}}}
	if lowest, mean := m.Ratios(); lowest != 0.5 || mean != 0.87 {
		t.Errorf("got %v and %v, want 0.5 and 0.87", lowest, mean)
	}
	m.Windows = append(m.Windows, Window{}) // a second in which no read was answered
	if lowest, _ := m.Ratios(); lowest != 0 {
		t.Errorf("got %v for a second without answers, want 0", lowest)
	}
}

func TestFurtherRounds(t *testing.T) {
	dir := t.TempDir()
	f := File[PropagationParameters, PropagationRow]{Head: Head{What: Propagation, Commit: Commit()}, Rows: []PropagationRow{{Part: Stream, Round: 1}, {Part: Stream, Round: 2}}}
	if err := Write(dir, f); err != nil {
		t.Fatal(err)
	}
	kept, err := Kept(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := After(kept, []PropagationRow{{Part: Stream, Round: 1}, {Part: Hang, Round: 1}})
	if len(got) != 4 || got[2].Round != 3 || got[3].Round != 1 {
		t.Errorf("got %+v, want the third round of one and the first of the other", got)
	}
	f.Commit = "another"
	if err := Write(dir, f); err != nil {
		t.Fatal(err)
	}
	if _, err := Kept(dir); err == nil || !strings.Contains(err.Error(), "measure all of them again") {
		t.Errorf("rounds of another commit: got error %v", err)
	}
}

// TestKeptLoads checks that the parts that are not measured stay if they are of the same
// commit, and that a folder without rounds gives no rows.
func TestKeptLoads(t *testing.T) {
	dir := t.TempDir()
	if kept, _, err := KeptLoads(dir, []string{Crowd}); err != nil || len(kept) > 0 {
		t.Errorf("got %v, error %v of nothing", kept, err)
	}
	f := File[LoadsParameters, LoadsRow]{Head: Head{What: Loads, Commit: Commit(), Versions: map[string]string{"x": "v1"}}, Rows: []LoadsRow{{Part: Crowd}, {Part: Served}, {Part: Outage}}}
	if err := Write(dir, f); err != nil {
		t.Fatal(err)
	}
	kept, versions, err := KeptLoads(dir, []string{Crowd, Outage})
	if err != nil || len(kept) != 1 || kept[0].Part != Served || versions["x"] != "v1" {
		t.Errorf("got %v, error %v, want what is served alone", kept, err)
	}
	f.Commit = "another"
	if err := Write(dir, f); err != nil {
		t.Fatal(err)
	}
	if _, _, err := KeptLoads(dir, []string{Crowd}); err == nil || !strings.Contains(err.Error(), "measure all parts again") {
		t.Errorf("rounds of another commit: got error %v", err)
	}
	if _, _, err := KeptLoads(dir, LoadsParts); err != nil {
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
