package memcached

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// raw is a connection that sends bytes as they are.
type raw struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func newRaw(t testing.TB, address string) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &raw{t, conn, bufio.NewReader(conn)}
}

func (c *raw) send(text string) {
	c.t.Helper()
	_ = c.conn.SetDeadline(testenv.Deadline())
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// line reads a line without its end.
func (c *raw) line() string {
	c.t.Helper()
	text, err := c.r.ReadString('\n')
	if err != nil {
		return fmt.Sprintf("%s(%v)", text, err)
	}
	if !strings.HasSuffix(text, "\r\n") {
		c.t.Errorf("%q ends otherwise than a line of memcached", text)
	}
	return strings.TrimRight(text, "\r\n")
}

// talk sends a text and expects lines, each a regular expression for all of the line. It
// returns the lines. Behind them nothing else may have come.
func (c *raw) talk(send string, want ...string) []string {
	c.t.Helper()
	c.send(send)
	var got []string
	for _, w := range want {
		line := c.line()
		if ok, err := regexp.MatchString("^(?:"+w+")$", line); !ok {
			c.t.Errorf("%q: %q, want %q, %v", send, line, w, err)
		}
		got = append(got, line)
	}
	if n := c.r.Buffered(); n > 0 {
		rest, _ := c.r.Peek(n)
		c.t.Errorf("%q: %q more than %q", send, rest, want)
		_, _ = c.r.Discard(n)
	}
	return got
}

// flagOf returns the token behind a flag of an answer of the meta protocol.
func flagOf(line string, flag byte) string {
	for _, f := range strings.Fields(line)[1:] {
		if f[0] == flag {
			return f[1:]
		}
	}
	return ""
}

// conversation is what is sent, and the lines that come back.
type conversation struct {
	send string
	want []string
}

// hold lets a connection have conversations.
func (c *raw) hold(list []conversation) {
	c.t.Helper()
	for _, talk := range list {
		c.talk(talk.send, talk.want...)
	}
}

// lines separates what one string has, by /.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "/")
}

// TestText sends the text protocol itself: mainly what clients never send.
func TestText(t *testing.T) {
	c := newRaw(t, oneServer(t))
	c.hold([]conversation{
		{"get a\r\n", lines("END")},
		{"set a 5 0 3\r\nabc\r\n", lines("STORED")},
		{"get a\r\n", lines("VALUE a 5 3/abc/END")},
		{"get a\n", lines("VALUE a 5 3/abc/END")},
		{"get  a   a \r\n", lines("VALUE a 5 3/abc/VALUE a 5 3/abc/END")},
		{"gets a b\r\n", lines(`VALUE a 5 3 \d+/abc/END`)},
		{"gat 100 a b\r\n", lines("VALUE a 5 3/abc/END")},
		{"gats 100 a\r\n", lines(`VALUE a 5 3 \d+/abc/END`)},
		{"append a 9 9 1\r\nd\r\nprepend a 9 9 1\r\n_\r\n", lines("STORED/STORED")},
		{"get a\r\n", lines("VALUE a 5 5/_abcd/END")},
		{"set a 0 0 3 noreply\r\nxyz\r\nget a\r\n", lines("VALUE a 0 3/xyz/END")},
		{"get\r\n", lines("ERROR")},
		{"\r\n", lines("ERROR")},
		{"nothing\r\n", lines("ERROR")},
		{"set a 0 0\r\n", lines("ERROR")},
		{"set a x 0 3\r\nabc\r\n", lines("CLIENT_ERROR bad command line format/ERROR")},
		{"set a 0 0 -1\r\n", lines("CLIENT_ERROR bad command line format")},
		{"set " + strings.Repeat("k", 251) + " 0 0 1\r\na\r\n",
			lines("CLIENT_ERROR bad command line format/ERROR")},
		{"get " + strings.Repeat("k", 251) + "\r\n", lines("CLIENT_ERROR bad command line format")},
	})
	c.hold([]conversation{
		{"set a 0 0 3\r\nabcde\r\n", lines("CLIENT_ERROR bad data chunk/ERROR")},
		{"version\r\n", lines(`VERSION \S.*`)},
		{"verbosity 1\r\n", lines("OK")},
		{"flush_all 0\r\n", lines("OK")},
		{"flush_all noreply\r\nmn\r\n", lines("MN")},
		{"incr a 1\r\n", lines("NOT_FOUND")},
		{"set a 0 0 2\r\n99\r\nincr a x\r\n", lines("STORED/CLIENT_ERROR invalid numeric delta argument")},
		{"incr a 1\r\ndecr a 1\r\nget a\r\n", lines(`100/99/VALUE a 0 \d/99 ?/END`)},
		{"incr a 1 noreply\r\nget a\r\n", lines("VALUE a 0 3/100/END")},
		{"set a 0 0 3\r\nabc\r\nincr a 1\r\n",
			lines("STORED/CLIENT_ERROR cannot increment or decrement non-numeric value")},
		{"touch a 0\r\ntouch b 0\r\n", lines("TOUCHED/NOT_FOUND")},
		{"delete a\r\ndelete a\r\n", lines("DELETED/NOT_FOUND")},
		{"set a 0 -1 1\r\nx\r\nget a\r\n", lines("STORED/END")},
	})
	c.send("quit\r\n")
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Errorf("behind quit: %v, want the end", err)
	}
}

// TestTimes sends times of more than 32 bits. memcached keeps the low ones, with a sign: some
// clients send -1 as 4294967295.
func TestTimes(t *testing.T) {
	c := newRaw(t, oneServer(t))
	for _, over := range []string{"-1", "2147483648", "4294967295", "6442450944", "9223372036854775807"} {
		c.hold([]conversation{
			{"set a 0 " + over + " 1\r\nx\r\nget a\r\n", lines("STORED/END")},
			{"set a 0 0 1\r\nx\r\ntouch a " + over + "\r\nget a\r\n", lines("STORED/TOUCHED/END")},
			{"set a 0 0 1\r\nx\r\ngat " + over + " a\r\nget a\r\n", lines("STORED/VALUE a 0 1/x/END/END")},
			{"ms a 1 T" + over + "\r\nx\r\nmg a v\r\n", lines("HD/EN")},
			{"set a 0 0 1\r\nx\r\nmd a I T" + over + "\r\nmg a v\r\n", lines("STORED/HD/EN")},
			{"set a 0 0 1\r\nx\r\nmg a v T" + over + "\r\nmg a v\r\n", lines("STORED/VA 1/x/EN")},
		})
	}
	for _, more := range []string{"4294967396", "-4294967196"} { // 100
		c.hold([]conversation{
			{"set a 0 " + more + " 1\r\nx\r\nmg a t\r\n", lines(`STORED/HD t(100|99)`)},
			{"set a 0 0 1\r\nx\r\ntouch a " + more + "\r\nmg a t\r\n", lines(`STORED/TOUCHED/HD t(100|99)`)},
			{"ms a 1 T" + more + "\r\nx\r\nmg a t\r\n", lines(`HD/HD t(100|99)`)},
			{"delete a\r\nma a N" + more + "\r\nmg a t\r\n", lines(`DELETED/HD/HD t(100|99)`)},
		})
	}
	c.hold([]conversation{
		{"set a 0 9223372036854775808 1\r\nx\r\n", lines("CLIENT_ERROR bad command line format/ERROR")},
		{"touch a 9223372036854775808\r\n", lines("CLIENT_ERROR invalid exptime argument")},
	})
}

// TestMeta sends the meta protocol: each command with each of its flags.
func TestMeta(t *testing.T) {
	c := newRaw(t, oneServer(t))
	c.hold([]conversation{
		{"mn\r\n", lines("MN")},
		{"mg a v\r\n", lines("EN")},
		{"mg a v q\r\nmn\r\n", lines("MN")},
		{"mg a k O1 v\r\n", lines("EN ka O1")},
		{"ms a 3 F7 T100 k Oxy\r\nabc\r\n", lines("HD ka Oxy")},
		{"mg a\r\n", lines("HD")},
		{"mg a v\r\n", lines("VA 3/abc")},
		{"mg a s f t k O9 v\r\n", lines(`VA 3 s3 f7 t\d+ ka O9/abc`)},
		{"mg a v c\r\n", lines(`VA 3 c\d+/abc`)},
		{"mg a T50 t\r\n", lines(`HD t(50|49)`)},
		{"ms b 1 T0\r\nx\r\nmg b t\r\n", lines("HD/HD t-1")},
		{"ms h 1\r\nx\r\nmg h h l t\r\nmg h h\r\n", lines(`HD/HD h0 l\d+ t-1/HD h1`)},
		{"ms h 1\r\nx\r\nmg h u h\r\nmg h h\r\n", lines(`HD/HD h0/HD h0`)},
		{"ms b 1 ME\r\ny\r\n", lines("NS")},
		{"ms n 1 MR\r\ny\r\n", lines("NS")},
		{"ms n 1 MA\r\ny\r\nms n 1 MP\r\ny\r\n", lines("NS/NS")},
		{"ms b 1 MA\r\ny\r\nms b 1 MP\r\nw\r\nmg b v\r\n", lines("HD/HD/VA 3/wxy")},
		{"ms b 1 MR\r\nr\r\nms b 1 MS\r\ns\r\nmg b v\r\n", lines("HD/HD/VA 1/s")},
		{"ms b 1 q\r\nz\r\nmg b v\r\n", lines("VA 1/z")},
		{"ms b 1 MX\r\nz\r\n", lines("CLIENT_ERROR .*")},
		{"ms b x\r\n", lines("CLIENT_ERROR bad command line format")},
		{"mg a v v\r\n", lines("CLIENT_ERROR duplicate flag")},
		{"mg " + strings.Repeat("k", 251) + " v\r\n", lines("CLIENT_ERROR bad command line format")},
		{"md a q\r\nmd a q\r\nmn\r\n", lines("NF/MN")},
		{"ms a 1\r\nx\r\nmd a k O5\r\n", lines("HD/HD ka O5")},
		{"me nothing\r\n", lines("EN")},
		{"ms a 1\r\nx\r\nme a\r\n", lines("HD/ME a .*")},
	})
	metaKeys(c)
	metaCAS(c)
	metaArithmetic(c)
	metaStale(c)
}

// metaKeys names keys of any bytes, in base64.
func metaKeys(c *raw) {
	c.t.Helper()
	c.talk("ms AAEg/w== 1 b k\r\nx\r\n", "HD kAAEg/w== b")
	c.talk("mg AAEg/w== b v k\r\n", "VA 1 kAAEg/w== b", "x")
	c.talk("mg AAEg/w== v\r\n", "EN")
	c.talk("md AAEg/w== b\r\n", "HD")
	c.talk("ms YQ== 1 b\r\nq\r\nget a\r\n", "HD", "VALUE a 0 1", "q", "END")
}

// metaCAS compares and swaps.
func metaCAS(c *raw) {
	c.t.Helper()
	cas := flagOf(c.talk("ms c 1 c\r\nx\r\n", `HD c\d+`)[0], 'c')
	c.talk("ms c 1 C1\r\ny\r\n", "EX")
	c.talk("ms none 1 C1\r\ny\r\n", "NF")
	next := flagOf(c.talk("ms c 1 c C"+cas+"\r\ny\r\n", `HD c\d+`)[0], 'c')
	if next == cas {
		c.t.Error("the cas unique stays the same")
	}
	c.talk("md c C"+cas+"\r\n", "EX")
	c.talk("md c C"+next+"\r\n", "HD")
	text := strings.Fields(c.talk("set c 0 0 1\r\nx\r\ngets c\r\n", "STORED", `VALUE c 0 1 \d+`, "x", "END")[1])[4]
	c.talk("ms c 1 C"+text+"\r\nz\r\n", "HD")
}

// metaArithmetic counts.
func metaArithmetic(c *raw) {
	c.t.Helper()
	c.hold([]conversation{
		{"ma n\r\n", lines("NF|HD")},
		{"md n\r\nma n v\r\n", lines("HD|NF/NF")},
		{"ma n N0 v\r\nma n v\r\nma n D10 v\r\n", lines("VA 1/0/VA 1/1/VA 2/11")},
		{"ma n MD v\r\nma n MD D3 v\r\nma n MD D99 v\r\n", lines("VA 2/10/VA 1/7/VA 1/0")},
		{"ma n MI\r\nma n M+ \r\nma n M- v\r\n", lines("HD/HD/VA 1/1")},
		{"ma j N100 J41 v t c\r\n", lines(`VA 2 t(100|99) c\d+/41`)},
		{"ma j T300 t k O1\r\n", lines(`HD t(300|299) kj O1`)},
		{"ma j q\r\nmg j v\r\n", lines("VA 2/43")},
		{"ma j C1\r\n", lines("EX")},
		{"ma j Dx\r\n", lines("CLIENT_ERROR .*")},
		{"ms j 1\r\nx\r\nma j\r\n", lines("HD/CLIENT_ERROR cannot increment or decrement non-numeric value")},
		{"ms j 20\r\n18446744073709551615\r\nma j v\r\n", lines("HD/VA 1/0")},
		{"ma none q\r\nmn\r\n", lines("NF/MN")},
	})
}

// metaStale lets one of two callers have the right to load.
func metaStale(c *raw) {
	c.t.Helper()
	c.hold([]conversation{
		{"mg v N60 v t\r\n", lines(`VA 0 t(60|59) W/`)},
		{"mg v N60 v\r\n", lines("VA 0 Z/")},
		{"ms v 3 T100\r\nabc\r\nmg v v\r\n", lines("HD/VA 3/abc")},
		{"mg v R200 v\r\nmg v R200 v\r\n", lines("VA 3 W/abc/VA 3 Z/abc")},
		{"ms v 3 T100\r\nabc\r\nmd v I T50\r\n", lines("HD/HD")},
		{"mg v v t\r\nmg v v\r\n", lines(`VA 3 t(50|49) X W/abc/VA 3 Z X/abc`)},
	})
	cas := flagOf(c.talk("mg v c\r\n", `HD c\d+ Z X`)[0], 'c')
	c.talk("ms v 3 C"+cas+"\r\nnew\r\n", "HD")
	c.talk("mg v v\r\n", "VA 3", "new")
	if *targetName == "memcached" {
		c.talk("ms v 3 I C1\r\nold\r\nmg v v\r\n", "HD", "VA 3 X W", "old")
		return
	}
	// In one cache of several hosts an older value never takes the place of a newer one.
	c.talk("ms v 3 I C1\r\nold\r\nmg v v\r\n", "EX", "VA 3", "new")
	c.talk("md v I\r\nms v 3 I C1\r\nold\r\nmg v v\r\n", "HD", "HD", "VA 3 X W", "new")
}
