package redisorigin

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestLimit(t *testing.T) {
	most := strings.Repeat("x", maxLine)
	for _, tc := range []struct {
		name, replies string
		want          bool
	}{
		{"replies", "+OK\r\n:1\r\n$3\r\nabc\r\n$-1\r\n*2\r\n_\r\n%1\r\n+a\r\n#t\r\n", true},
		{"what looks like one, in a string", "$20\r\n$999999999999999\r\n*9\r\n+OK\r\n", true},
		{"as long as may be", "$65536\r\n" + most + "\r\n+OK\r\n", true},
		{"together too long", "$65530\r\n" + most[6:] + "\r\n$7\r\n", false},
		{"string too long", "$65537\r\n", false},
		{"verbatim string too long", "=65537\r\n", false},
		{"error too long", "!65537\r\n", false},
		{"length out of range", "$99999999999999999999\r\n", false},
		{"length behind zeros", "$" + strings.Repeat("0", 100) + "65537\r\n", false},
		{"as many as may be", "*65536\r\n", true},
		{"array too long", "*65537\r\n", false},
		{"map too long", "%65537\r\n", false},
		{"arrays in arrays", strings.Repeat("*4096\r\n", 17), false},
		{"arrays as many as may be", strings.Repeat("*1\r\n", mostArrays), true},
		{"an array more", strings.Repeat("*1\r\n", mostArrays) + "*0\r\n", false},
		{"sets and maps more", strings.Repeat("~1\r\n%1\r\n", mostArrays/2) + ">1\r\n", false},
		{"no arrays, and one", "*-1\r\n" + strings.Repeat("*1\r\n", mostArrays), true},
		{"elements behind zeros", "*" + strings.Repeat("0", 100) + "65537\r\n", false},
		{"line too long", "+" + most + "\r\n", false},
		{"line too long without an end", "+" + most, false},
		{"lines together too long", strings.Repeat("+"+most[:60_000]+"\r\n", 20), false},
		{"garbage", "\x00\r\n\r\n$x\r\n$\r\n*?\r\n", true},
	} {
		for _, step := range []int{1, 7, len(tc.replies)} {
			if got := passes(tc.replies, step); got != tc.want {
				t.Errorf("%s, by %d: %v, want %v", tc.name, step, got, tc.want)
			}
		}
	}
}

// mostArrays is how many arrays the replies in these tests may have.
const mostArrays = 20

// passes reports whether replies that arrive in pieces pass the limit.
func passes(replies string, step int) bool {
	c := newLimited(nil, loader.OriginOptions{})
	c.bytes, c.lines, c.elements, c.arrays = maxLine, maxLines, maxElements, mostArrays
	for len(replies) > 0 {
		n := min(step, len(replies))
		if !c.scanner.Pass([]byte(replies[:n])) {
			return false
		}
		replies = replies[n:]
	}
	return true
}

// The split into pieces makes no difference.
func FuzzLimit(f *testing.F) {
	f.Add("$3\r\nabc\r\n*2\r\n$-1\r\n", uint8(2))
	f.Add("$65537\r\n", uint8(3))
	f.Add("$000000000000000000000000000000000000001\r\n", uint8(40))
	f.Fuzz(func(t *testing.T, replies string, step uint8) {
		if got, want := passes(replies, int(step)+1), passes(replies, len(replies)+1); got != want {
			t.Errorf("in pieces of %d %v, as a whole %v", int(step)+1, got, want)
		}
	})
}

// TestMemory checks that a string takes memory as soon as its length is known.
func TestMemory(t *testing.T) {
	m := &origintest.Memory{Left: 100_000}
	get := func(n int) func() (loader.Value, error) {
		return func() (loader.Value, error) {
			text := fmt.Sprintf("$%d\r\n%s\r\n", n, strings.Repeat("x", n))
			s, err := New(Config{
				Address: origintest.Saying(t, text), IgnoreTTL: true,
			}, loader.OriginOptions{Timeout: origintest.Never, Memory: m})
			testenv.Must(t, err)
			defer s.Close()
			return s.Load(t.Context(), []byte("k"))
		}
	}
	origintest.TakesMemory(t, m, get(20_000), get(200_000))
}

// TestArrays checks that a load takes no array.
func TestArrays(t *testing.T) {
	s := source(t, Config{Address: origintest.Saying(t, ":-1\r\n*1\r\n$1\r\nx\r\n:-1\r\n")})
	if _, err := s.Load(t.Context(), []byte("k")); !errors.Is(err, errTooLong) {
		t.Errorf("an array: %v", err)
	}
}
