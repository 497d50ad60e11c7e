package sidecar

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/session"
)

// TestMemcachedOrder sends long streams of commands for keys of both hosts, without reading an
// answer. All answers are those of memcached, in the same order.
func TestMemcachedOrder(t *testing.T) {
	_, b, path := textPair(t, Config{L2Size: 32 << 20})
	oracle := textTargets(t)["memcached"](t)
	c := dialText(t, "unix", path)
	keys := append(textKeys(b, "default", "here", true, 12), textKeys(b, "default", "there", false, 12)...)
	for seed := range uint64(6) {
		s := &stream{rand: rand.New(rand.NewPCG(seed, 7)), keys: keys}
		s.add("flush_all")
		for range 1500 {
			s.command()
		}
		got, want := s.play(c), s.play(oracle)
		for i := range want {
			if i >= len(got) || mask(got[i]) != mask(want[i]) { // but for the TTL of copies
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
	go func() { _, _ = c.nc.Write(append(slices.Clip(s.b.Bytes()), "mn\r\n"...)) }()
	for {
		line := c.line()
		if lines = append(lines, line); line == "MN" || strings.Contains(line, "(read ") || strings.Contains(line, "(EOF") {
			return lines
		}
	}
}

// TestMemcachedBytes sends broken streams, cut off anywhere, and ends the connection. A sidecar
// says what memcached says.
func TestMemcachedBytes(t *testing.T) {
	path := t.TempDir() + "/m"
	start(t, Config{Memcached: path})
	oracle := textTargets(t)["memcached"](t)
	theirs := oracle.nc.RemoteAddr().String()
	words := strings.Split("get,gets,gat,gats,set,add,cas,append,delete,incr,decr,touch,mg,ms,md,ma,me,mn,verbosity,version,"+
		"a,b,n,0,1,3,-1,100,noreply,v,k,q,t,f,s,I,N30,T0,T-1,R30,MA,ME,Oxy,b,xyz,x,-,+1,99999999999999999999,"+
		"set a 0 0 3\r\nabc\r\n,ms b 1\r\nx\r\n,set n 0 0 1 noreply\r\n5\r\n,set a 0 0 3\r\nabcd\r\n,\r\n,\r\n,\n,\r, ,  ,\x01,"+
		strings.Repeat("k", 250), ",")
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 3))
		var b strings.Builder
		for range 1 + r.IntN(24) {
			b.WriteString(words[r.IntN(len(words))])
			if r.IntN(8) > 0 {
				b.WriteString([]string{" ", "\r\n"}[r.IntN(2)])
			}
		}
		sent := "flush_all\r\n" + b.String()
		whole := seed%2 == 0
		if sent += "\r\n\r\n"; !whole {
			sent = sent[:len(sent)-r.IntN(min(30, b.Len()))-1]
		}
		got, want := lastWords(t, path, sent), lastWords(t, theirs, sent)
		// memcached forgets answers if the connection ends within a value.
		if !strings.HasPrefix(got, want) || whole && want != "" && got != want {
			t.Errorf("%q\ngot  %q\nwant %q", sent, got, want)
		}
	}
}

var versions = regexp.MustCompile(`( c|cas=|VALUE \S+ \d+ \d+ )[1-9]\d*`)

// lastWords returns all answers to a connection that ends.
func lastWords(t *testing.T, path, sent string) string {
	t.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, _ = nc.Write([]byte(sent))
	_ = nc.(*net.UnixConn).CloseWrite()
	_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	b, err := io.ReadAll(nc)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	return strings.ReplaceAll(versions.ReplaceAllString(string(b), "${1}V"), "-cachesidecar", "")
}

// TestMemcachedInstead replaces answers that there is no memory for: the client stays in step.
func TestMemcachedInstead(t *testing.T) {
	const busy = "SERVER_ERROR out of memory writing get response\r\n"
	for answer, want := range map[string]string{
		"VALUE a 0 1\r\nx\r\nEND\r\n":                          busy,
		"VALUE a 0 1\r\nx\r\n":                                 "",
		"VALUE a 0 6 77\r\nxEND\r\n\r\nVALUE b 0 3\r\nEND\r\n": "",
		"VALUE a 0 5\r\nEND\r\n\r\nEND\r\n":                    busy,
		"VA 5\r\nEND\r\n\r\n":                                  busy,
	} {
		if got, ok := (session.TextFraming{}).Instead(nil, []byte(answer), nil); !ok || string(got) != want {
			t.Errorf("%q: %q %v, want %q", answer, got, ok, want)
		}
	}
}
