package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// These parts of the output differ from run to run.
var (
	watchTime    = regexp.MustCompile(`20[0-9T:.-]+(Z|[+-][0-9:]{5})`)
	watchVersion = regexp.MustCompile(`[1-9][0-9]{15,}`)
)

// watchHere runs the command until it has printed the given number of lines. It returns
// them with the varying parts replaced.
func watchHere(t *testing.T, lines int, change func(), args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := newLines()
	done := make(chan int, 1)
	p := &program{in: strings.NewReader(""), out: out, err: os.Stderr}
	// The goroutine ends with ctx.
	go func() { done <- p.run(ctx, append([]string{"cachesidecar", "watch"}, args...)) }()
	await := func(n int) {
		t.Helper()
		testenv.Succeeds(t, fmt.Sprint(n, " lines"), func() error {
			if strings.Count(out.String(), "\n") < n {
				return fmt.Errorf("there are:\n%s", out)
			}
			return nil
		})
	}
	await(1)
	change()
	await(lines)
	cancel()
	if status := <-done; status != exitDone {
		t.Errorf("status %d, want %d", status, exitDone)
	}
	return watchVersion.ReplaceAllString(watchTime.ReplaceAllString(out.String(), "TIME"), "VERSION")
}

func TestWatchGolden(t *testing.T) {
	serveHere(t)
	change := func() {
		mustRun(t, "set", "a", "1")
		mustRun(t, "set", "b", "1", "--ns", "users")
		mustRun(t, "del", "a")
		mustRun(t, "flush", "--yes", "--ns", "users")
		mustRun(t, "flush", "--yes")
	}
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"everything", nil, `
TIME  reset
TIME  changed  -  701f4d569730ed7f  VERSION
TIME  changed  -  217811494b498b71  VERSION
TIME  changed  -  701f4d569730ed7f  VERSION
TIME  flushed  users  -  VERSION
TIME  flushed  every namespace  -  VERSION
`},
		{"keys", []string{"a", "none"}, `
TIME  reset
TIME  changed  a  701f4d569730ed7f  VERSION
TIME  changed  a  701f4d569730ed7f  VERSION
TIME  flushed  every namespace  -  VERSION
`},
		{"another namespace's", []string{"--ns", "users", "b", "--json"}, `
{"time":"TIME","kind":"reset"}
{"time":"TIME","kind":"changed","namespace":"users","key":"b","hash":"217811494b498b71","version":"VERSION"}
{"time":"TIME","kind":"flushed","namespace":"users","version":"VERSION"}
{"time":"TIME","kind":"flushed","version":"VERSION"}
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := strings.TrimPrefix(tc.want, "\n")
			if got := watchHere(t, strings.Count(want, "\n"), change, tc.args...); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
	doc := readDoc(t, "CLI.md")
	for _, f := range []string{"time", "kind", "namespace", "key", "hash", "version", "partitions", "changed", "flushed", "raised", "reset"} {
		if !strings.Contains(doc, "`"+f+"`") {
			t.Errorf("docs/CLI.md does not tell of %s", f)
		}
	}
}

// TestWatchProcess checks that the process follows changes and ends with status 0 on an
// interrupt.
func TestWatchProcess(t *testing.T) {
	path := serveHere(t)
	p := launch(t, exec.Command(binary(), "watch", "k", "--socket", path))
	has := func(s string) func(string) bool { return func(text string) bool { return strings.Contains(text, s) } }
	p.waitFor("a reset", p.out, has("  reset"))
	mustRun(t, "set", "k", "1")
	p.waitFor("the change", p.out, has("  changed  k  "))
	p.signal(syscall.SIGINT)
	if status := p.wait(); status != exitDone {
		t.Errorf("status %d after an interrupt, want %d", status, exitDone)
	}
	// Without a sidecar it fails at once.
	if o := command(t, "", "watch", "--socket", path+"-none"); o.status != exitConnect {
		t.Errorf("without a sidecar: %v", o)
	}
	if o := command(t, "", "watch", "--ns", "Bad"); o.status != exitUsage {
		t.Errorf("a bad namespace: %v", o)
	}
}
