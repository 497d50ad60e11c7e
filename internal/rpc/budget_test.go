package rpc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// startSet queues a SET of size bytes for an account.
func startSet(t *testing.T, c *Client, a *quota.Account, key string, size int) error {
	t.Helper()
	q := &wire.Request{Op: wire.OpSet, Key: []byte(key), Value: make([]byte, size)}
	defer c.Flush()
	return c.Start(q, time.Minute, &Call{over: make(chan struct{}, 1), account: a})
}

// TestQueueOfTheGreedy checks that a process with a full share of requests to other hosts
// does not block others: another process of the same user still sends its requests to
// these hosts, and so does this host.
func TestQueueOfTheGreedy(t *testing.T) {
	const long, short = 1 << 20, longRequest - 1
	for _, test := range []struct {
		name        string
		budget      int64
		links, size int
		// givenUp: the bytes to be sent outlive their request. bytes: MaxQueued is
		// reached first.
		givenUp, bytes bool
	}{
		{name: "long ones", budget: 16 << 20, links: 1, size: long},
		{name: "long ones that were given up", budget: 16 << 20, links: 1, size: long, givenUp: true},
		{name: "short ones that were given up", budget: 16 << 20, links: 1, size: short, givenUp: true},
		{name: "to many hosts", budget: 16 << 20, links: 3, size: long, givenUp: true},
		{name: "a link's bytes, long ones", budget: 256 << 20, links: 1, size: long, givenUp: true, bytes: true},
		{name: "a link's bytes, short ones", budget: 256 << 20, links: 1, size: short, givenUp: true, bytes: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := quota.NewBudget(test.budget)
			var links []*Client
			for i := range test.links {
				c := newClient(socketPair(t)[0], ClientConfig{Budget: b, Owner: fmt.Sprint("node ", i), WriteTimeout: time.Minute, MaxQueued: 24 << 20})
				defer c.Close()
				links = append(links, c)
			}
			set := func(a *quota.Account, c *Client) error {
				// The request that waits.
				if err := a.Take(quota.ForRequests, int64(test.size)); err != nil {
					return err
				}
				if test.givenUp {
					defer a.Give(quota.ForRequests, int64(test.size))
				}
				return startSet(t, c, a, "k", test.size)
			}
			greedy, other := b.Open("uid 1", "pid 1"), b.Open("uid 1", "pid 2")
			for i, refused := 0, 0; refused < test.links; i++ {
				if err := set(greedy, links[i%len(links)]); err == nil {
					refused = 0
				} else if refused++; errors.Is(err, quota.ErrBusy) == test.bytes {
					t.Fatal(err)
				}
				if b.Stats().Total() > b.Size() {
					t.Fatal("the greedy one is never refused")
				}
			}
			for i, c := range links {
				if err := set(other, c); err != nil {
					t.Errorf("another, to host %d: %v", i, err)
				}
				err := c.Start(&wire.Request{Op: wire.OpFetch, Body: make([]byte, 100)}, time.Minute, &Call{over: make(chan struct{}, 1)})
				if err != nil {
					t.Errorf("this host, to host %d: %v", i, err)
				}
			}
		})
	}
}

// TestLongRequests checks that a request with a long value is long, and so is one with
// many keys.
func TestLongRequests(t *testing.T) {
	keys := make([][]byte, wire.MaxKeys)
	for i := range keys {
		keys[i] = make([]byte, longRequest/wire.MaxKeys)
	}
	for _, q := range []*wire.Request{
		{Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, longRequest)},
		{Op: wire.OpDelete, Keys: keys},
		{Op: wire.OpMGet, Keys: keys},
	} {
		var r requests
		if r.add(q, nil, testenv.Date()); r.long.Len() != 1 {
			t.Errorf("%s is sent with what is short", q.Op)
		}
	}
}

// TestOrderOfRequests checks the order when many long requests of one process wait to be
// sent to another host. Short requests wait for one of them at most, and a long request
// of another process waits for two.
func TestOrderOfRequests(t *testing.T) {
	b := quota.NewBudget(256 << 20)
	conns := socketPair(t)
	c := newClient(conns[0], ClientConfig{Budget: b, Owner: "node b", WriteTimeout: time.Minute})
	defer c.Close()
	greedy, other := b.Open("uid 1", "pid 1"), b.Open("uid 1", "pid 2")
	send := func(a *quota.Account, key string, size int) {
		testenv.Must(t, startSet(t, c, a, key, size))
	}
	for range 20 {
		send(greedy, "greedy", 1<<20)
	}
	send(other, "long", 1<<20)
	send(greedy, "short", 10)
	send(other, "short", 10)
	var keys []string
	for len(keys) < 23 {
		var q wire.Request
		if frame, err := tryReadFrame(conns[1]); err != nil {
			t.Fatal(err)
		} else if err := wire.DecodeRequest(frame, &q); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(q.Key))
	}
	if want := []string{"greedy", "short", "short", "greedy", "long", "greedy"}; !slices.Equal(keys[:6], want) {
		t.Errorf("sent are %v, want %v first", keys, want)
	}
}

// TestOrderOfManyShort checks that many requests that are nearly long do not delay a
// short one of another process.
func TestOrderOfManyShort(t *testing.T) {
	b := quota.NewBudget(256 << 20)
	conns := socketPair(t)
	c := newClient(conns[0], ClientConfig{Budget: b, Owner: "node b", WriteTimeout: time.Minute})
	greedy, other := b.Open("uid 1", "pid 1"), b.Open("uid 1", "pid 2")
	for i := range 500 {
		testenv.Must(t, startSet(t, c, greedy, "greedy", max(longRequest-1, 1<<20*(1-i))))
	}
	testenv.Must(t, startSet(t, c, other, "short", 10))
	for before := 0; ; before++ {
		var q wire.Request
		if frame, err := tryReadFrame(conns[1]); err != nil {
			t.Fatal(err)
		} else if err := wire.DecodeRequest(frame, &q); err != nil {
			t.Fatal(err)
		}
		if string(q.Key) == "short" {
			if before > 10 {
				t.Errorf("a short one is sent after %d of another process", before)
			}
			break
		}
	}
	_ = c.Close()
	if n := c.requests.len(); n != 0 || !c.requests.sent.Empty() {
		t.Errorf("a link that has ended keeps bytes to be sent, %d of them in its queue", n)
	}
}

// TestClientWithoutRoom checks that an answer without memory is dropped, and that the
// answers behind it are not.
func TestClientWithoutRoom(t *testing.T) {
	dial := newPeer().listen(t)
	b := quota.NewBudget(1 << 20)
	c := newTestClient(t, dial, ClientConfig{Budget: b, Owner: "node b"})
	for i := range 5 {
		if _, err := c.Do(t.Context(), time.Minute, getRequest("big 3000000")); !errors.Is(err, ErrNoRoom) {
			t.Fatalf("a long answer: %v", err)
		}
		key := fmt.Sprint("key", i)
		call, err := c.Do(t.Context(), time.Minute, getRequest(key))
		if err != nil || !strings.Contains(string(call.Frame()), key) {
			t.Fatalf("behind it: %v", err)
		}
		c.Release(call)
	}
	if st := b.Stats(); st.Total() != 0 || st.RefusedFor["peers"] != 5 {
		t.Errorf("%+v", st)
	}
}
