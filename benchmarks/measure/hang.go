package measure

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// hangEvery is the pause between two reads.
const hangEvery = 5 * time.Millisecond

// reader reads a number, possibly from a copy; 0 means a miss.
type reader func() (number uint64, copied bool, err error)

// hang makes the links hang that copies depend on, overwrites the key beyond them, and
// continues to read.
func (b *Bench) hang(ctx context.Context, p record.Parameters) {
	defer b.scope()()
	hosts := b.hangingHosts(ctx, p)
	redis := b.hangingRedis(ctx, p, hosts.links)
	overwrite := func(n uint64) error { return errors.Join(hosts.near.set(hosts.key, n), redis.set(n)) }
	check(overwrite(1))
	readers := redis.readers
	readers[record.HangingHost] = func() (uint64, bool, error) { return hosts.far.get(hosts.key) }
	for name, read := range readers {
		if err := haveCopy(read); err != nil {
			fail("%s: %w", name, err)
		}
	}
	hosts.links.Hang()
	check(overwrite(2))
	check(b.readOn(ctx, fmt.Sprintf("a link hangs for %d s", p.HangFor), readers, time.Now(), time.Duration(p.HangFor)*time.Second))
}

// hangingHosts are two hosts, a connection to each, and a key that the near one owns.
type hangingHosts struct {
	links     *peers.Link
	near, far *line
	key       uint64
}

// hangingHosts starts two hosts with links between them that can hang.
func (b *Bench) hangingHosts(ctx context.Context, p record.Parameters) (h hangingHosts) {
	c, links, err := peers.StartLinked(ctx, 2, time.Duration(p.Bound)*time.Millisecond, b.options(p, "-hang"))
	check(err)
	b.closes(links.Close)
	b.closes(c.Stop)
	near, far := c.Hosts()[0], c.Hosts()[1]
	owners := must(c.Owners(ctx, near, watchedKeys))
	own := owners[near.Node()]
	if len(own) == 0 {
		fail("%s owns none of %d keys", near.Node(), watchedKeys)
	}
	return hangingHosts{links: links, key: own[0], near: b.openLine(near.Server, "", p), far: b.openLine(far.Server, "", p)}
}

// hangingRedis is a key of a redis server, and clients that read it through a link.
type hangingRedis struct {
	set     func(n uint64) error
	readers map[string]reader
}

// hangingRedis starts a redis server, and clients that reach it through a link that can
// hang.
func (b *Bench) hangingRedis(ctx context.Context, p record.Parameters, links *peers.Link) (h hangingRedis) {
	server := b.start(ctx, record.Redis, b.options(p, "-hang"))
	front := filepath.Join(b.dir, "hang.sock")
	check(links.Stream("unix", front, server.Socket))
	key := string(load.Key(nil, 0, p.KeySize))
	direct := b.openRedis(redisClient(server.Socket))
	h.set = func(n uint64) error {
		value := string(binary.BigEndian.AppendUint64(nil, n))
		return direct.Do(ctx, direct.B().Set().Key(key).Value(value).Build()).Error()
	}
	h.readers = map[string]reader{}
	for name, change := range redisReaders {
		o := redisClient(front)
		change(&o)
		client := b.openRedis(o)
		h.readers[name] = func() (uint64, bool, error) { return cached(ctx, client, key) }
	}
	return h
}

// redisReaders are clients as careful as their names say. By default the library pings
// every second, and waits ten seconds for an answer.
var redisReaders = map[string]func(*rueidis.ClientOption){
	record.NoPings: func(o *rueidis.ClientOption) { o.Dialer.KeepAlive, o.ConnWriteTimeout = -1, time.Minute },
	record.Usual:   func(*rueidis.ClientOption) {},
	record.Careful: func(o *rueidis.ClientOption) {
		o.Dialer.KeepAlive, o.ConnWriteTimeout = 500*time.Millisecond, time.Second
	},
}

// cached reads as the library's manual says.
func cached(ctx context.Context, c rueidis.Client, key string) (uint64, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	r := c.DoCache(ctx, c.B().Get().Key(key).Cache(), time.Hour)
	b, err := r.AsBytes()
	switch {
	case rueidis.IsRedisNil(err):
		return 0, false, nil
	case err != nil:
		return 0, false, err
	case len(b) < 8:
		return 0, false, fmt.Errorf("%s has %d bytes, want 8", key, len(b))
	}
	return binary.BigEndian.Uint64(b), r.IsCacheHit(), nil
}

// haveCopy reads until a copy answers.
func haveCopy(read reader) error {
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var n uint64
		var copied bool
		if n, copied, err = read(); err == nil && copied && n == 1 {
			return nil
		}
	}
	return fmt.Errorf("there is no copy after half a minute of reads: the last error is %v", err)
}

// readOn reads for some time after the value 1 was overwritten with 2, and keeps what each reader got.
func (b *Bench) readOn(ctx context.Context, shape string, readers map[string]reader, answered time.Time, d time.Duration) error {
	var mu sync.Mutex // guards b
	var g errgroup.Group
	for name, read := range readers {
		g.Go(func() error {
			var reads, old, misses, errs float64
			var last time.Duration // when the last read that returned the old value began
			for ctx.Err() == nil && time.Since(answered) < d {
				begun := time.Since(answered)
				n, _, err := read()
				reads++
				switch {
				case err != nil:
					errs++
				case n == 0:
					misses++
				case n == 1:
					old++
					last = begun
				}
				time.Sleep(hangEvery)
			}
			mu.Lock()
			defer mu.Unlock()
			b.put(shape, name, figure{"old value served for, s", last.Seconds()}, figure{"reads", reads}, figure{"old", old}, figure{"misses", misses}, figure{"errors", errs})
			return ctx.Err()
		})
	}
	return g.Wait()
}
