package attacks

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

const ofIndex = "8 entries of one full hash; the next replaces the oldest"

var keyAttacks = []attack{
	{
		name:  "keys of one hash",
		tries: "SETs of keys that all have one 64-bit hash",
		bound: ofIndex,
		run:   func(ctx context.Context, j *job) error { return collide(ctx, j, 0) },
	},
	{
		name:  "keys of one hash, by another host",
		tries: "SETs of such keys, by an app of a host that does not own them",
		bound: ofIndex,
		hosts: 2, run: func(ctx context.Context, j *job) error { return collide(ctx, j, 1) },
	},
	{
		name:  "keys of one hash, by an origin",
		tries: "GETs of such keys, which the origin does not have",
		bound: ofIndex,
		config: func(_ testing.TB, origin, _ string) string {
			return fmt.Sprintf("namespaces:\n  hp:\n    negative_ttl: 1h\n    limits: {breaker: {failures: 1000}}\n"+
				"    origin: {http: {url: \"http://%s/{key}\"}}\n", origin)
		},
		run: collideByOrigin,
	},
}

// secret is the beginning of XXH3's secret.
var secret = [16]byte{0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c}

// oneHash returns the i-th key of a series whose hashes under a seed are all equal: the
// first half of the key makes one factor of a product 0.
func oneHash(seed uint64, i int) []byte {
	key := make([]byte, 32)
	binary.LittleEndian.PutUint64(key, binary.LittleEndian.Uint64(secret[:])+seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(i)*0x9e3779b97f4a7c15)
	copy(key[16:], "0123456789abcdef")
	return key
}

func TestOneHash(t *testing.T) {
	seed := xxh3.HashStringSeed("default", 7)
	keys, hashes := map[string]bool{}, map[uint64]bool{}
	for i := range 1000 {
		k := oneHash(seed, i)
		keys[string(k)], hashes[xxh3.HashSeed(k, seed)] = true, true
	}
	if len(keys) != 1000 || len(hashes) != 1 {
		t.Errorf("%d keys of %d hashes, want 1000 of one", len(keys), len(hashes))
	}
}

// seedOf returns the seed of a namespace's keys, derived from the answer to HELLO.
func seedOf(c *conn, ns string) uint64 {
	h, _ := c.welcome["hash"].(map[string]any)
	return xxh3.HashStringSeed(ns, number(h["seed"]))
}

// collide writes such keys, which the victim's host owns, through another host.
func collide(ctx context.Context, j *job, through int) error {
	c, err := open(ctx, j.Target.Hosts[through].Socket, 10*time.Second)
	if err != nil {
		return err
	}
	ns := "default"
	for i := 0; through > 0; i++ {
		ns = fmt.Sprintf("hog%d", i%50)
		a, err := c.call(wire.OpRing, 0, ns, oneHash(seedOf(c, ns), 0))
		if err != nil {
			return err
		}
		if m, _ := a.at(0).(map[string]any); m["assigned_owner"] == j.victim().Node {
			break
		}
	}
	_ = c.Close()
	next := j.Round << 24
	j.crowd(ctx, 1, func(int) error {
		c, err := open(ctx, j.Target.Hosts[through].Socket, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		seed := seedOf(c, ns)
		for ctx.Err() == nil {
			var b []byte
			for range 16 {
				next++
				b = append(b, frame(next, wire.OpSet, 0, ns, oneHash(seed, next), []byte("v"))...)
			}
			if err := c.batch(b, 16); err != nil {
				return err
			}
			j.count.Add(16)
		}
		return nil
	})
	return nil
}

// batch writes frames and reads as many answers.
func (c *conn) batch(frames []byte, n int) error {
	_ = c.SetDeadline(time.Now().Add(c.wait))
	if _, err := c.Write(frames); err != nil {
		return err
	}
	for range n {
		if _, err := c.read(); err != nil {
			return err
		}
	}
	return nil
}

func collideByOrigin(ctx context.Context, j *job) error {
	l, err := listen(j.Target.Origin)
	if err != nil {
		return err
	}
	none := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: quiet}
	go func() { _ = none.Serve(l) }() // ends with the process
	next := j.Round << 24
	j.crowd(ctx, 1, func(int) error {
		c, err := open(ctx, j.victim().Socket, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		seed := seedOf(c, "hp")
		for ctx.Err() == nil {
			var b []byte
			for range 32 {
				next++
				b = append(b, frame(next, wire.OpGet, 3000, "hp", oneHash(seed, next))...)
			}
			if err := c.batch(b, 32); err != nil {
				return err
			}
			j.count.Add(32)
		}
		return nil
	})
	return nil
}

// listen listens at an address that an earlier attacker may still be using.
func listen(address string) (l net.Listener, err error) {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if l, err = net.Listen("tcp", address); err == nil || time.Now().After(end) {
			return l, err
		}
	}
}

// discard reads and drops all bytes until the end.
func discard(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
