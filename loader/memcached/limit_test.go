package memcached

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestLimit(t *testing.T) {
	for _, tc := range []struct {
		name, answer string
		want         bool
	}{
		{"item", "VALUE a 0 3 7\r\nabc\r\nEND\r\n", true},
		{"none", "END\r\n", true},
		{"what looks like one, in an item", "VALUE a 0 16\r\nVALUE a 0 9999\r\n\r\nEND\r\n", true},
		{"as long as may be", "VALUE a 0 1000\r\n" + strings.Repeat("x", 1000) + "\r\nEND\r\n", true},
		{"too long", "VALUE a 0 1001\r\n", false},
		{"too long without CR", "VALUE a 0 1001\n", false},
		{"the second too long", "VALUE a 0 1\r\nx\r\nVALUE a 0 1001\r\n", false},
		{"a key with a tab", "VALUE a\t0 0 1001\r\n", false},
		{"no length", "VALUE a 0 x\r\nVALUE a\r\n", true},
	} {
		for _, step := range []int{1, 7, len(tc.answer)} {
			if got := passes(tc.answer, step); got != tc.want {
				t.Errorf("%s, by %d: %v, want %v", tc.name, step, got, tc.want)
			}
		}
	}
}

// passes reports whether an answer that arrives in pieces passes the limit.
func passes(answer string, step int) bool {
	c := limitConn(nil, loader.OriginOptions{MaxValue: 1000}, &loader.Terms{})
	for len(answer) > 0 {
		n := min(step, len(answer))
		if !c.scanner.Pass([]byte(answer[:n])) {
			return false
		}
		answer = answer[n:]
	}
	return true
}

// The split into pieces makes no difference.
func FuzzLimit(f *testing.F) {
	f.Add("VALUE a 0 3\r\nabc\r\nEND\r\n", uint8(2))
	f.Add("VALUE a 0 1001\r\n", uint8(9))
	f.Fuzz(func(t *testing.T, answer string, step uint8) {
		if got, want := passes(answer, int(step)+1), passes(answer, len(answer)+1); got != want {
			t.Errorf("in pieces of %d %v, as a whole %v", int(step)+1, got, want)
		}
	})
}

// TestMemory checks that an item takes memory as soon as its length is known.
func TestMemory(t *testing.T) {
	m := &origintest.Memory{Left: 100_000}
	get := func(n int) func() (loader.Value, error) {
		return func() (loader.Value, error) {
			text := fmt.Sprintf("VALUE k 0 %d\r\n%s\r\nEND\r\n", n, strings.Repeat("x", n))
			s, err := New(Config{Servers: []string{origintest.Saying(t, text)}}, loader.OriginOptions{Timeout: origintest.Never, Memory: m})
			testenv.Must(t, err)
			defer s.Close()
			return s.Load(t.Context(), []byte("k"))
		}
	}
	origintest.TakesMemory(t, m, get(20_000), get(200_000))
}
