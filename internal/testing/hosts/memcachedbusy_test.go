package hosts

import (
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestVirtualMemcachedClaimsWithoutMemory takes all memory once an mg has won a claim, before it is
// answered. The client is not told BUSY, as if nothing had happened: its connection ends. BUSY is
// for those that have won nothing.
func TestVirtualMemcachedClaimsWithoutMemory(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		keys := w.keysOf(w.nodes[0], 2)
		key := keys[0]
		budget := w.nodes[1].s.engine.Budget
		hog, most := budget.Open("hog", ""), budget.Size()-250_000 // no room for a value, but for BUSY
		h := hooked{after: func(q *wire.Request, r *wire.Reply) {
			if q.Op == wire.OpMetaGet {
				hog.Force(quota.ForAnswers, most)
			}
		}}
		c := w.nodes[0].text()
		long := strings.Repeat("x", 500_000)
		c.Ask("set "+key+" 0 0 500000\r\n"+long, "STORED")
		c.Ask("md "+key+" I T60", "HD")
		c.Ask("set "+keys[1]+" 0 0 500000\r\n"+long, "STORED")
		winner := w.nodes[1].hookedText(h)
		winner.Send("mg " + key + " v N60\r\n")
		if line := winner.Line(); !strings.HasPrefix(line, " (") || strings.Contains(line, "timeout") {
			t.Errorf("the winner is answered %q, want the end of the connection", line)
		}
		hog.Give(quota.ForAnswers, most)
		if a := c.claim(key); !a.taken || !a.stale {
			t.Errorf("the claim is not out: %q", a.line)
		}
		h.after = func(*wire.Request, *wire.Reply) { hog.Force(quota.ForAnswers, most) }
		reader := w.nodes[1].hookedText(h)
		reader.Ask("get "+keys[1]+" none", "END") // a key that cannot be read beside others is a miss
		hog.Give(quota.ForAnswers, most)
		reader.Ask("mn", "MN")
	})
}

// TestVirtualMemcachedClaimsWithoutPlaces takes the places of requests that wait. An mg of another
// host's key is BUSY, and wins nothing that its client would not know of. If the places go after its
// GET, it wins, since it keeps its own.
func TestVirtualMemcachedClaimsWithoutPlaces(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		keys := w.keysOf(w.nodes[0], 2)
		total := func(n int64) {
			for _, v := range w.nodes {
				v.s.engine.Budget.SetTotal(quota.Waiting, n)
			}
		}
		before := w.nodes[0].s.engine.Budget.Total(quota.Waiting)
		c, here := w.nodes[1].text(), w.nodes[0].text()
		total(0)
		if a := c.claim(keys[0]); !strings.HasPrefix(a.line, "SERVER_ERROR BUSY: ") {
			t.Errorf("without places: %q", a.line)
		}
		if a := here.claim(keys[0]); !a.won { // in place
			t.Errorf("nobody has won, and now: %q", a.line)
		}
		total(before)
		late := w.nodes[1].hookedText(hooked{before: func(q *wire.Request) {
			if q.Op == wire.OpMetaGet {
				total(0)
			}
		}})
		if a := late.claim(keys[1]); !a.won {
			t.Errorf("the places go after the GET: %q", a.line)
		}
		total(before)
		time.Sleep(time.Second)
		if a := c.claim(keys[1]); !a.taken {
			t.Errorf("then: %q", a.line)
		}
	})
}
