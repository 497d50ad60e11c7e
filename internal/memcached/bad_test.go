package memcached_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/memcachedtest"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// badInput is what a client may send, and how the endpoint answers it. An answer that ends in
// close is the last one.
var badInput = []struct {
	name, sent string
	want       []string
}{
	{"a line of 8 MiB without an end", "get " + strings.Repeat("x", 8<<20), []string{"CLIENT_ERROR line too long", "close"}},
	{"a line of 1 MiB", "set " + strings.Repeat("x", 1<<20) + " 0 0 1\r\n", []string{"CLIENT_ERROR line too long", "close"}},
	{"a line of 3 KiB that is no get", "delete " + strings.Repeat("x", 3<<10) + "\r\n", []string{"CLIENT_ERROR line too long", "close"}},
	{"a get of nearly 8 MiB", "get" + strings.Repeat(" "+strings.Repeat("k", 250), 33_000) + "\r\n", []string{"END"}},
	{"a key of 251 bytes", "get " + strings.Repeat("x", 251) + "\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a key of 251 bytes behind others", "get a b " + strings.Repeat("x", 251) + "\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a key of control characters", "get \x01\x7f\t\v\r\n", []string{"END"}},
	{"a zero byte in a key", "set a\x00b 0 0 1\r\nx\r\nget a\x00b\r\n", []string{"ERROR", "ERROR", "END"}},
	{"a negative length", "set k 0 0 -1\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a huge length", "set k 0 0 99999999999999999999\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a length of 2^31", "set k 0 0 2147483648\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a length of ms with a letter", "ms k 1x\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a value that ends late", "set k 0 0 1\r\nxx\r\n", []string{"CLIENT_ERROR bad data chunk"}},
	{"the binary protocol", "\x80\x00\x00\x01", []string{"close"}},
	{"an empty line", "mn\r\n\r\n", []string{"MN", "ERROR"}},
	{"lines of spaces", "mn\r\n   \r\n \n", []string{"MN", "ERROR", "ERROR"}},
	{"an unknown command", "mn\r\nfrob a b c\r\n", []string{"MN", "ERROR"}},
	{"TLS behind a command", "mn\r\n\x16\x03\x01\r\n", []string{"MN", "close"}},
	{"a command of memcached that is not served, first", "slabs automove 1\r\n", []string{"ERROR"}},
	{"an empty line, first", "\r\n", []string{"ERROR", "close"}},
	{"lines of spaces, first", "   \r\n \n", []string{"ERROR", "close"}},
	{"an unknown command, first", "frob a b c\r\n", []string{"ERROR", "close"}},
	{"a command in capitals, first", "GET a\r\n", []string{"ERROR", "close"}},
	{"TLS without an end of a line", "\x16\x03\x01\x02\x00\x01", []string{"close"}},
}

// TestTextBadInput sends bad input whole and a byte at a time at its end. Another client
// is served meanwhile.
func TestTextBadInput(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	other := h.Text()
	for _, tc := range badInput {
		for _, slowly := range []bool{false, true} {
			c := h.Text()
			whole := len(tc.sent)
			if slowly {
				whole = max(0, whole-20)
			}
			_, _ = c.Write([]byte(tc.sent[:whole])) // the endpoint may have ended it
			for ; whole < len(tc.sent); whole++ {
				_, _ = c.Write([]byte{tc.sent[whole]})
			}
			for _, want := range tc.want {
				got := c.Line()
				if want == "close" && got != "MN" && strings.HasPrefix(got, " (") && !strings.Contains(got, "timeout") {
					continue
				}
				if got != want && !(strings.HasPrefix(want, "CLIENT_ERROR") && strings.HasPrefix(got, want)) {
					t.Errorf("%s, slowly %v: %q, want %q", tc.name, slowly, got, want)
				}
			}
			if tc.want[len(tc.want)-1] != "close" && !strings.Contains(tc.name, "late") {
				c.Ask("mn", "MN")
			}
			other.Ask("mn", "MN")
			c.Close()
		}
	}
}

// TestTextTruncated ends a connection at each byte of a command. It is not served, and the
// next client finds what was there before.
func TestTextTruncated(t *testing.T) {
	t.Parallel() // each connection is waited for
	h := doors.Serve(t, onehost.Config{})
	h.Text().Ask("set k 7 0 1\r\n5", "STORED")
	for _, command := range []string{
		"get k\r\n", "gets k\r\n", "gat 1 k\r\n", "mg k v T1\r\n", "me k\r\n", "incr k 1\r\n", "decr k 1\r\n", "ma k\r\n",
		"touch k 1\r\n", "delete k\r\n", "md k\r\n", "flush_all\r\n", "set k 0 0 5\r\nhello\r\n", "ms k 5\r\nhello\r\n",
		"append k 0 0 3\r\n\r\nx\r\n", "prepend k 0 0 1\r\n1\r\n", "replace k 0 0 1\r\n1\r\n", "add l 0 0 1\r\n1\r\n",
		"cas k 0 0 1 1\r\n1\r\n", "set k 0 0 1 noreply\r\n1\r\n", "version\r\n", "stats\r\n", "verbosity 1\r\n", "mn\r\n",
	} {
		t.Run(command[:len(command)-2], func(t *testing.T) {
			t.Parallel()
			truncate(t, h, command)
		})
	}
}

// truncate sends each beginning of a command.
func truncate(t *testing.T, h *doors.Host, command string) {
	t.Helper()
	for n := range len(command) {
		c := h.Text()
		c.Send(command[:n])
		_ = c.Conn.(*net.UnixConn).CloseWrite()
		_ = c.SetReadDeadline(testenv.Deadline())
		if said, err := io.ReadAll(c); err != nil || len(said) > 0 {
			t.Errorf("%q: %q, %v", command[:n], said, err)
		}
		c.Close()
	}
	other := h.Text()
	other.Ask("mg k v f t", "VA 1 f7 t-1", "5")
	other.Ask("get l", "END")
}

// TestTextValuesNeverCome announces many long values, or begins many long lines, and sends only their
// beginnings. Their memory is bounded, others are served, and nothing is left when the clients have gone.
func TestTextValuesNeverCome(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	t.Parallel()
	for name, begin := range map[string]string{"values": "set k 0 0 400000\r\n", "lines": "get "} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			neverCome(t, begin+strings.Repeat("x", 100_000))
		})
	}
}

func neverCome(t *testing.T, begin string) {
	h := doors.Serve(t, onehost.Config{BufferSize: 16 << 20})
	other := h.Text()
	before := h.Budget.Stats().Frames
	var all []net.Conn
	for range 200 {
		c := h.Text()
		_, _ = c.Write([]byte(begin)) // without memory the connection may end
		all = append(all, c)
	}
	testenv.Eventually(t, "the values to take memory", func() bool {
		stats := h.Budget.Stats()
		return stats.Frames > before+8<<20 && stats.RefusedFor["frames"] > 0
	})
	for i := range 100 {
		other.Ask(fmt.Sprintf("set other 0 0 3\r\n%03d", i), "STORED")
		other.Ask("get other", "VALUE other 0 3", fmt.Sprintf("%03d", i), "END")
	}
	if stats := h.Budget.Stats(); stats.Frames > stats.Limit {
		t.Errorf("%+v", stats)
	}
	for _, nc := range all {
		nc.Close()
	}
	testenv.Eventually(t, "the memory to come back", func() bool { return h.Budget.Stats().Frames <= before })
	other.Ask("get k", "END")
}

// TestTextStorm sends commands that want no answer, one in two of them wrong, faster than
// they are served, while another client works.
func TestTextStorm(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	c, other := h.Text(), h.Text()
	sent := make(chan error, 1)
	go func() {
		storm := strings.Repeat("set k 0 0 1 noreply\r\nx\r\ndelete k noreply\r\nincr k 1 noreply\r\nmg k q\r\n", 1000)
		for range 50 {
			if _, err := c.Write([]byte(storm)); err != nil {
				sent <- err
				return
			}
		}
		_, err := c.Write([]byte("mn\r\n"))
		sent <- err
	}()
	for range 100 {
		other.Ask("set other 0 0 1\r\ny", "STORED")
	}
	testenv.Must(t, <-sent)
	if line := c.Line(); line != "MN" {
		t.Error(line)
	}
}

// TestTextHTTP sends what a browser can be made to send: no command in it is served.
func TestTextHTTP(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	const head = "Host: 127.0.0.1:11211\r\nContent-Length: 30\r\n\r\n"
	const body = "set pwned 0 0 1\r\nx\r\n"
	for _, method := range []string{
		"GET", "POST", "PUT", "get", "gets", "set", "mg", "ms", "me", "mn", "md", "version", "stats", "delete", "touch", "flush_all",
		"incr", "x", "PATCH", "bget",
	} {
		for _, protocol := range []string{"HTTP/1.1", "RTSP/1.0", "SIP/2.0"} {
			plants(t, h, method+" /x "+protocol+"\r\n"+head+body)
		}
	}
}

// plants sends what another protocol's client may send, with a command of a stranger in it. The
// connection ends, and the command is not served.
func plants(t *testing.T, h *doors.Host, sent string) {
	t.Helper()
	c := h.Text()
	_, _ = c.Write([]byte(sent))
	for {
		if _, err := c.ReadLine(); err != nil {
			if strings.Contains(err.Error(), "timeout") {
				t.Errorf("%q: the connection goes on", sent)
			}
			break
		}
	}
	c.Close()
	h.Text().Ask("delete pwned", "NOT_FOUND")
}

// TestTextForeign sends the first bytes of other protocols. What a stranger has put into them is
// not served: a ticket of TLS is chosen by the server that has given it.
func TestTextForeign(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	const planted = "\nset pwned 0 0 3\r\nyes\r\n"
	hello := "\x03\x03" + strings.Repeat("R", 32) + "\x00\x00\x02\xc0\x2f\x01\x00"
	ticket := "\x00\x23\x00\x2d" + strings.Repeat("A", 20) + planted
	extensions := string([]byte{0, byte(len(ticket))}) + ticket
	body := "\x01\x00\x00" + string([]byte{byte(len(hello + extensions))}) + hello + extensions
	for _, sent := range []string{
		"\x16\x03\x01\x00" + string([]byte{byte(len(body))}) + body,
		"\x16\x03\x01" + planted,
		"\x80\x2e\x01\x03\x01" + planted, // SSL 2
		"\r\n\r\n\x00\r\nQUIT\n" + planted,
		"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r" + planted,
		"SSH-2.0-x\r" + planted,
		"EHLO x\r" + planted,
		"*1\r\n$4\r" + planted,
		"PRI * HTTP/2.0\r\n\r\nSM\r" + planted,
		"{\"json\": 1," + planted,
		planted,
		"x" + strings.Repeat("x", 3000) + planted,
	} {
		plants(t, h, sent)
	}
}

// TestTextLongAnswers asks for a long value and does not read it, in every way. The answer is
// charged to the memory of answers.
func TestTextLongAnswers(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	const size = 500_000
	h.Text().Ask(fmt.Sprintf("set long 0 0 %d\r\n%s", size, strings.Repeat("x", size)), "STORED")
	for _, command := range []string{"get long", "gets long x", "gat 0 long", "gats 0 x long", "mg long v", "mg long v h k Oq"} {
		before := h.Budget.Stats().Answers
		c := h.Text()
		c.Send(command + "\r\n")
		testenv.Eventually(t, command+" is charged", func() bool { return h.Budget.Stats().Answers >= before+size })
	}
}

// TestTextKeyBytes sends each byte that may be in a key, in every command. A host says what
// memcached says, where a line ends at a zero byte.
func TestTextKeyBytes(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	ours, theirs := h.Text(), memcachedtest.Memcached(t)
	versions := regexp.MustCompile(`(VALUE [^|]+ 0 \d+|ME [^ ]+) [^|]+`) // and what else me tells
	for b := range 256 {
		if strings.IndexByte(" \n:(|", byte(b)) >= 0 { // it ends a word, a line or a namespace, or UntilNoop means it
			continue
		}
		key := "a" + string([]byte{byte(b)}) + "b"
		for _, format := range []string{
			"set KEY 0 0 1\r\nx\r\n", "add KEY 0 0 1\r\nx\r\n", "replace KEY 0 0 1\r\nx\r\n", "append KEY 0 0 1\r\ny\r\n",
			"prepend KEY 0 0 1\r\nz\r\n", "cas KEY 0 0 1 1\r\nx\r\n", "get KEY\r\n", "get c KEY a\r\n", "gets KEY\r\n",
			"gat 0 KEY\r\n", "gats 0 c KEY\r\n", "bget KEY\r\n", "touch KEY 0\r\n", "mg KEY v k\r\n", "md KEY k\r\n",
			"ms KEY 1 k\r\n5\r\n", "incr KEY 1\r\n", "decr KEY 1\r\n", "ma KEY v k\r\n", "me KEY\r\n", "mg a v OKEY\r\n",
			"delete KEY\r\n", "delete a\r\n", "set a 0 0 1KEY\r\nx\r\n", "KEY\r\n", "getKEY a\r\n",
		} {
			sent := strings.ReplaceAll(format, "KEY", key) + "mn\r\n"
			ours.Send(sent)
			theirs.Send(sent)
			got := versions.ReplaceAllString(ours.UntilNoop(), "$1")
			want := versions.ReplaceAllString(theirs.UntilNoop(), "$1")
			if got != want {
				t.Errorf("%q: %q, memcached says %q", sent, got, want)
			}
		}
	}
}

// TestTextBytes sends broken streams, cut off anywhere, and ends the connection. A sidecar
// says what memcached says.
func TestTextBytes(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	theirs := memcachedtest.Memcached(t).RemoteAddr().String()
	words := strings.Split("get,gets,gat,gats,set,add,cas,append,delete,incr,decr,touch,mg,ms,md,ma,me,mn,verbosity,version,"+
		"a,b,n,0,1,3,-1,100,noreply,v,k,q,t,f,s,I,N30,T0,T-1,R30,MA,ME,Oxy,b,xyz,x,-,+1,99999999999999999999,"+
		"set a 0 0 3\r\nabc\r\n,ms b 1\r\nx\r\n,set n 0 0 1 noreply\r\n5\r\n,set a 0 0 3\r\nabcd\r\n,\r\n,\r\n,\n,\r, ,  ,\x01,\x00,a\x00b,\x7f,\x0b,"+
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
		got, want := lastWords(t, h.Text(), sent), lastWords(t, memcachedtest.Dial(t, "unix", theirs), sent)
		// memcached forgets answers if the connection ends within a value.
		if !strings.HasPrefix(got, want) || whole && want != "" && got != want {
			t.Errorf("%q\ngot  %q\nwant %q", sent, got, want)
		}
	}
}

var versions = regexp.MustCompile(`( c|cas=|VALUE \S+ \d+ \d+ )[1-9]\d*`)

// lastWords returns all answers to a connection that ends.
func lastWords(t *testing.T, nc *memcachedtest.Conn, sent string) string {
	t.Helper()
	defer nc.Close()
	_, _ = nc.Write([]byte(sent))
	_ = nc.Conn.(*net.UnixConn).CloseWrite()
	_ = nc.SetReadDeadline(testenv.Deadline())
	b, err := io.ReadAll(nc)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	return strings.ReplaceAll(versions.ReplaceAllString(string(b), "${1}V"), "-cachesidecar", "")
}

// FuzzText sends any bytes. The connection ends when the client has ended it, and the
// next one is served.
func FuzzText(f *testing.F) {
	h := doors.Serve(f, onehost.Config{})
	h.Text() // which starts the endpoint
	f.Add([]byte("set a 0 0 1\r\nx\r\nget a b\r\nquit\r\n"), uint8(200))
	f.Add([]byte("ms a 2 c T0 I\r\nxx\r\nmg a v N30 t\r\nma n N0 J5\r\nmd a q\r\nmn\r\n"), uint8(3))
	f.Add([]byte("set a 0 0 99999999\r\nxx\r\n"), uint8(1))
	f.Add([]byte("\x80\x01\x00\x00get /x HTTP/1.1\r\nHost: a\r\n\r\n"), uint8(9))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		for i, one := range [][]byte{b, []byte("mn\r\n")} {
			nc, err := h.Connect(h.Servers["memcached over unix"])
			testenv.Must(t, err)
			for step := int(piece) + 1; len(one) > 0; one = one[min(step, len(one)):] {
				if _, err := nc.Write(one[:min(step, len(one))]); err != nil {
					break
				}
			}
			_ = nc.(*net.UnixConn).CloseWrite()
			_ = nc.SetReadDeadline(testenv.Deadline())
			said, err := io.ReadAll(nc)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Error("the connection does not end")
			}
			if nc.Close(); i == 1 && string(said) != "MN\r\n" {
				t.Errorf("then %q", said)
			}
		}
	})
}
