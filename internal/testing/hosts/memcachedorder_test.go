package hosts

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/memcachedtest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestMemcachedOrder sends long streams of commands for keys of both hosts, without reading an
// answer. All answers are those of memcached, in the same order.
func TestMemcachedOrder(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	_, b, path := textPair(t, Config{L2Size: 32 << 20})
	oracle := &textConn{memcachedtest.Memcached(t), t}
	c := dialText(t, "unix", path)
	keys := append(keysIn(b.Sidecar, "default", "here", true, 12), keysIn(b.Sidecar, "default", "there", false, 12)...)
	for seed := range uint64(6) {
		s := &stream{rand: rand.New(rand.NewPCG(seed, 7)), keys: keys}
		s.add("flush_all")
		for range 1500 {
			s.command()
		}
		got, want := s.play(c), s.play(oracle)
		for i := range want {
			if i >= len(got) || memcachedtest.Mask(got[i]) != memcachedtest.Mask(want[i]) { // but for the TTL of copies
				t.Fatalf("seed %d, line %d:\n%.300q, memcached says\n%.300q", seed, i,
					got[min(max(0, i-3), len(got)):min(i+2, len(got))], want[max(0, i-3):min(i+2, len(want))])
			}
		}
	}
}

// stream is a pipeline of commands.
type stream struct {
	rand *rand.Rand
	keys []string
	b    bytes.Buffer
	n    int
}

func (s *stream) add(line string) { s.b.WriteString(line + "\r\n") }

func (s *stream) command() {
	key := s.keys[s.rand.IntN(len(s.keys))]
	s.n++
	value := fmt.Sprintf("%s-%d", key, s.n)
	switch s.rand.IntN(16) {
	case 0, 1:
		s.add(fmt.Sprintf("set %s 0 0 %d\r\n%s", key, len(value), value))
	case 2, 3:
		s.add(fmt.Sprintf("set %s 0 0 %d noreply\r\n%s", key, len(value), value))
	case 4, 5:
		s.add("get " + key)
	case 6:
		s.add("get " + strings.Join(s.some(), " "))
	case 7:
		s.add("gat 100 " + strings.Join(s.some(), " "))
	case 8:
		s.add("mg " + key + " v k q")
	case 9:
		s.add(fmt.Sprintf("mg %s v k s O%d", key, s.n))
	case 10:
		s.add("delete " + key)
	case 11:
		s.add(fmt.Sprintf("append %s 0 0 1\r\n+", key))
	case 12: // without N: memcached would show others an empty value
		s.add(fmt.Sprintf("mg %s v t k O%d", key, s.n))
	case 13:
		s.add(fmt.Sprintf("ms %s 3 O%d\r\nnew", key, s.n))
	case 14:
		s.add(fmt.Sprintf("add %s 0 0 1\r\na", key))
	case 15:
		if s.rand.IntN(8) == 0 {
			s.add("flush_all")
		}
		s.add("md " + key + " q")
	}
}

// some returns many keys, in any order.
func (s *stream) some() (list []string) {
	for range 1 + s.rand.IntN(2*len(s.keys)) {
		list = append(list, s.keys[s.rand.IntN(len(s.keys))])
	}
	return list
}

// play sends the stream, and returns all answers.
func (s *stream) play(c *textConn) (lines []string) {
	go func() { _, _ = c.Write(append(slices.Clip(s.b.Bytes()), "mn\r\n"...)) }()
	for {
		line := c.Line()
		if lines = append(lines, line); line == "MN" || strings.Contains(line, "(read ") || strings.Contains(line, "(EOF") {
			return lines
		}
	}
}
