package peers

import (
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// answers are the servers' answers, by protocol.
var answers = []struct {
	name     string
	protocol load.Protocol
	replies  []string
	hits     int
}{
	{"redis, GET", Redis{KeySize: 16}, []string{"$3\r\nabc\r\n", "$-1\r\n", "$0\r\n\r\n", "$12\r\n$3\r\n+OK\r\n$-1\r\n"}, 3},
	{"redis, SET", Redis{KeySize: 16, Value: []byte("v")}, []string{"+OK\r\n", "+OK\r\n"}, 2},
	{"memcached, GET", Memcached{KeySize: 16}, []string{"VA 3 c17\r\nabc\r\n", "EN\r\n", "VA 0 c18\r\n\r\n", "VA 4 c9\r\nEN\r\n\r\n"}, 3},
	{"memcached, SET", Memcached{KeySize: 16, Value: []byte("v")}, []string{"HD\r\n", "NS\r\n", "HD c7\r\n"}, 2},
	{"text, get", MemcachedText{KeySize: 16}, []string{"VALUE k 0 3\r\nabc\r\nEND\r\n", "END\r\n", "VALUE k 7 0\r\n\r\nEND\r\n", "VALUE k 0 5\r\nEND\r\n\r\nEND\r\n"}, 3},
	{"text, set", MemcachedText{KeySize: 16, Value: []byte("v")}, []string{"STORED\r\n", "NOT_STORED\r\n", "STORED\r\n"}, 2},
	{"sidecar, GET", load.Sidecar{KeySize: 16}, []string{
		reply(wire.OpGet, wire.Reply{Status: wire.OK, Value: []byte("abc"), Version: 1 << 60}),
		reply(wire.OpGet, wire.Reply{Status: wire.Miss}),
		reply(wire.OpGet, wire.Reply{Status: wire.OK, Value: []byte{}}),
	}, 2},
	{"sidecar, SET", load.Sidecar{KeySize: 16, Value: []byte("v")}, []string{
		reply(wire.OpSet, wire.Reply{Status: wire.OK, Version: 1}), reply(wire.OpSet, wire.Reply{Status: wire.OK, Version: 1 << 60}),
	}, 2},
	{"echo", Echo{Frame: 5}, []string{"12345", "67890", "abcde"}, 3},
}

// reply encodes an answer to a request of the load, whose ids are five bytes long.
func reply(op wire.Op, r wire.Reply) string {
	r.ID = 1 << 20
	return string(wire.AppendReply(nil, op, &r))
}

func TestCountTakesRepliesCutAtEveryByte(t *testing.T) {
	for _, c := range answers {
		t.Run(c.name, func(t *testing.T) {
			all := []byte(strings.Join(c.replies, ""))
			ends := map[int]int{} // from a number of bytes to the whole replies in them
			for n, end := 0, 0; n < len(c.replies); n++ {
				end += len(c.replies[n])
				ends[end] = n + 1
			}
			whole, wholeSize := 0, 0
			for cut := range len(all) + 1 {
				if n, ok := ends[cut]; ok {
					whole, wholeSize = n, cut
				}
				first, hits, size, err := c.protocol.Count(all[:cut:cut], len(c.replies))
				if err != nil || first != whole || size != wholeSize {
					t.Fatalf("the first %d bytes: got %d replies in %d bytes, error %v, want %d in %d", cut, first, size, err, whole, wholeSize)
				}
				// The remainder comes with the rest.
				second, more, rest, err := c.protocol.Count(all[size:], len(c.replies)-first)
				if err != nil || first+second != len(c.replies) || size+rest != len(all) || hits+more != c.hits {
					t.Fatalf("cut after %d bytes: got %d and %d replies, %d hits, %d bytes, error %v; want %d, %d, %d", cut, first, second, hits+more, size+rest, err, len(c.replies), c.hits, len(all))
				}
			}
		})
	}
}

func TestCountStopsAtWhatIsWanted(t *testing.T) {
	for _, c := range answers {
		all := []byte(strings.Join(c.replies, ""))
		for want := range len(c.replies) {
			if n, _, size, err := c.protocol.Count(all, want); err != nil || n != want || size != len(strings.Join(c.replies[:want], "")) {
				t.Errorf("%s: got %d replies in %d bytes, error %v, want %d", c.name, n, size, err, want)
			}
		}
	}
}

func TestCountRefusesErrors(t *testing.T) {
	for _, c := range []struct {
		name     string
		protocol load.Protocol
		answer   string
		want     string
	}{
		{"redis, error", Redis{}, "-OOM command not allowed\r\n", "OOM command not allowed"},
		{"redis, no length", Redis{}, "$\n", "a length is wanted"},
		{"redis, length of another sign", Redis{}, "$-2\r\n", "a length is wanted"},
		{"redis, length without end", Redis{}, "$99999999999999999999\r\n", "a length is wanted"},
		{"memcached, error", Memcached{}, "SERVER_ERROR out of memory storing object\r\n", "out of memory"},
		{"memcached, no length", Memcached{}, "VA \r\n", "a length is wanted"},
		{"memcached, unknown", Memcached{}, "ERROR\r\n", "ERROR"},
		{"text, error", MemcachedText{}, "SERVER_ERROR out of memory\r\n", "out of memory"},
		{"text, no length", MemcachedText{}, "VALUE k 0 \r\n", "a length is wanted"},
		{"text, no end", MemcachedText{}, "VALUE k 0 1\r\na\r\nVALUE", "want END"},
		{"text, unknown", MemcachedText{}, "HD\r\n", "HD"},
		{"sidecar, error", load.Sidecar{}, reply(wire.OpGet, wire.Reply{Status: wire.Busy, Message: []byte("later")}), "the sidecar answers BUSY"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, _, err := c.protocol.Count([]byte(c.answer), 1); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestAppend(t *testing.T) {
	key := "k000000000000042"
	for _, c := range []struct {
		name     string
		protocol load.Protocol
		want     string
	}{
		{"redis, GET", Redis{KeySize: 16}, "*2\r\n$3\r\nGET\r\n$16\r\n" + key + "\r\n"},
		{"redis, SET", Redis{KeySize: 16, Value: []byte("abc")}, "*3\r\n$3\r\nSET\r\n$16\r\n" + key + "\r\n$3\r\nabc\r\n"},
		{"memcached, GET", Memcached{KeySize: 16}, "mg " + key + " v c\r\n"},
		{"memcached, SET", Memcached{KeySize: 16, Value: []byte("abc")}, "ms " + key + " 3\r\nabc\r\n"},
		{"memcached, lean GET", Memcached{KeySize: 16, Lean: true}, "mg " + key + " v\r\n"},
		{"text, get", MemcachedText{KeySize: 16}, "get " + key + "\r\n"},
		{"text, set", MemcachedText{KeySize: 16, Value: []byte("abc")}, "set " + key + " 0 0 3\r\nabc\r\n"},
		{"echo", Echo{Frame: 3}, "\x00\x00\x00"},
	} {
		if got := string(c.protocol.Append([]byte("before "), 0, 42)); got != "before "+c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// TestManyKeysOnALine checks that each key of a get's line is a request: one with a value is
// a hit, and the others are misses, wherever the answer is cut.
func TestManyKeysOnALine(t *testing.T) {
	p := MemcachedText{KeySize: 16, Keys: 3}
	var line []byte
	for i := range 6 {
		line = p.Append(line, i, uint64(i))
	}
	key := func(n string) string { return " k00000000000000" + n }
	if want := "get" + key("0") + key("1") + key("2") + "\r\nget" + key("3") + key("4") + key("5") + "\r\n"; string(line) != want {
		t.Errorf("got %q, want %q", line, want)
	}
	for _, c := range []struct {
		answer string
		hits   int
	}{
		{"VALUE a 0 1\r\nx\r\nVALUE b 0 5\r\nEND\r\n\r\nVALUE c 0 1\r\nx\r\nEND\r\nVALUE d 0 1\r\nx\r\nVALUE e 0 0\r\n\r\nVALUE f 0 1\r\nx\r\nEND\r\n", 6},
		{"VALUE b 0 5\r\nEND\r\n\r\nEND\r\nEND\r\n", 1},
		{"END\r\nVALUE d 0 1\r\nx\r\nVALUE e 0 0\r\n\r\nEND\r\n", 2},
	} {
		all := []byte(c.answer)
		for cut := range len(all) + 1 {
			first, hits, size, err := p.Count(all[:cut:cut], 6)
			if err != nil {
				t.Fatal(err)
			}
			second, more, rest, err := p.Count(all[size:], 6-first)
			if err != nil || first+second != 6 || hits+more != c.hits || size+rest != len(all) {
				t.Fatalf("%q cut after %d: got %d and %d replies, %d hits, %d bytes, error %v; want 6, %d, %d",
					c.answer, cut, first, second, hits+more, size+rest, err, c.hits, len(all))
			}
		}
	}
}
