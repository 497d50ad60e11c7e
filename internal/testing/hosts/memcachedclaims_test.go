package hosts

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestMemcachedClaimsAreFresh stores the value of a claim after something else has changed the
// key: it is not stored over it.
func TestMemcachedClaimsAreFresh(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	_, b, path := textPair(t, Config{})
	for n, change := range []string{
		"set %s 0 0 3\r\nnew", "ms %s 3\r\nnew", "delete %s", "md %s", "flush_all", "add %s 0 0 3\r\nnew",
		"set %s 0 0 1\r\n5|incr %s 1", "set %s 0 0 3\r\nnew|delete %s", "ma %s N0", "set %s 0 -1 1\r\nx", "md %s I",
	} {
		for _, owned := range []bool{true, false} {
			key := keysIn(b.Sidecar, "default", fmt.Sprint("k", n, "-"), owned, 1)[0]
			c, other := dialText(t, "unix", path), dialText(t, "unix", path)
			c.Send("mg " + key + " v c N30\r\n")
			number := strings.TrimSuffix(strings.TrimPrefix(c.Line(), "VA 0 c"), " W")
			if c.Line() != "" {
				t.Fatal("no claim")
			}
			for _, one := range strings.Split(strings.ReplaceAll(change, "%s", key), "|") {
				other.Send(one + "\r\n")
				other.Line()
			}
			other.Send("get " + key + "\r\nmn\r\n")
			was := other.UntilNoop()
			c.Send("ms " + key + " 3 C" + number + "\r\nold\r\n")
			said := c.Line()
			other.Send("get " + key + "\r\nmn\r\n")
			if is := other.UntilNoop(); strings.Contains(is, "old") || is != was || said == "HD" {
				t.Errorf("%.40q, owned %v: %q; it was %q and is %q", change, owned, said, was, is)
			}
		}
	}
}

// TestMemcachedClaimsLeaveNoReads claims many keys of another host. Each mg is a GET first, and
// then a METAGET; none counts as a read that waits for its answer once it is answered. Otherwise
// long values would find no room any more.
func TestMemcachedClaimsLeaveNoReads(t *testing.T) {
	t.Parallel()
	_, b, path := textPair(t, Config{})
	c := dialText(t, "unix", path)
	for _, key := range keysIn(b.Sidecar, "default", "missing", false, 40) {
		c.Ask("mg "+key+" v N30", "VA 0 W", "")
	}
	long := strings.Repeat("x", 500_000)
	for _, key := range keysIn(b.Sidecar, "default", "long", false, 3) {
		c.Ask("set "+key+" 0 0 500000\r\n"+long, "STORED")
		c.Ask("mg "+key+" v", "VA 500000", long)
	}
}
