package memcachedtest

import (
	"embed"
	"fmt"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

//go:embed scripts/*.txt
var scripts embed.FS

// Run holds a server to memcached, over connections that dial returns. early is by how much
// a value may end early, at most 2 % of its time: a copy of another host's value does.
func Run(t *testing.T, dial func(t *testing.T) *Conn, early bool) {
	t.Run("scripts", func(t *testing.T) { playAll(t, dial(t)) })
	t.Run("heads", func(t *testing.T) { heads(dial(t)) })
	t.Run("times", func(t *testing.T) { times(t, dial(t), early) })
	t.Run("renew touched", func(t *testing.T) { renewTouched(dial(t)) })
}

// playAll plays conversations. A line with > is sent, one with < expected. A number in braces
// is any one at its first place, and the same one after it.
func playAll(t *testing.T, c *Conn) {
	files, err := scripts.ReadDir("scripts")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		c.Ask("flush_all", "OK")
		c.play(path.Join("scripts", file.Name()))
	}
}

var number = regexp.MustCompile(`\{\w+\}`)

func (c *Conn) play(file string) {
	c.t.Helper()
	script, err := scripts.ReadFile(file)
	testenv.Must(c.t, err)
	bound := map[string]string{}
	var sent []byte
	for i, line := range strings.Split(strings.TrimSuffix(string(script), "\n"), "\n") {
		kind, text, _ := strings.Cut(line, " ")
		switch kind {
		case ">":
			text = number.ReplaceAllStringFunc(text, func(n string) string { return bound[n] })
			sent = append(append(sent, text...), "\r\n"...)
			continue
		case "<":
		default:
			continue
		}
		c.Send(string(sent))
		sent = nil
		if got := c.Line(); !same(got, text, bound) {
			c.t.Fatalf("%s:%d: got %q, want %q", file, i+1, got, text)
		}
	}
}

// same compares a line with what a script expects, and binds its numbers.
func same(got, want string, bound map[string]string) bool {
	names := number.FindAllString(want, -1)
	pattern := "^" + regexp.QuoteMeta(strings.NewReplacer("{", "<", "}", ">").Replace(want)) + "$"
	for _, n := range names {
		pattern = strings.Replace(pattern, "<"+strings.Trim(n, "{}")+">", `(-?\d+)`, 1)
	}
	m := regexp.MustCompile(pattern).FindStringSubmatch(got)
	if m == nil {
		return false
	}
	for i, n := range names {
		if was, ok := bound[n]; ok && was != m[i+1] {
			return false
		}
		bound[n] = m[i+1]
	}
	return true
}

// heads reads values of all lengths with the longest head: the value is moved to
// its end, and whole.
func heads(c *Conn) {
	key, opaque := strings.Repeat("k", 250), strings.Repeat("o", 31)
	for _, n := range []int{0, 1, 9, 10, 99, 100, 1000, 31 << 10, 32 << 10, 65 << 10, 500 << 10} {
		value := strings.Repeat("0123456789", n/10+1)[:n]
		c.Ask(fmt.Sprintf("ms %s %d F4294967295 T0\r\n%s", key, n, value), "HD")
		c.Ask("get "+key+" "+key, fmt.Sprintf("VALUE %s 4294967295 %d", key, n), value,
			fmt.Sprintf("VALUE %s 4294967295 %d", key, n), value, "END")
		flags := fmt.Sprintf("k%s O%s f4294967295 s%d t-1", key, opaque, n)
		c.Ask("mg "+key+" v k O"+opaque+" f s t", fmt.Sprintf("VA %d %s", n, flags), value)
		c.Ask("mg "+key+" k O"+opaque+" f s t", "HD "+flags)
	}
}

// times gives points in time: those behind us end a value, those to come say when
// it ends.
func times(t *testing.T, c *Conn, early bool) {
	now := testenv.Date().Unix()
	const month = 31 * 24 * 3600 // a point in 1970
	for _, past := range []int64{now - 1, now - 1000, month} {
		c.Ask("flush_all", "OK")
		c.Ask(fmt.Sprintf("add k 0 %d 1\r\na", past), "STORED")
		c.Ask("get k", "END")
		c.Ask("delete k", "NOT_FOUND")
		c.Ask(fmt.Sprintf("set k 0 0 1\r\na\r\nset k 0 %d 1\r\nb", past), "STORED", "STORED")
		c.Ask("get k", "END")
		c.Ask(fmt.Sprintf("set k 0 0 1\r\na\r\ntouch k %d", past), "STORED", "TOUCHED")
		c.Ask("get k", "END")
		c.Ask(fmt.Sprintf("ms k 1 T%d\r\na", past), "HD")
		c.Ask("mg k v", "EN")
		c.Ask(fmt.Sprintf("set k 0 0 1\r\na\r\ngat %d k\r\nget k", past), "STORED", "VALUE k 0 1", "a", "END", "END")
		c.Ask(fmt.Sprintf("set k 0 0 1\r\na\r\nmg k v T%d\r\nmg k v", past), "STORED", "VA 1", "a", "EN")
	}
	by := int64(1) // s
	if early {
		by = 22
	}
	ends := func(command, answer string) {
		t.Helper()
		c.Ask(command, answer)
		var left int64
		before := testenv.Date().Unix()
		c.Send("mg k t\r\n")
		line := c.Line()
		after := testenv.Date().Unix()
		_, err := fmt.Sscanf(line, "HD t%d", &left)
		if err != nil || after+left < now+1000-by || before+left > now+1002 {
			t.Errorf("%s: %q at %d to %d, %v: the value ends at another time than %d",
				command, line, before, after, err, now+1000)
		}
	}
	ends(fmt.Sprintf("set k 0 %d 1\r\na", now+1000), "STORED")
	c.Ask("touch k 0", "TOUCHED")
	ends(fmt.Sprintf("touch k %d", now+1000), "TOUCHED")
	ends(fmt.Sprintf("ms k 1 T%d\r\na", now+1000), "HD")
	c.Ask(fmt.Sprintf("flush_all %d", now+1000), "OK")
	c.Ask("mg k v", "VA 1", "a")
	for i := range 16 { // of several hosts, which do not drop them at the same moment
		c.Ask(fmt.Sprintf("set k%d 0 0 1\r\na", i), "STORED")
	}
	c.Ask(fmt.Sprintf("flush_all %d", now+1), "OK")
	for i := range 16 {
		testenv.Eventually(t, "a flush_all of a point in time", func() bool {
			c.Send(fmt.Sprintf("mg k%d\r\n", i))
			return c.Line() == "EN"
		})
	}
}

// renewTouched touches a value that ends soon in the command that asks whether to load
// it anew. The time before the touch counts: else a value that is read often would never be loaded
// anew.
func renewTouched(c *Conn) {
	c.Ask("set soon 0 20 1\r\nx", "STORED")
	c.Ask("mg soon v R30 T100", "VA 1 W", "x")
	c.Ask("set late 0 50 1\r\nx", "STORED")
	c.Ask("mg late v R30 T10", "VA 1", "x")
	c.Ask("set always 0 0 1\r\nx", "STORED")
	c.Ask("mg always v R30 T10", "VA 1", "x")
}
