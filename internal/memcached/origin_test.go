package memcached_test

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// withOrigin has the settings of a host whose default namespace has an origin.
func withOrigin(o *onehost.Origin, through bool) onehost.Config {
	return onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) {
		s.Origin, s.Guard.Breaker.Failures = o.ReadOnly(), 1000
		if through {
			s.Origin, s.WriteThrough = o.Writable(), true
		}
	})}
}

// TestTextLoads reads keys of an origin with each command at once. Each key is loaded once,
// and no client gets a claim.
func TestTextLoads(t *testing.T) {
	o := onehost.NewOrigin(50 * time.Millisecond)
	doors.Virtually(t, withOrigin(o, false), func(t *testing.T, h *doors.Host) {
		all := []string{"a", "b", "c"}
		for _, key := range all {
			o.Put(key, []byte("the row"))
		}
		var wg sync.WaitGroup
		for i := range 12 {
			c := h.Text()
			wg.Go(func() {
				for n := range all {
					key := all[(n+i)%len(all)]
					switch i % 4 {
					case 0:
						c.Ask("get "+key, "VALUE "+key+" 0 7", "the row", "END")
					case 1:
						c.Send("gets " + key + " " + key + "\r\n")
						for range 2 {
							if line := c.Line(); !strings.HasPrefix(line, "VALUE "+key+" 0 7 ") || c.Line() != "the row" {
								t.Errorf("gets %s: %q", key, line)
							}
						}
						c.Ask("mn", "END", "MN")
					case 2:
						c.Ask("mg "+key+" v s", "VA 7 s7", "the row")
					default:
						c.Ask("mg "+key+" v N30", "VA 7", "the row")
					}
				}
			})
		}
		wg.Wait()
		c := h.Text()
		c.Ask("delete a", "DELETED")
		c.Ask("get a", "VALUE a 0 7", "the row", "END")
		c.Ask("get none", "END")
		c.Ask("mg nothing v N30", "EN") // the origin says so: there is nothing to load
		if o.Asked("a") != 2 || o.Asked("b") != 1 || o.Asked("c") != 1 {
			t.Errorf("%d, %d and %d loads, want 2, 1 and 1", o.Asked("a"), o.Asked("b"), o.Asked("c"))
		}
	})
}

// TestTextLoadsFail reads keys while the origin fails. A key that is asked for alone is
// answered SERVER_ERROR, and one among others is left out.
func TestTextLoadsFail(t *testing.T) {
	o := onehost.NewOrigin(time.Millisecond)
	doors.Virtually(t, withOrigin(o, false), func(t *testing.T, h *doors.Host) {
		c := h.Text()
		c.Ask("set there 0 0 1\r\nx", "STORED")
		o.Fail(errors.New("connection refused"))
		for _, command := range []string{"get k", "gets k", "mg k v", "mg k v N30", "gat 0 k"} {
			if c.Send(command + "\r\n"); !strings.HasPrefix(c.Line(), "SERVER_ERROR ORIGIN: ") {
				t.Errorf("%q is not answered SERVER_ERROR ORIGIN", command)
			}
		}
		c.Ask("get k there", "VALUE there 0 1", "x", "END")
		c.Ask("set k 0 0 1\r\ny", "STORED") // no load is needed for it
		c.Ask("get k", "VALUE k 0 1", "y", "END")
		o.Fail(nil)
		c.Ask("delete k", "DELETED")
		c.Ask("get k", "END")
		c.Ask("delete k\r\nmn", "NOT_FOUND", "MN")
	})
}

// TestTextWriteThrough changes keys of a namespace that writes through. The origin has each
// change that is acknowledged, and none that is not.
func TestTextWriteThrough(t *testing.T) {
	o := onehost.NewOrigin(time.Millisecond)
	doors.Virtually(t, withOrigin(o, true), func(t *testing.T, h *doors.Host) {
		c := h.Text()
		has := func(want string) {
			t.Helper()
			if r := h.Get("k", 0); string(r.Value) != want || o.Row("k") != want {
				t.Errorf("%q, the origin has %q, want %q", r.Value, o.Row("k"), want)
			}
		}
		c.Ask("set k 0 0 3\r\none", "STORED")
		has("one")
		c.Ask("ms k 3\r\ntwo", "HD")
		has("two")
		for _, command := range []string{
			"add k 0 0 1\r\nx", "replace k 0 0 1\r\nx", "append k 0 0 1\r\nx", "prepend k 0 0 1\r\nx",
			"cas k 0 0 1 1\r\nx", "incr k 1", "md k C1",
		} {
			if c.Send(command + "\r\n"); !strings.HasPrefix(c.Line(), "CLIENT_ERROR ") {
				t.Errorf("%q is not refused", command)
			}
		}
		has("two")
		c.Ask("touch k 100", "TOUCHED")
		o.Commits(func(bool) error { return errors.New("read only") })
		for _, command := range []string{"set k 0 0 1\r\nx", "delete k"} {
			c.Send(command + "\r\n")
			if line := c.Line(); !strings.HasPrefix(line, "SERVER_ERROR TIMEOUT: ") {
				t.Errorf("%q, which the origin fails: %q", command, line)
			}
		}
		o.Commits(nil)
		has("two")
		c.Ask("delete k", "DELETED")
		has("")
	})
}

// TestTextExpiryLeavesOrigin ends values of a namespace that writes through with each command
// that can: with a time that is over, and with a value that is too long. The cache has none
// afterwards, and the origin keeps its row. A condition is compared with what the cache has.
func TestTextExpiryLeavesOrigin(t *testing.T) {
	o := onehost.NewOrigin(time.Millisecond)
	cfg := withOrigin(o, true)
	cfg.MaxValue = 100
	doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
		o.Put("other", []byte("two"))
		c := h.Text()
		long := strings.Repeat("x", 101)
		for _, tc := range []struct {
			command, want string
			stays         bool // the cache has the value afterwards
		}{
			{"touch k -1", "TOUCHED|", false},
			{"touch none -1", "NOT_FOUND|", true},
			{"touch k 100", "TOUCHED|", true},
			{"gat -1 k", "VALUE k 0 3|one|END|", false},
			{"gats -1 k", "VALUE k 0 3 <cas>|one|END|", false},
			{"gat -1 other k", "VALUE other 0 3|two|VALUE k 0 3|one|END|", false},
			{"mg k v T-1", "VA 3|one|", false},
			{"md k I T-1", "HD|", false},
			{"md k I T-1 C1", "EX|", true},
			{"md k I T-1 C<cas>", "HD|", false},
			{"set k 0 -1 3\r\ntwo", "STORED|", false},
			{"set k 0 -1 3 noreply\r\ntwo", "", false},
			{"ms k 3 T-1\r\ntwo", "HD|", false},
			{"ms k 3 q T-1\r\ntwo", "", false},
			{"add k 0 -1 3\r\ntwo", "NOT_STORED|", true},
			{"replace k 0 -1 3\r\ntwo", "STORED|", false},
			{"ms k 3 MR T-1\r\ntwo", "HD|", false},
			{"cas k 0 -1 3 1\r\ntwo", "EXISTS|", true},
			{"cas k 0 -1 3 <cas>\r\ntwo", "STORED|", false},
			{"ms k 3 T-1 C<cas>\r\ntwo", "HD|", false},
			{"set k 0 0 101\r\n" + long, "SERVER_ERROR object too large for cache|", false},
			{"ms k 101\r\n" + long, "SERVER_ERROR object too large for cache|", false},
		} {
			c.Ask("set k 0 0 3\r\none", "STORED")
			cas := strconv.FormatUint(h.Get("k", 0).Version, 10)
			c.Send(strings.ReplaceAll(tc.command, "<cas>", cas) + "\r\nmn\r\n")
			if got, want := c.UntilNoop(), strings.ReplaceAll(tc.want, "<cas>", cas); got != want {
				t.Errorf("%.40q: %q, want %q", tc.command, got, want)
			}
			if there := h.Get("k", wire.NoLoad).Status == wire.OK; there != tc.stays {
				t.Errorf("%.40q: the cache has the value: %v, want %v", tc.command, there, tc.stays)
			}
			if row := o.Row("k"); row != "one" {
				t.Errorf("%.40q: the origin has %q, want what it had", tc.command, row)
			}
			c.Ask("get k", "VALUE k 0 3", "one", "END")
		}
		c.Ask("delete k", "DELETED")
		if row := o.Row("k"); row != "" {
			t.Errorf("the origin has %q after a delete", row)
		}
	})
}

// TestTextOrder sends commands of which some wait for the origin, without reading an answer.
// The answers come in the order of the commands, and each command finds what those before it
// have done.
func TestTextOrder(t *testing.T) {
	o := onehost.NewOrigin(50 * time.Millisecond)
	doors.Virtually(t, withOrigin(o, true), func(t *testing.T, h *doors.Host) {
		c := h.Text()
		c.Ask("set k 0 0 3\r\nold", "STORED")
		for _, tc := range []struct{ commands, want string }{
			{"set k 0 0 1\r\na\r\nmg k v\r\nget none k", "STORED|VA 1|a|VALUE k 0 1|a|END|"},
			{"set k 0 0 1\r\nb\r\nget k", "STORED|VALUE k 0 1|b|END|"},
			{"get k\r\ndelete k\r\nget k\r\nmg k", "VALUE k 0 1|b|END|DELETED|END|EN|"},
			{"set k 0 0 1 noreply\r\nc\r\ngat 100 k\r\nmd k q\r\ngets k", "VALUE k 0 1|c|END|END|"},
			{"set k 0 0 1\r\nd\r\nflush_all", "STORED|OK|"},
		} {
			c.Send(tc.commands + "\r\nmn\r\n")
			if got := c.UntilNoop(); got != tc.want {
				t.Errorf("%q: %q, want %q", tc.commands, got, tc.want)
			}
		}
		before := o.Asked("k")
		c.Ask("mg k v", "VA 1", "d")
		if n := o.Asked("k") - before; n != 1 {
			t.Errorf("the origin was asked %d times after a flush_all: it came before the set", n)
		}
	})
}

// TestTextTimes pipelines writes that take longer together than one request may: each has its own
// time, which begins with it.
func TestTextTimes(t *testing.T) {
	o := onehost.NewOrigin(300 * time.Millisecond)
	cfg := withOrigin(o, true)
	cfg.RequestTimeout = time.Second
	doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
		c := h.Text()
		const n = 20
		c.Send(strings.Repeat("set k 0 0 1\r\nx\r\n", n) + "mn\r\n")
		if got, want := c.UntilNoop(), strings.Repeat("STORED|", n); got != want {
			t.Errorf("%q", got)
		}
	})
}

// TestTextWithoutMemory asks for a long value with commands that change something, while
// there is no memory for the value. The answer is BUSY, and nothing was done. A value that is sent then
// is refused, in silence if its command wants no answer.
func TestTextWithoutMemory(t *testing.T) {
	doors.Virtually(t, onehost.Config{}, func(t *testing.T, h *doors.Host) {
		hog, most := h.Budget.Open("hog", ""), h.Budget.Size()-250_000
		c := h.Text()
		for _, key := range []string{"a", "b"} {
			c.Ask("set "+key+" 0 0 500000\r\n"+strings.Repeat("x", 500_000), "STORED")
		}
		c.Ask("md a I T60", "HD")
		for _, command := range []string{"mg a v N60", "gat 100 b", "get b"} {
			one := h.Text()
			one.Ask("mn", "MN")
			hog.Force(quota.ForAnswers, most)
			one.Send(command + "\r\n")
			if line := one.Line(); !strings.HasPrefix(line, "SERVER_ERROR BUSY: ") {
				t.Errorf("%q: %q", command, line)
			}
			hog.Give(quota.ForAnswers, most)
		}
		set := h.Text()
		set.Ask("mn", "MN")
		hog.Force(quota.ForAnswers, most)
		value := strings.Repeat("x", 500_000)
		set.Ask("set c 0 0 500000 noreply\r\n"+value+"\r\nmn", "MN")
		set.Ask("set c 0 0 500000\r\n"+value+"\r\nget c", "SERVER_ERROR out of memory storing object", "END")
		hog.Give(quota.ForAnswers, most)
		c.Send("mg a c N60\r\n")
		if line := c.Line(); !strings.HasSuffix(line, " X W") {
			t.Errorf("the claim is out: %q", line)
		}
		c.Ask("mg b t", "HD t-1")
	})
}
