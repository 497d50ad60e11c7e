package clocks

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// module is a module whose tests named …Bad… must be found, and no others.
var module = map[string]string{
	"go.mod": "module github.com/cachesidecar/cachesidecar\n\ngo 1.26\n",
	"internal/testing/testenv/testenv.go": `package testenv

import ("testing"; "time")

func ReadsClock(t testing.TB, bound time.Duration, why string) {}
func Date() time.Time { return time.Now() }
`,
	"internal/testing/bubble/bubble.go": `package bubble

import "testing"

func Test(t *testing.T, f func(*testing.T)) { f(t) }
`,
	"p/os_" + runtime.GOOS + "_test.go": `package p

import ("testing"; "time")

func TestBadSystem(*testing.T) { <-time.After(1) }
`,
	"p/p_test.go": `package p

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

type waits[T any] struct{}

func (*waits[T]) wait() { time.Sleep(1) }

func generic[T any]() { time.Sleep(1) }

var table = []func(){func() { time.Sleep(1) }}

func virtually(t *testing.T, n int, f func()) { bubble.Test(t, func(*testing.T) { time.Sleep(1); f() }) }

func twice(t *testing.T, f func()) { virtually(t, 2, f) }

func within(t *testing.T) { testenv.ReadsClock(t, time.Second, "within"); time.Sleep(1) }

func TestBadMethod(*testing.T)  { new(waits[int]).wait() }
func TestBadGeneric(*testing.T) { generic[int]() }
func TestBadValue(*testing.T)   { f := time.Sleep; f(1) }
func TestBadTable(*testing.T)   { table[0]() }
func TestBadLocal(*testing.T)   { []func(){func() { time.Sleep(1) }}[0]() }
func TestBadArgument(t *testing.T) { virtually(t, time.Now().Day(), func() {}) }
func TestBadSubtest(t *testing.T) {
	t.Run("virtual", func(t *testing.T) { twice(t, func() {}) })
	t.Run("real", func(*testing.T) { time.Sleep(1) })
}
func FuzzBad(f *testing.F) { f.Fuzz(func(*testing.T, int) { time.Sleep(1) }) }

func TestVirtual(t *testing.T) { twice(t, func() { time.Sleep(1) }) }
func TestVirtualTable(t *testing.T) { twice(t, table[0]) }
func TestDate(*testing.T) { testenv.Date() }
func TestTold(t *testing.T) { testenv.ReadsClock(t, 2*time.Second, "one " + "reason"); time.Sleep(1) }
func TestToldElsewhere(t *testing.T) { within(t) }
`,
}

// said keeps what Check says.
type said struct {
	testing.TB
	errors, logs strings.Builder
}

func (s *said) Errorf(format string, args ...any) { fmt.Fprintf(&s.errors, format+"\n", args...) }
func (s *said) Logf(format string, args ...any)   { fmt.Fprintf(&s.logs, format+"\n", args...) }

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	name := regexp.MustCompile(`func ((?:Test|Fuzz)Bad\w*)\(`)
	var want []string
	for path, text := range module {
		path = filepath.Join(dir, path)
		testenv.Must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		testenv.Must(t, os.WriteFile(path, []byte(text), 0o600))
		for _, m := range name.FindAllStringSubmatch(text, -1) {
			want = append(want, m[1])
		}
	}
	t.Chdir(dir)
	s := &said{TB: t}
	Check(s)
	var got []string
	for line := range strings.Lines(s.errors.String()) {
		got = append(got, regexp.MustCompile(`/p\.(\w+)`).FindStringSubmatch(line)[1])
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q\n%s", got, want, &s.errors)
	}
	for _, line := range []string{"/p.TestTold: one reason, within 2s\n", "/p.TestToldElsewhere: within, within 1s\n", "2 tests read"} {
		if !strings.Contains(s.logs.String(), line) {
			t.Errorf("no line %q in\n%s", line, &s.logs)
		}
	}
}
