package attacks

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

const ofSockets = "send buffers of sockets grow only within a quarter of the budget; " +
	"a connection stays until its answers are read, or its client has gone"

// longest is a value about as long as they may be.
var longest = bytes.Repeat([]byte("8 megabytes "), 8_380_000/12)

// memoryAttacks take as much memory as they can, of each kind.
var memoryAttacks = []attack{
	{
		name:  "SETs of 8 MB",
		tries: "SETs of 30 keys, as many as go over 4 connections",
		bound: ofBytes,
		also:  []also{large}, lasts: longer,
		run: func(ctx context.Context, j *job) error {
			j.crowd(ctx, 4, func(i int) error {
				var b []byte
				for k := range 2 {
					b = append(b, frame(k+10, wire.OpSet, 0, nil, fmt.Appendf(nil, "B%d", (2*i+k)%30), longest)...)
				}
				return pour(ctx, j, b, 2)
			})
			return nil
		},
	},
	{
		name:  "answers that stay in the kernel",
		tries: "3,000 connections that each ask for 180 kB, and read nothing",
		bound: ofSockets,
		also:  []also{connects}, shares: true, conns: 3000, lasts: longer,
		run: func(ctx context.Context, j *job) error { return leave(ctx, j, nil) },
	},
	{
		name:  "answers that are left behind",
		tries: "3,000 connections that each ask for 180 kB, and end with a broken frame",
		bound: ofSockets,
		also:  []also{connects}, conns: 3000, lasts: longer,
		run: func(ctx context.Context, j *job) error { return leave(ctx, j, make([]byte, 4)) },
	},
	{
		name:  "one value for many",
		tries: "4,000 LEASEs of one key, which a FILL of 8 MB answers, again and again",
		bound: "what a request copies is in the budget before it is copied",
		also:  []also{large}, lasts: longer,
		run: fillMany,
	},
	{
		name:  "LEASEs that wait",
		tries: "400 LEASEs of one key, whose token is out, on each of 200 connections",
		bound: "a request that waits is in the budget; a LEASE waits without a goroutine",
		also:  []also{large}, shares: true, lasts: longer,
		run: func(ctx context.Context, j *job) error {
			key := fmt.Appendf(nil, "out%d", j.Round)
			b := bytes.Repeat(frame(2, wire.OpLease, 20_000, nil, key), 400)
			j.crowd(ctx, 200, func(int) error {
				c, err := open(ctx, j.victim().Socket, 10*time.Second)
				if err != nil {
					return err
				}
				defer c.Close()
				go discard(c) // ends with the connection
				_, err = c.Write(b)
				j.count.Add(400)
				<-ctx.Done()
				return err
			})
			return nil
		},
	},
	{
		name:  "bytes that are appended",
		tries: "SETs from 100 connections that each append a byte to one value of 8 MB",
		bound: "what a request copies is in the budget before it is copied",
		also:  []also{large}, shares: true, lasts: longer,
		run: func(ctx context.Context, j *job) error {
			b := frame(2, wire.OpSet, 0, nil, []byte("grows"), []byte("z"), nil, 0, wire.ModeAppend)
			return manyOf(ctx, j, "grows", longest[:8_000_000], bytes.Repeat(b, 40), 40)
		},
	},
	{
		name:  "MGETs of 16 MB",
		tries: "MGETs from 100 connections that each name one value of 16 kB 1,024 times",
		bound: "what a request copies is in the budget before it is copied",
		also:  []also{large}, shares: true, lasts: longer,
		run: func(ctx context.Context, j *job) error {
			keys := make([][]byte, 1024)
			for i := range keys {
				keys[i] = []byte("16 kB")
			}
			return manyOf(ctx, j, "16 kB", make([]byte, 16_000), frame(2, wire.OpMGet, 0, nil, keys), 1)
		},
	},
	{
		name:  "METAGETs of 8 MB",
		tries: "100 connections that each ask 100 times, and read nothing",
		bound: "what a request copies is in the budget before it is copied",
		also:  []also{large}, lasts: longer,
		run: func(ctx context.Context, j *job) error {
			if err := set(ctx, j, "8 MB", longest); err != nil {
				return err
			}
			j.crowd(ctx, 100, func(int) error {
				c, err := open(ctx, j.victim().Socket, 10*time.Second)
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = c.Write(bytes.Repeat(frame(2, wire.OpMetaGet, 0, nil, []byte("8 MB")), 100))
				j.count.Add(100)
				<-ctx.Done()
				return err
			})
			return nil
		},
	},
	{
		name:  "long answers of an origin",
		tries: "LEASEs of 400 new keys at once, whose values have 8 MB, again and again",
		bound: "origins' answers are in the budget as announced",
		also:  []also{large}, lasts: longer,
		config: func(_ testing.TB, origin, _ string) string {
			return fmt.Sprintf("namespaces:\n  long:\n    origin: {http: {url: \"http://%s/{key}\"}}\n", origin)
		},
		run: loadLong,
	},
	{
		name:  "memcached's endpoint",
		tries: "sets and gets of 8 MB over TCP, 4 connections that read and 100 that do not",
		bound: ofBytes,
		also:  []also{large}, lasts: longer, tcp: true,
		config: func(_ testing.TB, origin, _ string) string { return "memcached: " + origin + "\n" },
		run:    overTCP,
	},
	{
		name:  "memory of two hosts",
		tries: "SETs and MGETs of 8 MB that another host owns, over 8 connections that read",
		bound: ofBytes,
		hosts: 2, also: []also{large}, lasts: longer, run: throughPeer,
	},
}

// set stores a value for an attack.
func set(ctx context.Context, j *job, key string, value []byte) error {
	c, err := open(ctx, j.victim().Socket, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.call(wire.OpSet, 5000, nil, []byte(key), value)
	return err
}

// leave has many connections ask for three values of 60 kB, and for what last says, and reads
// nothing.
func leave(ctx context.Context, j *job, last []byte) error {
	if err := set(ctx, j, "60 kB", make([]byte, 60_000)); err != nil {
		return err
	}
	b := frame(1, wire.OpHello, 0, map[string]any{"v": []int{wire.Version}})
	for i := range 3 {
		b = append(b, frame(i+2, wire.OpGet, 0, nil, []byte("60 kB"))...)
	}
	return hold(ctx, j, append(b, last...))
}

// manyOf stores a value, and sends the same frames over 100 connections, as many as go.
func manyOf(ctx context.Context, j *job, key string, value, frames []byte, many int) error {
	if err := set(ctx, j, key, value); err != nil {
		return err
	}
	j.crowd(ctx, 100, func(int) error { return pour(ctx, j, frames, many) })
	return nil
}

// fillMany has many LEASEs wait for one value.
func fillMany(ctx context.Context, j *job) error {
	j.crowd(ctx, 1, func(int) error {
		c, err := open(ctx, j.victim().Socket, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		key := fmt.Appendf(nil, "fill%d-%d", j.Round, j.count.Add(1))
		a, err := c.call(wire.OpLease, 5000, nil, key)
		if err != nil || a.status != wire.Lease {
			return fmt.Errorf("%v %v", a, err)
		}
		for range 8 {
			w, err := open(ctx, j.victim().Socket, 10*time.Second)
			if err != nil {
				return err
			}
			defer w.Close()
			go discard(w) // ends with the connection
			_ = w.SetDeadline(time.Time{})
			if _, err := w.Write(bytes.Repeat(frame(2, wire.OpLease, 20_000, nil, key), 500)); err != nil {
				return err
			}
		}
		rest(ctx, 100*time.Millisecond) // until they wait
		_, err = c.call(wire.OpFill, 5000, nil, key, a.at(0), longest)
		rest(ctx, 200*time.Millisecond)
		return err
	})
	return nil
}

// loadLong is an origin of long values, and asks for them.
func loadLong(ctx context.Context, j *job) error {
	l, err := listen(j.Target.Origin)
	if err != nil {
		return err
	}
	long := &http.Server{ErrorLog: quiet, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(longest)
	})}
	go func() { _ = long.Serve(l) }() // ends with the process
	j.crowd(ctx, 4, func(i int) error {
		c, err := open(ctx, j.victim().Socket, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		var b []byte
		for k := range 100 {
			b = append(b, frame(k+2, wire.OpLease, 2000, "long", fmt.Appendf(nil, "%d-%d", i, j.count.Add(1)))...)
		}
		return c.batch(b, 100)
	})
	return nil
}

// overTCP speaks memcached's protocol.
func overTCP(ctx context.Context, j *job) error {
	text := fmt.Appendf(nil, "set 8mb%d 0 0 %d\r\n%s\r\n", j.Round, len(longest), longest)
	get := []byte(strings.Repeat(fmt.Sprintf("get 8mb%d\r\n", j.Round), 50))
	j.crowd(ctx, 104, func(i int) error {
		c, err := net.Dial("tcp", j.Target.Origin)
		if err != nil {
			return err
		}
		defer c.Close()
		go func() { <-ctx.Done(); _ = c.Close() }()
		if i >= 4 {
			_, err := c.Write(get)
			j.count.Add(50)
			<-ctx.Done()
			return err
		}
		go discard(c) // ends with the connection
		for ctx.Err() == nil {
			if _, err := c.Write(append(text, get...)); err != nil {
				return err
			}
			j.count.Add(51)
		}
		return nil
	})
	return nil
}

// throughPeer writes and reads long values of the other host.
func throughPeer(ctx context.Context, j *job) error {
	j.crowd(ctx, 8, func(i int) error {
		c, err := open(ctx, j.victim().Socket, 10*time.Second)
		if err != nil {
			return err
		}
		keys, err := keysOf(c, j.Target.Hosts[1].Node, 2)
		_ = c.Close()
		if err != nil {
			return err
		}
		var b []byte
		for _, k := range keys {
			b = append(b, frame(2, wire.OpSet, 5000, nil, k, longest)...)
		}
		return pour(ctx, j, append(b, frame(3, wire.OpMGet, 5000, nil, keys)...), 3)
	})
	return nil
}
