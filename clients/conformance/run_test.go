package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestMain makes this program a player too: with an argument it plays the manifest.
func TestMain(m *testing.M) {
	if os.Getenv("CONFORMANCE") != "" {
		os.Exit(playManifest())
	}
	os.Exit(m.Run())
}

// playManifest pings the real sidecar, and plays the conversations of the manifest.
func playManifest() int {
	var m manifest
	b, err := os.ReadFile(os.Getenv("CONFORMANCE"))
	if err != nil || json.Unmarshal(b, &m) != nil || m.Sidecar != os.Getenv("CACHESIDECAR_SOCKET") {
		return 3
	}
	for _, p := range m.Conversations {
		for i := range p.Sockets {
			if err := newGoPlayer(p, i, &end{}).play(p.Calls[i]); err != nil {
				return 4
			}
		}
	}
	return 0
}

// built builds the command for a test that starts it several times.
func built(t *testing.T) {
	t.Helper()
	program, err := testenv.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TEST_COMMAND", program)
}

// TestRun checks the exit status and the verdict of the runner.
func TestRun(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	built(t)
	own, err := os.MkdirTemp("", "cs") // short, since sockets are in it; other runs have theirs
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(own)
	t.Setenv("TMPDIR", own)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		args   []string
		status int
		said   string
	}{
		{"passes", []string{"-only", "get: a hit", "-players", "2", "-v", "--", self}, 0, "1 conversations, 2 players: all passed"},
		{"plays nothing", []string{"-only", "get: ", "-players", "2", "--", "true"}, 1,
			"not played, no connection came: 24: get: garbage (player 1), get: garbage (player 2), get: no array (player 1), … "},
		{"plays one of two", []string{"-only", "a life", "--", "true"}, 1, "1: sidecar: a life"},
		{"names all", []string{"-only", "get: 4 GiB", "-v", "--", "true"}, 1, "get: 4 GiB (player 1): " + notPlayed},
		{"fails", []string{"-only", "no such", "--", "sh", "-c", "exit 7"}, 7, "sh has failed with status 7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(left(t))
			var out, errs bytes.Buffer
			o, err := parse(c.args, &errs)
			if err != nil {
				t.Fatal(err, errs.String())
			}
			status, err := run(o, &out, &errs)
			if status != c.status || !strings.Contains(out.String(), c.said) {
				t.Errorf("status %d, %v, want %d and %q; it says\n%s%s", status, err, c.status, c.said, &out, &errs)
			}
			if after := len(left(t)); after > before {
				t.Errorf("%d folders are left", after-before)
			}
		})
	}
	var errs bytes.Buffer
	for _, args := range [][]string{{}, {"-players", "0", "--", "true"}, {"-ticks", "x", "--", "true"}, {"-nonsense"}} {
		if _, err := parse(args, &errs); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// left returns the folders of runs.
func left(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(os.TempDir(), "conformance*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestManifest checks that the manifest has none of the short forms of the files, and that
// empty lists stay.
func TestManifest(t *testing.T) {
	all, err := load("")
	if err != nil {
		t.Fatal(err)
	}
	empty := 0
	for _, c := range all {
		b, err := json.Marshal(c.steps("prefix:"))
		if err != nil {
			t.Fatal(err)
		}
		for _, short := range []string{`"of":`, `"count":`, `"repeat":`} {
			if bytes.Contains(b, []byte(short)) {
				t.Errorf("%s has %s", c.Name, short)
			}
		}
		empty += bytes.Count(b, []byte(`"keys":[]`)) + bytes.Count(b, []byte(`"values":[]`))
	}
	if empty != 2 {
		t.Errorf("%d empty lists, want 2", empty)
	}
}

// TestEncodings holds the Go client to the examples of encodings.
func TestEncodings(t *testing.T) {
	all, err := encodings()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		b, err := hex.DecodeString(e.Hex)
		if err != nil {
			t.Fatal(err)
		}
		e.Hex = e.Hex[:min(len(e.Hex), 80)] // in errors
		var got any
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err = client.Decode(cachesidecar.Item{Value: b, Flags: e.Flags}, &got)
		runtime.ReadMemStats(&after)
		if e.Error != "" {
			if err == nil {
				t.Errorf("%s with flags %d is %.40v, want an error", e.Hex, e.Flags, got)
			}
			if most := uint64(1 << 20); after.TotalAlloc-before.TotalAlloc > most {
				t.Errorf("%s: %d bytes of memory are taken for a refusal", e.Hex, after.TotalAlloc-before.TotalAlloc)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s with flags %d: %v", e.Hex, e.Flags, err)
			continue
		}
		if err := e.Value.is(b, e.Flags); err != nil {
			t.Errorf("%s with flags %d: %v", e.Hex, e.Flags, err)
		}
		again, mark, err := client.Encode(got)
		if err != nil || mark == client.Msgpack && e.Value.is(again, mark) != nil {
			t.Errorf("%s with flags %d, again: %x with %d, %v", e.Hex, e.Flags, again, mark, err)
		}
		if e.Flags&0xff != client.Msgpack && !bytes.Equal(again, b) {
			t.Errorf("%s with flags %d, again: %x", e.Hex, e.Flags, again)
		}
	}
}

// TestCommands checks commands that do not end, and those that do not exist.
func TestCommands(t *testing.T) {
	for _, command := range [][]string{{"./no/such/command"}, {"sleep", "600"}} {
		var out bytes.Buffer
		o := options{timeout: 100 * time.Millisecond, command: command}
		if status, err := execute(context.Background(), o, "", "", &out, &out); status != 1 || err == nil {
			t.Errorf("%v: status %d, %v", command, status, err)
		}
	}
}

// watched does something once it has been told something.
type watched struct {
	out  bytes.Buffer // not embedded: io.Copy would call its ReadFrom, not Write
	said string
	then func()
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.out.Write(b)
	if strings.Contains(w.out.String(), w.said) {
		w.then()
	}
	return n, err
}

// TestInterrupted checks that the command gets the signal.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	out := &watched{said: "ready", then: cancel}
	command := "trap 'echo got it; exit 1' TERM; echo ready; while :; do sleep 0.01; done"
	o := options{timeout: time.Minute, command: []string{"sh", "-c", command}}
	status, err := execute(ctx, o, "", "", out, out)
	if status != 1 || err == nil || err.Error() != "interrupted" || !strings.Contains(out.out.String(), "got it") {
		t.Errorf("status %d, %v: %s", status, err, &out.out)
	}
}
