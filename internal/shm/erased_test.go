package shm

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// nothingOf checks that a region has no bytes of a text.
func nothingOf(t *testing.T, m memory, text string) {
	t.Helper()
	if at := bytes.Index(m, []byte(text)); at >= 0 {
		t.Errorf("at %d is still %.100q", at, m[at:])
	}
}

// in publishes an entry of a namespace in a region.
func (g *rig) in(r *Region, ns kv.NamespaceID, key, value string) {
	g.t.Helper()
	e := g.entry(key, value)
	e.Key.Namespace = ns
	e.Taken = g.Take(ns, e.Key.Hash)
	if !g.Publish(r, e, yes) {
		g.t.Fatalf("%s was not published", key)
	}
}

// A namespace that is flushed, or no longer shared, leaves no bytes, wherever its entries lie in
// the ring. The others stay.
func TestNamespaceErased(t *testing.T) {
	for name, end := range map[string]func(g *rig){
		"flushed":      func(g *rig) { g.EndNamespace(4) },
		"not shared":   func(g *rig) { g.SetNamespace(4, Space{}) },
		"another name": func(g *rig) { g.SetNamespace(4, Space{Name: "third", Bound: second}) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, MinSize)
			g.SetNamespace(4, Space{Name: "others", Bound: second})
			for n := range 15 { // it ends at another place of the ring each time
				for i := range 300 + 7*n {
					key := fmt.Sprintf("secret-%d", i)
					g.in(g.region, 4, key, strings.Repeat("secret.", (i*37+n)%2000))
					g.publish(fmt.Sprintf("k%d", i), strings.Repeat("open-", i%100))
				}
				end(g)
				nothingOf(t, g.r.mem, "secret")
				if n := g.region.listed[4].Load(); n != 0 {
					t.Fatalf("%d entries are counted", n)
				}
				last := 300 + 7*n - 1
				g.expect(fmt.Sprintf("k%d", last), strings.Repeat("open-", last%100), start)
				if g.SetNamespace(4, Space{Name: "others", Bound: second}); t.Failed() {
					return
				}
			}
		})
	}
}

// A publisher that has begun before a flush leaves no bytes, even if nothing else stops it.
func TestFlushedMeanwhile(t *testing.T) {
	for name, end := range map[string]func(g *rig){
		"flushed":    func(g *rig) { g.EndNamespace(3) },
		"not shared": func(g *rig) { g.SetNamespace(3, Space{}) },
	} {
		g := newRig(t, MinSize)
		late := g.entry("secret key", "secret value")
		end(g)
		if g.Publish(g.region, late, yes) {
			t.Errorf("%s: published", name)
		}
		nothingOf(t, g.r.mem, "secret")
	}
}

// Of a key that is written again and again, only the last value has bytes there.
func TestOverwrittenErased(t *testing.T) {
	g := newRig(t, MinSize)
	for i := range 2000 {
		g.publish("a", fmt.Sprintf("[%d]", i)+strings.Repeat("x", i*31%MaxValue/2))
		if i%3 == 0 {
			g.Withdraw(g.entry("a", "").Key.Hash)
		}
		if i > 0 && i%97 == 0 {
			for before := i - 97; before < i; before++ {
				nothingOf(t, g.r.mem, fmt.Sprintf("[%d]", before))
			}
		}
	}
	g.Withdraw(g.entry("a", "").Key.Hash)
	nothingOf(t, g.r.mem[atIndex:], "xx")
}

// A region that has ended has no entries, and gets none.
func TestEndErases(t *testing.T) {
	g := newRig(t, MinSize)
	for i := range 30_000 { // the ring has gone around
		g.publish(fmt.Sprintf("secret key %d", i), "secret value")
	}
	late := g.entry("secret key", "secret value")
	g.End(g.region)
	if g.Publish(g.region, late, yes) {
		t.Error("published after the end")
	}
	if !g.r.Closed() {
		t.Error("it is not closed")
	}
	if index := g.r.mem[atIndex:]; !bytes.Equal(index, make([]byte, len(index))) {
		t.Error("there are bytes in index or log")
	}
	g.Withdraw(late.Key.Hash) // without a region
	g.RaisePartitions(kv.NewPartitionSet(kv.Partitions))
}

// Each region has what was published there, and knows of the namespaces that it shows. Changes
// reach all of them.
func TestRegions(t *testing.T) {
	g := newRig(t, MinSize)
	g.SetNamespace(4, Space{Name: "hidden", Bound: second})
	other := &rig{t: t, Writer: g.Writer, file: newFile(t, MinSize)}
	other.region = g.Attach(other.file, 1, 2*second, func(name string) bool { return name != "hidden" })
	other.r = mapped(t, other.file)
	other.view, _ = other.r.Find("users")
	g.in(g.region, 3, "secret key", "secret value")
	g.expect("a", "", start)
	nothingOf(t, other.r.mem, "secret")
	nothingOf(t, other.r.mem, "hidden")
	if _, ok := other.r.Find("hidden"); ok {
		t.Error("a region tells of a namespace that its readers may not read")
	}
	for name, change := range map[string]func(){
		"a change": func() { g.Withdraw(g.entry("a", "").Key.Hash) },
		"a flush":  func() { g.EndNamespace(3) },
		"a partition": func() {
			raised := kv.NewPartitionSet(kv.Partitions)
			raised.Add(g.entry("a", "").Key.Hash.Partition())
			g.RaisePartitions(raised)
		},
		"a pause": func() { g.Revoke() },
	} {
		g.publish("a", "one")
		other.publish("a", "one")
		g.expect("a", "one", start)
		other.expect("a", "one", start)
		change()
		if _, ok := g.get("a", start); ok {
			t.Errorf("%s does not reach the first region", name)
		}
		if _, ok := other.get("a", start); ok {
			t.Errorf("%s does not reach the second region", name)
		}
		g.Certify(0, start)
	}
	g.End(g.region)
	if other.publish("b", "two"); g.r.mem.word(atState).Load() != Closed {
		t.Error("the first region is not closed")
	}
	other.expect("b", "two", start)
}

// Flushes beside publishers leave nothing that was published before the last of them.
func TestErasedBesidePublishers(t *testing.T) {
	g := newRig(t, MinSize)
	var done atomic.Bool
	var group sync.WaitGroup
	for n := range 2 {
		group.Go(func() {
			for i := 0; !done.Load(); i++ {
				key := fmt.Sprintf("secret-%d-%d", n, i%300)
				g.Publish(g.region, g.entry(key, strings.Repeat("secret.", i%500)), yes)
				if i%5 == 0 {
					g.Withdraw(g.entry(key, "").Key.Hash)
				}
			}
		})
	}
	for range 200 {
		g.EndNamespace(3)
	}
	done.Store(true)
	group.Wait()
	g.EndNamespace(3)
	nothingOf(t, g.r.mem, "secret")
	if n := g.region.listed[3].Load(); n != 0 {
		t.Errorf("%d entries are counted", n)
	}
}
