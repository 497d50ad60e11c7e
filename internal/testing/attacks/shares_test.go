package attacks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

var shareAttacks = []attack{
	{
		name:  "lease tokens",
		tries: "18 connections that take tokens of new keys and load nothing; half of them give them back and take others",
		bound: "tokens in fair shares",
		also:  []also{loads}, shares: true, run: takeTokens,
	},
	{
		name:  "watches",
		tries: "80 connections that each keep 16 WATCH requests waiting",
		bound: "WATCH places in fair shares",
		also:  []also{watches}, shares: true, run: takeWatches,
	},
	{
		name:  "memcached: idle connections",
		tries: "2,000 connections to memcached's port that ask for its version and stay",
		bound: "connections in fair shares of users, also over TCP",
		also:  []also{connects, speaks}, tcp: true, lasts: longer,
		config: func(_ testing.TB, origin, _ string) string { return "memcached: " + origin + "\n" },
		run:    func(ctx context.Context, j *job) error { return holdAt(ctx, j, j.Target.Origin, "version\r\n") },
	},
	{
		name:  "namespaces",
		tries: "a SET under each of 300 new namespaces, again and again",
		bound: "namespaces in fair shares of users",
		also:  []also{names},
		run: func(ctx context.Context, j *job) error {
			for n := 0; ctx.Err() == nil; n++ {
				c, err := open(ctx, j.victim().Socket, 5*time.Second)
				if err != nil {
					continue
				}
				for i := range 300 {
					if a, err := c.call(wire.OpSet, 0, fmt.Sprintf("hog%d", i), []byte("k"), []byte("v")); err == nil && a.status == wire.OK {
						j.count.Add(1)
					}
				}
				_ = c.Close()
			}
			return nil
		},
	},
	{
		name:  "unread answers",
		tries: "4 connections that ask 1,000 times for 4 MB of this host and read nothing",
		bound: ofBytes,
		also:  []also{large}, shares: true,
		run: func(ctx context.Context, j *job) error { return unread(ctx, j, "") },
	},
	{
		name:  "unread answers of another host",
		tries: "4 connections that ask 1,000 times for 4 MB of another host and read nothing",
		bound: ofBytes,
		hosts: 2, also: []also{large}, shares: true,
		run: func(ctx context.Context, j *job) error { return unread(ctx, j, j.Target.Hosts[1].Node) },
	},
	{
		name:  "writes that wait for all hosts",
		tries: "4 connections that send SETs of 1 MiB with ack_all to another host's keys",
		bound: ofBytes,
		hosts: 2, also: []also{large}, shares: true, run: writeAckAll,
	},
	{
		name:  "tokens of another host",
		tries: "lease tokens, as above, half of them of another host's keys",
		bound: ofEntry,
		hosts: 2, also: []also{loads}, shares: true, run: takeTokens,
	},
	{
		name:  "claims of another host",
		tries: "8 connections that each take 4,000 claims of an hour, and end; half of them of another host's keys",
		bound: ofEntry,
		hosts: 2, also: []also{loads}, shares: true, run: takeClaims,
	},
	{
		name:  "LEASEs that wait for another host",
		tries: "8 connections that each have 500 LEASEs of another host's keys wait for tokens that the attacker holds",
		bound: ofEntry,
		hosts: 2, also: []also{loads}, shares: true, run: waitForTokens,
	},
}

const ofEntry = "what another host gives is charged to the app that asks, on its own host"

func takeClaims(ctx context.Context, j *job) error {
	const hour = 3_600_000
	j.crowd(ctx, 8, func(i int) error {
		c, err := open(ctx, j.victim().Socket, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		for n := 0; n < 4000 && ctx.Err() == nil; n += 100 {
			var b []byte
			for k := range 100 {
				key := fmt.Appendf(nil, "claim%d-%d-%d", j.Round, i, n+k)
				b = append(b, frame(n+k+1, wire.OpMetaGet, 1000, nil, key, nil, wire.Claim|wire.Create, nil, hour)...)
			}
			if err := c.batch(b, 100); err != nil {
				return err
			}
			j.count.Add(100)
		}
		return nil
	})
	return nil
}

func waitForTokens(ctx context.Context, j *job) error {
	j.crowd(ctx, 8, func(i int) error {
		c, err := open(ctx, j.victim().Socket, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		keys, err := keysOf(c, j.Target.Hosts[1].Node, 500)
		if err != nil {
			return err
		}
		go func() { <-ctx.Done(); _ = c.Close() }()
		go discard(c) // ends with the connection
		for range 2 { // a token, and then a wait for it
			for _, key := range keys {
				if _, err := c.send(wire.OpLease, 20_000, fmt.Sprint("own", i), key); err != nil {
					return err
				}
				j.count.Add(1)
			}
			rest(ctx, time.Second)
		}
		<-ctx.Done()
		return nil
	})
	return nil
}

func takeTokens(ctx context.Context, j *job) error {
	j.crowd(ctx, 18, func(i int) error {
		c, err := open(ctx, j.victim().Socket, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		for n := 0; ctx.Err() == nil; n += 100 {
			var b []byte
			for k := range 100 {
				b = append(b, frame(n+k+1, wire.OpLease, 3_600_000, nil, fmt.Appendf(nil, "hog%d-%d-%d", j.Round, i, n+k))...)
			}
			if err := c.batch(b, 100); err != nil {
				return err
			}
			j.count.Add(100)
			switch {
			case n < 4000:
			case i%2 == 0:
				<-ctx.Done() // it has its tokens, and keeps them
			default:
				return nil // it gives all back, and takes them again
			}
		}
		return nil
	})
	return nil
}

func takeWatches(ctx context.Context, j *job) error {
	j.crowd(ctx, 80, func(int) error {
		c, err := open(ctx, j.victim().Socket, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		go func() { <-ctx.Done(); _ = c.Close() }()
		a, err := c.call(wire.OpWatch, 1000, nil, 0)
		if err != nil {
			return err
		}
		m, _ := a.at(0).(map[string]any)
		if m == nil {
			return errors.New("no place")
		}
		for range 16 {
			if _, err := c.send(wire.OpWatch, 3_600_000, nil, 0, m["epoch"], m["seq"], 3_600_000); err != nil {
				return err
			}
			j.count.Add(1)
		}
		_ = c.SetDeadline(time.Time{})
		for ctx.Err() == nil { // each answered request is sent again
			a, err := c.read()
			if err != nil {
				return err
			}
			if a.status == wire.Busy {
				rest(ctx, 50*time.Millisecond)
			}
			if m2, _ := a.at(0).(map[string]any); m2 != nil {
				m = m2
			}
			if _, err := c.send(wire.OpWatch, 3_600_000, nil, 0, m["epoch"], m["seq"], 3_600_000); err != nil {
				return err
			}
			_ = c.SetDeadline(time.Time{})
			j.count.Add(1)
		}
		return nil
	})
	return nil
}

// keysOf returns n keys that a host owns; if node is "", any keys.
func keysOf(c *conn, node string, n int) (keys [][]byte, err error) {
	for i := 0; len(keys) < n; i++ {
		k := fmt.Appendf(nil, "pend%d", i)
		if node != "" {
			a, err := c.call(wire.OpRing, 0, nil, k)
			if err != nil {
				return nil, err
			}
			if m, _ := a.at(0).(map[string]any); m["assigned_owner"] != node {
				continue
			}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// unread asks for large values on connections that it does not read from.
func unread(ctx context.Context, j *job, owner string) error {
	var keys [][]byte
	j.crowd(ctx, 1, func(int) error {
		c, err := open(ctx, j.victim().Socket, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if keys, err = keysOf(c, owner, 4); err != nil {
			return err
		}
		value := bytes.Repeat([]byte("4 megabytes "), 4_000_000/12)
		for _, k := range keys {
			if a, err := c.call(wire.OpSet, 5000, nil, k, value); err != nil || a.status != wire.OK {
				rest(ctx, 50*time.Millisecond)
			}
		}
		j.crowd(ctx, 4, func(int) error { return askAndForget(ctx, j, keys) })
		return nil
	})
	return nil
}

func askAndForget(ctx context.Context, j *job, keys [][]byte) error {
	c, err := open(ctx, j.victim().Socket, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if u, ok := c.Conn.(*net.UnixConn); ok {
		_ = u.SetReadBuffer(4096)
	}
	var b []byte
	for i := range 1000 {
		b = append(b, frame(i+10, wire.OpGet, 3_600_000, nil, keys[i%len(keys)], wire.Fresh)...)
	}
	go func() { <-ctx.Done(); _ = c.Close() }()
	_ = c.SetDeadline(time.Time{})
	if _, err := c.Write(b); err != nil {
		return err
	}
	j.count.Add(1000)
	// The write fails if the connection is cut off; then it connects again.
	for ctx.Err() == nil {
		if _, err := c.Write(frame(1, wire.OpPing, 0)); err != nil {
			return err
		}
		rest(ctx, 100*time.Millisecond)
	}
	return nil
}

func writeAckAll(ctx context.Context, j *job) error {
	value := bytes.Repeat([]byte("x"), 1<<20)
	j.crowd(ctx, 4, func(int) error {
		c, err := open(ctx, j.victim().Socket, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		keys, err := keysOf(c, j.Target.Hosts[1].Node, 20)
		if err != nil {
			return err
		}
		go func() { <-ctx.Done(); _ = c.Close() }()
		go discard(c) // ends with the connection
		for n := 0; ctx.Err() == nil; n++ {
			ns, key := fmt.Sprintf("ns%d", n%4), keys[n%len(keys)]
			if _, err := c.send(wire.OpSet, 60_000, ns, key, value, nil, 0, 0, 0, wire.AckAll); err != nil {
				return err
			}
			j.count.Add(1)
		}
		return nil
	})
	return nil
}

var floodAttacks = floods()

// floods returns one attack for each kind of request, sent without a pause.
func floods() (list []attack) {
	none := make([][]byte, 1000)
	for i := range none {
		none[i] = fmt.Appendf(nil, "none%d", i)
	}
	for _, f := range []struct {
		name, tries string
		many        int // requests per batch
		request     []any
		other       bool
		hosts       int // over 4 connections, of keys that two hosts own
	}{
		{"PING", "PINGs", 256, []any{wire.OpPing, 0}, false, 0},
		{"STATS", "STATS", 256, []any{wire.OpStats, 0}, false, 0},
		{"MEMBERS", "MEMBERS", 256, []any{wire.OpMembers, 0}, false, 0},
		{"FLUSH", "FLUSHes of a namespace", 256, []any{wire.OpFlush, 0, "floodns"}, false, 0},
		{"FLUSH of all", "FLUSHes of all namespaces", 256, []any{wire.OpFlush, 0, nil, wire.All}, true, 0},
		{"MGET", "MGETs of 1,000 keys", 16, []any{wire.OpMGet, 0, nil, none}, false, 0},
		{"DELETE", "DELETEs of 1,000 keys", 16, []any{wire.OpDelete, 0, nil, none}, false, 0},
		{"one SET", "SETs of one key of 60 kB", 256, []any{wire.OpSet, 0, nil, []byte("same"), make([]byte, 60_000)}, false, 0},
		{"large SETs", "SETs of 7 MB", 2, []any{wire.OpSet, 0, nil, []byte("big"), make([]byte, 7_000_000)}, false, 0},
		{"DELETE between hosts", "DELETEs of 1,000 keys", 8, []any{wire.OpDelete, 1000, nil, none}, false, 2},
		{
			"writes for all hosts", "SETs with ack_all", 200,
			[]any{wire.OpSet, 1000, nil, []byte("acked"), []byte("v"), nil, 0, 0, 0, wire.AckAll}, false, 2,
		},
		{
			"FLUSH of the cluster", "FLUSHes of a namespace on all hosts", 200,
			[]any{wire.OpFlush, 1000, "floodns", wire.Cluster}, false, 2,
		},
		{"GET fresh", "GETs that ask the owner", 200, []any{wire.OpGet, 1000, nil, []byte("new"), wire.Fresh}, false, 2},
		{"RING", "RINGs of another host's key", 200, []any{wire.OpRing, 1000, nil, []byte("key")}, false, 2},
	} {
		bound := "a connection's turn is short: 32 requests, 16 KiB, 250 µs"
		if f.hosts > 0 {
			bound = "few requests that are not answered in place are under way at once, in turns"
		}
		if f.other {
			bound = "the right to do so: admin"
		}
		list = append(list, attack{
			name: "flood: " + f.name, tries: f.tries, bound: bound,
			other: f.other, load: !f.other, shares: strings.HasPrefix(f.name, "large"), hosts: f.hosts,
			run: func(ctx context.Context, j *job) error {
				var b []byte
				for i := range f.many {
					b = append(b, frame(append([]any{i + 10}, f.request...)...)...)
				}
				j.crowd(ctx, max(1, 2*f.hosts), func(int) error { return pour(ctx, j, b, f.many) })
				return nil
			},
		})
	}
	return list
}

// pour sends the same frames again and again, and discards the answers.
func pour(ctx context.Context, j *job, b []byte, many int) error {
	c, err := open(ctx, j.victim().Socket, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	go func() { <-ctx.Done(); _ = c.Close() }()
	go discard(c) // ends with the connection
	_ = c.SetDeadline(time.Time{})
	for ctx.Err() == nil {
		if _, err := c.Write(b); err != nil {
			return err
		}
		j.count.Add(int64(many))
	}
	return nil
}
