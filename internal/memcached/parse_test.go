package memcached

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// says returns what a command says, for comparison.
func says(c *command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", c.verb)
	add := func(name string, v any, is bool) {
		if is {
			fmt.Fprintf(&b, " %s=%v", name, v)
		}
	}
	add("key", string(c.key), c.key != nil)
	add("more", strings.TrimSpace(string(c.rest)), len(c.rest) > 0)
	add("value", string(c.value), c.value != nil)
	add("flags", c.flags, c.flags != 0)
	add("exptime", c.exptime, c.exptime != 0)
	add("cas", c.cas, c.cas != 0)
	add("delta", c.delta, c.delta != 0)
	add("initial", c.initial, c.initial != 0)
	add("down", "", c.down)
	add("mode", c.mode, c.mode != 0)
	add("vivify", c.vivifyTime, c.vivify)
	add("recache", c.recacheTime, c.recacheTime != 0)
	add("touch", "", c.setsTTL)
	add("hascas", "", c.hasCAS)
	add("unread", "", c.unread)
	add("inspect", "", c.inspect)
	add("invalidate", "", c.invalidate)
	add("quiet", "", c.quiet)
	add("wantvalue", "", c.withValue)
	add("opaque", string(c.opaque), c.opaque != nil)
	add("back", string(c.repeated[:c.nRepeated]), c.nRepeated > 0)
	add("unknown", "", c.unknown)
	if c.line != "" {
		return "! " + c.line + strings.TrimPrefix(b.String(), "0")
	}
	return b.String()
}

func TestParse(t *testing.T) {
	long := strings.Repeat("k", maxKeyLen)
	for _, test := range []struct{ request, want string }{
		{"get a\r\n", "1 key=a"},
		{"get  a  b c\r\n", "1 key=a more=b c"},
		{"gets a\n", "2 key=a"},
		{"gat 10 a b\r\n", "3 key=a more=b exptime=10"},
		{"gats -1 a\r\n", "4 key=a exptime=-1"},
		{"gat x a\r\n", "! CLIENT_ERROR invalid exptime argument"},
		{"gat 1\r\n", "3 exptime=1"},
		{"get\r\n", "! ERROR"},
		{"get " + long + "\r\n", "1 key=" + long},
		{"get " + long + "k\r\n", "! CLIENT_ERROR bad command line format"},
		{"get a " + long + "k b\r\n", "! CLIENT_ERROR bad command line format key=a more=" + long + "k b"},
		{"set a 5 0 3\r\nabc\r\n", "5 key=a value=abc flags=5"},
		{"set a 5 0 3 noreply\r\nabc\r\n", "5 key=a value=abc flags=5 quiet="},
		{"set a 5 0 3 other\r\nabc\r\n", "5 key=a value=abc flags=5"},
		{"set a 5 0 0\r\n\r\n", "5 key=a value= flags=5"},
		{"set a 5 0 3\r\nabcde", "! CLIENT_ERROR bad data chunk key=a flags=5"},
		{"set a 5 0 3\r\n", "! SERVER_ERROR object too large for cache key=a flags=5"},
		{"add a 5 0 3\r\n", "! SERVER_ERROR object too large for cache key=a flags=5 mode=1"},
		{"set a 5 0\r\n", "! ERROR"},
		{"set a 5 0 3 noreply more\r\n", "! ERROR"},
		{"set a x 0 3\r\n", "! CLIENT_ERROR bad command line format"},
		{"set a 4294967295 0 1\r\na\r\n", "5 key=a value=a flags=4294967295"},
		{"set a 4294967296 0 1\r\n", "! CLIENT_ERROR bad command line format"},
		{"set a 0 0 -1\r\n", "! CLIENT_ERROR bad command line format"},
		{"set a 0 0 2147483646\r\n", "! CLIENT_ERROR bad command line format"},
		{"set " + long + "k 0 0 1\r\n", "! CLIENT_ERROR bad command line format"},
		{"cas a 1 2 3 4\r\nabc\r\n", "5 key=a value=abc flags=1 exptime=2 cas=4 mode=3"},
		{"cas a 1 2 3\r\n", "! ERROR"},
		{"cas a 1 2 3 x\r\n", "! CLIENT_ERROR bad command line format"},
		{"delete a\r\n", "6 key=a"},
		{"delete a 0\r\n", "6 key=a"},
		{"delete a 0 noreply\r\n", "6 key=a quiet="},
		{"delete a noreply\r\n", "6 key=a quiet="},
		{"delete a 10\r\n", "! CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]"},
		{"delete a 10 noreply\r\n", "! CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply] quiet="},
		{"incr a 18446744073709551615\r\n", "7 key=a delta=18446744073709551615"},
		{"incr a 18446744073709551616\r\n", "! CLIENT_ERROR invalid numeric delta argument key=a delta=18446744073709551615"},
		{"incr a -1\r\n", "! CLIENT_ERROR invalid numeric delta argument key=a"},
		{"decr a 1 noreply\r\n", "7 key=a delta=1 down= quiet="},
		{"incr a\r\n", "! ERROR"},
		{"touch a 10\r\n", "8 key=a exptime=10"},
		{"touch a x\r\n", "! CLIENT_ERROR invalid exptime argument key=a"},
		{"flush_all\r\n", "9"},
		{"flush_all noreply\r\n", "9 quiet="},
		{"flush_all 10 noreply\r\n", "9 exptime=10 quiet="},
		{"flush_all x\r\n", "! CLIENT_ERROR invalid exptime argument"},
		{"stats settings\r\n", "10 more=settings"},
		{"stats cachedump 1 0\r\n", "! END more=cachedump"},
		{"stats cachedump 63 10 x\r\n", "! END more=cachedump"},
		{"stats cachedump 64 10\r\n", "! CLIENT_ERROR Illegal slab id more=cachedump"},
		{"stats cachedump 1\r\n", "! CLIENT_ERROR bad command line more=cachedump"},
		{"stats cachedump -1 1\r\n", "! CLIENT_ERROR bad command line format more=cachedump"},
		{"lru_crawler metadump all\r\n", "! END"},
		{"lru_crawler metadump\r\n", "! ERROR"},
		{"lru_crawler enable\r\n", "! ERROR"},
		{"slabs automove 1\r\n", "! ERROR"},
		{"version\r\n", "! VERSION 1.6.18"},
		{"verbosity 1\r\n", "! OK"},
		{"verbosity\r\n", "! ERROR"},
		{"verbosity x\r\n", "! CLIENT_ERROR bad command line format"},
		{"quit\r\n", "11"},
		{"GET a\r\n", "! ERROR unknown="},
		{"GET / HTTP/1.1\r\n", "! ERROR unknown="},
		{"OPTIONS sip:a SIP/2.0\r\n", "! ERROR unknown="},
		{"gut a\r\n", "! ERROR unknown="},
		{"\r\n", "! ERROR unknown="},
		{" \n", "! ERROR unknown="},
		{"x\r\n", "! ERROR unknown="},
		{"get a\x00b c\r\n", "1 key=a"},
		{"get\x00a\r\n", "! ERROR"},
		{"set a\x00b 0 0 1\r\n", "! ERROR"},
		{"mg a\x00b v\r\n", "12 key=a"},
		{"mg a v f Oxy q k\r\n", "12 key=a quiet= wantvalue= opaque=Oxy back=fOk"},
		{"mg a N30 R10 T5 h u\r\n", "12 key=a exptime=5 vivify=30 recache=10 touch= unread= inspect= back=h"},
		{"mg a v v\r\n", "! CLIENT_ERROR duplicate flag key=a wantvalue="},
		{"mg a Nx q\r\n", "! CLIENT_ERROR bad token in command line format key=a vivify=0"},
		{"mg a !\r\n", "! CLIENT_ERROR invalid flag key=a"},
		{"mg\r\n", "! ERROR"},
		{"mg aGk= b k\r\n", "12 key=hi back=k"},
		{"mg aG\rk= b\r\n", "! CLIENT_ERROR error decoding key key=hi"},
		{"mg aGl= b\r\n", "! CLIENT_ERROR error decoding key key="},
		{"mg a= b\r\n", "! CLIENT_ERROR error decoding key key="},
		{"mg a a b c d e f g h i j k l m n o p q r s\r\n", "! CLIENT_ERROR options flags are too long key=a"},
		{"mg a O" + strings.Repeat("x", 32) + "\r\n", "! CLIENT_ERROR opaque token too long key=a"},
		{"ms a 2 T9 F7 c MA\r\nhi\r\n", "13 key=a value=hi flags=7 exptime=9 mode=4 touch= back=c"},
		{"ms a 2 MZ q\r\nhi\r\n", "! CLIENT_ERROR invalid mode for ms M token key=a"},
		{"ms a 2 q\r\nhixx", "! CLIENT_ERROR bad data chunk key=a"},
		{"ms a\r\n", "! CLIENT_ERROR bad command line format"},
		{"ms a x\r\n", "! CLIENT_ERROR bad command line format"},
		{"ms a 2 C5 I\r\nhi\r\n", "13 key=a value=hi cas=5 mode=3 hascas= invalidate="},
		{"md a C5 I T9\r\n", "14 key=a exptime=9 cas=5 touch= hascas= invalidate="},
		{"md a ?\r\n", "! CLIENT_ERROR invalid or duplicate flag key=a"},
		{"ma a D5 J7 N9 MD v\r\n", "15 key=a delta=5 initial=7 down= vivify=9 wantvalue="},
		{"ma a\r\n", "15 key=a delta=1"},
		{"ma a MX\r\n", "! CLIENT_ERROR invalid mode for ma M token key=a delta=1"},
		{"mn\r\n", "! MN"},
		{"me a\r\n", "16 key=a"},
		{"me aGk= b\r\n", "16 key=hi"},
		{"mx a\r\n", "! ERROR unknown="},
	} {
		var c command
		if parse([]byte(test.request), &c); says(&c) != test.want {
			t.Errorf("%.60q:\n got %s\nwant %s", test.request, says(&c), test.want)
		}
	}
}

// TestSeveralErrors reads commands that are wrong in more than one way. The answers are those of
// memcached 1.6.18.
func TestSeveralErrors(t *testing.T) {
	long := " O" + strings.Repeat("x", 32)
	for request, want := range map[string]string{
		"mg a" + long + " T0x\r\n":         "CLIENT_ERROR bad token in command line format",
		"mg a" + long + " b b\r\n":         "CLIENT_ERROR duplicate flag",
		"mg a" + long + " x\r\n":           "CLIENT_ERROR invalid flag",
		"mg a M" + long + "\r\n":           "CLIENT_ERROR incorrect length for M token",
		"md a k" + long + " q\r\n":         "CLIENT_ERROR opaque token too long",
		"md a" + long + " x\r\n":           "CLIENT_ERROR invalid or duplicate flag",
		"ma a MX z\r\n":                    "CLIENT_ERROR invalid or duplicate flag",
		"ms a 1" + long + " MX T\r\nx\r\n": "CLIENT_ERROR bad token in command line format",
		"ms a 1 Ce F\r\nx\r\n":             "CLIENT_ERROR bad token in command line format",
		"ms a 1 MSS F\r\nx\r\n":            "CLIENT_ERROR incorrect length for M token",
		"ms a 1 F T\r\nx\r\n":              "CLIENT_ERROR bad token in command line format",
	} {
		var c command
		if parse([]byte(request), &c); c.line != want {
			t.Errorf("%q: %q, want %q", request, c.line, want)
		}
	}
	var c command
	if parse([]byte("incr a "+strings.Repeat("0", 40)+"7\r\n"), &c); c.verb != verbIncr || c.delta != 7 {
		t.Errorf("a number with many zeros in front: %q", c.line)
	}
}

func TestParseAgain(t *testing.T) {
	var c command
	parse([]byte("mg aGk= b k v q Oz\r\n"), &c)
	parse([]byte("get a\r\n"), &c)
	if got := says(&c); got != "1 key=a" {
		t.Errorf("a second command says %s", got)
	}
}

// upTo returns an endpoint that takes values up to a length.
func upTo(longest int) *Endpoint { return &Endpoint{MaxValue: longest} }

func TestCut(t *testing.T) {
	for _, test := range []struct {
		b    string
		want server.Cut // without its Frame
	}{
		{"get a", server.Cut{Scanned: 5}},
		{"get a\r\nget b\r\n", server.Cut{Size: 7}},
		{"set a 0 0 3\r\nab", server.Cut{Need: 18}},
		{"set a 0 0 3\r\nabc\r\nget", server.Cut{Size: 18}},
		{"set a 0 0 -3\r\nabc\r\n", server.Cut{Size: 14}},
		{"set a 0 0 1001\r\nabc", server.Cut{Size: 16, Drop: 1003}},
		{"ms a 3 T0\r\nabc\r\n", server.Cut{Size: 16}},
		{"ms a 3 !\r\nabc\r\n", server.Cut{Size: 15}},
		{"ms " + strings.Repeat("k", 251) + " 3\r\nabc\r\n", server.Cut{Size: 258}},
		{strings.Repeat("x", 2048), server.Cut{Scanned: 2048}},
		{strings.Repeat("x", 2049), server.Cut{Bad: errLongLine}},
		{"get " + strings.Repeat("x ", 2049), server.Cut{Scanned: 4102}},
		{"get " + strings.Repeat("x ", maxLine/2), server.Cut{Bad: errLongLine}},
		{"\x80\x00", server.Cut{Bad: errBinary}},
		{"\x16\x03\x01\x02", server.Cut{Bad: errTLS}},
		{"\x16", server.Cut{Scanned: 1}},
		{"\x16\x04\x01\n", server.Cut{Size: 4}},
		{"set a\x00b 0 0 1\r\nx\r\n", server.Cut{Size: 15}},
	} {
		got := upTo(1000).Cut([]byte(test.b), 0, 0)
		frame := got.Frame
		if got.Frame = nil; got.Bad != nil {
			got.Need = 0
		}
		if !reflect.DeepEqual(got, test.want) || got.Bad == nil && string(frame) != test.b[:got.Size] {
			t.Errorf("%.40q: got %+v of %.40q, want %+v", test.b, got, frame, test.want)
		}
	}
}

// TestCutByByte gives Cut each beginning of some requests: it finds the same ones.
func TestCutByByte(t *testing.T) {
	stream := []byte("get a\r\nset b 0 0 4\r\n\r\n\r\n\r\nms c 2 T1\r\nhi\r\nfoo\nmn\r\n")
	var whole, parts []string
	for b := stream; len(b) > 0; {
		s := upTo(1000).Cut(b, 0, 0)
		if s.Size == 0 {
			t.Fatalf("%q: %+v", b, s)
		}
		whole = append(whole, string(b[:s.Size]))
		b = b[s.Size:]
	}
	begin, scanned := 0, 0
	for end := 1; end <= len(stream); end++ {
		s := upTo(1000).Cut(stream[begin:end], scanned, 0)
		if s.Bad != nil {
			t.Fatal(s.Bad)
		}
		if scanned = s.Scanned; s.Size > 0 {
			parts = append(parts, string(stream[begin:begin+s.Size]))
			begin, scanned = begin+s.Size, 0
		}
	}
	if fmt.Sprint(whole) != fmt.Sprint(parts) || len(whole) != 5 {
		t.Errorf("byte by byte %q, at once %q", parts, whole)
	}
}

func TestTTL(t *testing.T) {
	const now, most = 1_800_000_000, wire.MaxTTL
	for _, test := range []struct {
		exptime, ms int64
		over        bool
	}{
		{0, 0, false},
		{-1, 0, true},
		{1, 1000, false},
		{month, month * 1000, false},
		{month + 1, 0, true},
		{now + 5, 4750, false},
		{now + 1, 750, false},
		{now, 0, true},
		{now - 5, 0, true},
		{math.MaxInt32, most, false},
		{1 << 31, 0, true}, // memcached keeps the low 32 bits
		{1<<32 - 1, 0, true},
		{1 << 32, 0, false},
		{1<<32 + 5, 5000, false},
		{5 - 1<<32, 5000, false},
		{math.MaxInt64, 0, true},
		{math.MinInt64, 0, false},
		{now + most/1000 + 1, most, false},
	} {
		if ms, over := ttlOf(test.exptime, now*1000+250); ms != test.ms || over != test.over {
			t.Errorf("%d: %d, %v, want %d, %v", test.exptime, ms, over, test.ms, test.over)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	requests := [][]byte{
		[]byte("get key:0000001\r\n"), []byte("mg key:0000001 v f c Oabc k\r\n"), []byte("mg aGk= b v\r\n"),
		[]byte("set key:0000001 0 0 3\r\nabc\r\n"), []byte("ms key:0000001 3 T9\r\nabc\r\n"), []byte("get a b c d\r\n"),
	}
	var c command
	door, dst := upTo(1000), make([]byte, 0, 1024)
	reply := wire.Reply{Value: []byte("abc"), Size: 3, Version: 1 << 60}
	testenv.Allocates(t, "all of them", 0, 100, func() {
		for _, q := range requests {
			if cut := door.Cut(q, 0, 0); cut.Size != len(q) {
				t.Fatalf("%q: %+v", q, cut)
			}
			parse(q, &c)
			dst = c.appendItem(dst[:0], nil, c.key, reply.Value, &reply)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"get a b\r\n", "gat 1 a\r\n", "set a 0 0 3\r\nabc\r\n", "cas a 0 0 3 9 noreply\r\nabc\r\n", "delete a 0 noreply\r\n",
		"incr a 5\r\n", "flush_all 1\r\n", "ms aGk= 2 b T0 MA C5 I\r\nhi\r\n", "mg a v k t s f c h l Oz q u N1 R2 T3\r\n",
		"ma a N0 J1 D2 MD T5 C9 v t c\r\n", "md a I T30 q\r\n", "me a b\r\n", "set a 0 0 99999999\r\n", "\x80\x01", " \n",
	} {
		f.Add([]byte(s), 7)
	}
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		if len(b) == 0 {
			return
		}
		door := upTo(1 << 16)
		span := door.Cut(b, 0, 0)
		if span.Bad != nil || span.Size == 0 {
			if span.Bad == nil && span.Need != 0 && span.Need <= len(b) {
				t.Fatalf("%q needs %d bytes and has %d", b, span.Need, len(b))
			}
			return
		}
		if span.Size < 1 || span.Size > len(b) || span.Drop < 0 {
			t.Fatalf("%q: %+v", b, span)
		}
		// A beginning of the request is not complete, and has the same end.
		if part := int(uint(at) % uint(span.Size)); part > 0 && span.Drop == 0 {
			early := door.Cut(b[:part], 0, 0)
			if early.Bad != nil || early.Size != 0 && early.Drop == 0 {
				t.Fatalf("%q is complete after %d of %d bytes: %+v", b, part, span.Size, early)
			}
		}
		var c command
		parse(b[:span.Size], &c)
		checkCommand(t, &c, b[:span.Size])
	})
}

// checkCommand checks what holds for all commands.
func checkCommand(t *testing.T, c *command, request []byte) {
	switch {
	case (c.verb == verbFixed) != (c.line != ""):
		t.Fatalf("%q: verb %d, error %q", request, c.verb, c.line)
	case len(c.key) > maxKeyLen, len(c.opaque) > maxOpaque:
		t.Fatalf("%q: key of %d bytes, opaque token of %d", request, len(c.key), len(c.opaque))
	case c.verb == verbFixed:
		return
	case c.value != nil && !bytes.HasSuffix(request, append(bytes.Clone(c.value), "\r\n"...)):
		t.Fatalf("%q: value %q", request, c.value)
	}
	for {
		key := c.nextKey()
		if key == nil {
			break
		}
		if len(key) > maxKeyLen || bytes.ContainsAny(key, " \n") {
			t.Fatalf("%q: key %q", request, key)
		}
	}
	item := wire.Reply{Value: []byte("v"), Size: 1, Version: 1, Claim: wire.ClaimWon}
	out := c.form.clone().appendItem(nil, nil, c.written, item.Value, &item)
	head := c.appendHead(nil, nil, c.written, 1, &item)
	if len(head) > maxHead+len(c.written)+len(c.opaque) {
		t.Fatalf("%q: a head of %d bytes: %q", request, len(head), out)
	}
}
