package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// TestMeetsEverMoreSeldom checks that a process that does not answer is greeted less
// and less often, at any addresses. The number of remembered names is limited.
func TestMeetsEverMoreSeldom(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var m attempts
		tries := func(u func(i int) *gossip.Unknown, d time.Duration) (n int) {
			for end, i := time.Now().Add(d), 0; time.Now().Before(end); i++ {
				if o := u(i); m.begin(o, time.Now()) {
					n++
					m.end(o, fmt.Errorf("refused"))
				}
				time.Sleep(10 * time.Millisecond)
			}
			return n
		}
		at := func(name, address string) *gossip.Unknown {
			return &gossip.Unknown{Node: name, Meta: gossip.Meta{Address: address}}
		}
		for name, u := range map[string]func(i int) *gossip.Unknown{
			"one":         func(int) *gossip.Unknown { return at("a", "a:1") },
			"one at many": func(i int) *gossip.Unknown { return at("b", fmt.Sprint("b:", i)) },
		} {
			if n := tries(u, time.Minute); n < 10 || n > 25 {
				t.Errorf("%s: %d greetings in a minute", name, n)
			}
		}
		one := at("a", "a:1")
		if m.failure(one) == "" {
			t.Error("it does not say why")
		}
		time.Sleep(2 * lastRetry)
		if !m.begin(one, time.Now()) {
			t.Error("it is given up")
		}
		m.end(one, nil)
		if !m.begin(one, time.Now()) || m.failure(one) != "" {
			t.Error("what has answered is remembered as if it had not")
		}
		for i := range 4 * maxTried {
			m.begin(at(fmt.Sprint("n", i), fmt.Sprint("a", i)), time.Now())
		}
		if len(m.tried) > maxTried+1 {
			t.Errorf("%d are remembered", len(m.tried))
		}
	})
}

// TestAcquaintancesAreBounded checks that the number of known processes is limited.
func TestAcquaintancesAreBounded(t *testing.T) {
	var k processSet
	for i := range 2 * maxKnown {
		id := kv.Process{Node: "n", Epoch: kv.Epoch(i)}
		if !k.add(id) || k.add(id) || !k.has(id) {
			t.Fatalf("at %d", i)
		}
	}
	if len(k.m) > maxKnown {
		t.Errorf("%d are remembered", len(k.m))
	}
	id := kv.Process{Node: "m"}
	k.add(id)
	if k.drop(id); k.has(id) {
		t.Error("it is not dropped")
	}
}
