package attacks

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// quiet is the log of servers whose clients are expected to disappear.
var quiet = log.New(io.Discard, "", 0)

const (
	ofBytes = "one budget for all bytes in flight, in fair shares"
	ofLines = "a budget of lines for each message of the log"
)

var frameAttacks = []attack{
	{
		name:  "announced frames",
		tries: "8 connections that announce the longest frame and send nothing of it",
		bound: ofBytes,
		also:  []also{large}, shares: true,
		run: func(ctx context.Context, j *job) error { return announce(ctx, j, 8, 0) },
	},
	{
		name:  "dripping frames",
		tries: "64 connections that send a kilobyte of the longest frame now and then",
		bound: ofBytes,
		also:  []also{large}, shares: true,
		run: func(ctx context.Context, j *job) error { return announce(ctx, j, 64, 1<<10) },
	},
	{
		name:  "idle connections",
		tries: "10,000 connections that say nothing",
		bound: "buffers only when bytes come; connections in fair shares",
		also:  []also{connects}, shares: true, conns: 16_384,
		run: func(ctx context.Context, j *job) error { return hold(ctx, j, nil) },
	},
	{
		name:  "begun frames",
		tries: "10,000 connections that send 5 bytes of a frame of 60,000",
		bound: ofBytes,
		also:  []also{connects}, shares: true, conns: 16_384,
		run: func(ctx context.Context, j *job) error { return hold(ctx, j, partial(1)) },
	},
	{
		name:  "half frames",
		tries: "10,000 connections that send 59,900 bytes of a frame of 60,000",
		bound: ofBytes,
		also:  []also{connects}, shares: true, conns: 16_384,
		run: func(ctx context.Context, j *job) error { return hold(ctx, j, partial(59_900)) },
	},
	{
		name:  "broken frames",
		tries: "frames of all messages, changed at random",
		bound: "one connection's trouble ends that connection",
		also:  []also{connects},
		run: func(ctx context.Context, j *job) error {
			j.crowd(ctx, 2, func(i int) error { return mutate(ctx, j, i) })
			return nil
		},
	},
	{
		name:  "log flood",
		tries: "connections that each send one malformed frame",
		bound: ofLines,
		also:  []also{connects}, shown: fewLines,
		run: func(ctx context.Context, j *job) error {
			j.crowd(ctx, 1, func(int) error {
				c, err := dial(ctx, "unix", j.victim().Socket, time.Second)
				if err != nil {
					return err
				}
				j.count.Add(1)
				_, err = c.Write(make([]byte, 4))
				return errors.Join(err, c.Close())
			})
			return nil
		},
	},
	{
		name:  "log flood of names",
		tries: "refused requests, each in a namespace of another name",
		bound: ofLines,
		also:  []also{connects}, shown: stillLogs, lasts: 2 * time.Second,
		config: func(testing.TB, string, string) string {
			return "namespaces: {down: {origin: {http: {url: \"http://127.0.0.1:1/{key}\"}}}}\n" +
				"access: {down: {write: [anyone]}, \"*\": {write: []}}\n"
		},
		run: func(ctx context.Context, j *job) error {
			j.crowd(ctx, 2, func(int) error {
				c, err := open(ctx, j.victim().Socket, 10*time.Second)
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = c.call(wire.OpGet, 3000, fmt.Sprint("n", j.Round, ".", j.count.Add(1)), []byte("k"))
				return err
			})
			return nil
		},
	},
}

// announce announces frames, and sends only drip bytes of them at a time.
func announce(ctx context.Context, j *job, conns, drip int) error {
	j.crowd(ctx, conns, func(int) error {
		c, err := open(ctx, j.victim().Socket, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		limits, _ := c.welcome["limits"].(map[string]any)
		if _, err = c.Write(binary.BigEndian.AppendUint32(nil, uint32(number(limits["frame"])))); err != nil {
			return err
		}
		j.count.Add(1)
		go func() { <-ctx.Done(); _ = c.Close() }()
		if drip == 0 {
			_ = c.SetDeadline(time.Time{})
			discard(c)
			return io.EOF
		}
		for ctx.Err() == nil {
			if _, err := c.Write(make([]byte, drip)); err != nil {
				return err
			}
			rest(ctx, 20*time.Millisecond)
		}
		return nil
	})
	return nil
}

// partial returns the beginning of a frame of 60,000 bytes.
func partial(n int) []byte {
	return append(binary.BigEndian.AppendUint32(nil, 60_000), slices.Repeat([]byte{0x96}, n)...)
}

// hold keeps 10,000 connections open, each after sending sent.
func hold(ctx context.Context, j *job, sent []byte) error {
	var mu sync.Mutex
	var held []net.Conn
	j.crowd(ctx, 8, func(int) error {
		if j.count.Load() >= 10_000 {
			<-ctx.Done()
			return nil
		}
		c, err := dial(ctx, "unix", j.victim().Socket, time.Second)
		if err != nil {
			return err
		}
		j.count.Add(1)
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		_, err = c.Write(sent)
		mu.Lock()
		held = append(held, c)
		mu.Unlock()
		return err
	})
	for _, c := range held {
		_ = c.Close()
	}
	return nil
}

// seeds are the golden bytes of all messages. loadSeeds reads them.
var seeds [][]byte
var loadSeeds = sync.OnceFunc(func() {
	text, err := os.ReadFile("../../wire/testdata/messages.json")
	if err != nil {
		panic(err) // it is part of the repository
	}
	var messages []struct{ Hex string }
	if err := json.Unmarshal(text, &messages); err != nil {
		panic(err)
	}
	for _, m := range messages {
		b, err := hex.DecodeString(m.Hex)
		if err != nil || len(b) < 5 {
			panic(m.Hex)
		}
		seeds = append(seeds, b[4:])
	}
})

// bombs are beginnings of values that are longer or deeper than they look.
var bombs = [][]byte{
	{0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff}, {0xdb, 0xff, 0xff, 0xff, 0xff}, {0xc6, 0x7f, 0xff, 0xff, 0xff},
	slices.Repeat([]byte{0x91}, 5000), append([]byte{0xdc, 0xff, 0xff}, slices.Repeat([]byte{0xc0}, 65535)...),
	slices.Repeat([]byte{0x81}, 40), {0xc1}, {0xd4, 1, 1},
}

// mutate sends changed frames over one connection, and checks the answers.
func mutate(ctx context.Context, j *job, i int) error {
	r := rand.New(rand.NewPCG(uint64(j.count.Load()), uint64(i)))
	c, err := dial(ctx, "unix", j.victim().Socket, 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	var b []byte
	if r.IntN(20) > 0 {
		b = frame(1, wire.OpHello, 0, map[string]any{"v": []int{wire.Version}})
	}
	for range 1 + r.IntN(40) {
		b = append(b, mutated(r)...)
		j.count.Add(1)
	}
	go func() { _, _ = c.Write(b) }() // ends with the connection
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	for {
		a, err := c.read()
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if a.status == wire.Internal {
			j.learn("INTERNAL: %v", a)
		}
	}
}

// mutated returns a changed frame.
func mutated(r *rand.Rand) []byte {
	body := slices.Clone(seeds[r.IntN(len(seeds))])
	switch r.IntN(7) {
	case 0:
		for range 1 + r.IntN(4) {
			body[r.IntN(len(body))] = byte(r.Uint32())
		}
	case 1:
		at := r.IntN(len(body))
		body = slices.Replace(body, at, min(len(body), at+r.IntN(8)), noise(r, r.IntN(8))...)
	case 2:
		body = slices.Insert(body, r.IntN(len(body)+1), bombs[r.IntN(len(bombs))]...)
	case 3:
		body = body[:r.IntN(len(body)+1)]
	case 4:
		body = append(body, noise(r, r.IntN(64))...)
	case 5:
		length := []int{0, 1<<32 - 1, len(body) + r.IntN(100), len(body) - 1, 8 << 20}[r.IntN(5)]
		return append(binary.BigEndian.AppendUint32(nil, uint32(length)), body...)
	case 6:
		body = frame(madeUp(r)...)[4:]
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// madeUp returns the elements of a request, most of them invalid.
func madeUp(r *rand.Rand) []any {
	pick := func(of ...any) any { return of[r.IntN(len(of))] }
	all := []any{
		r.Uint64(), r.IntN(60), pick(0, 1, 3_600_000, uint64(1)<<32), pick(nil, "default", string(noise(r, 70)), "\xff", 7, []int{}),
		pick([]byte("k"), []byte{}, noise(r, 1100), nil, -1), pick(nil, []byte("v"), noise(r, 3000), -1<<63, uint64(1<<64-1), 1.5),
		pick(nil, 0, uint64(1<<64-1), 31_536_000_000, 31_536_000_001, -1), r.Uint32(), r.IntN(6), r.Uint64(), r.Uint32(),
	}
	return all[:r.IntN(len(all)+1)]
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
