package measure

import (
	"context"
	"encoding/binary"
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
func (b *Bench) hang(ctx context.Context, p record.PropagationParameters) (map[string]record.HangSide, error) {
	c, links, err := peers.StartLinked(ctx, 2, time.Duration(p.Bound)*time.Millisecond, b.watchOptions(p, "-hang"))
	if err != nil {
		return nil, err
	}
	defer links.Close()
	defer c.Stop()
	owners, err := c.Owners(ctx, c.Hosts()[0], watchedKeys)
	if err != nil {
		return nil, err
	}
	own := owners[c.Hosts()[0].Node()]
	if len(own) == 0 {
		return nil, fmt.Errorf("%s owns none of %d keys", c.Hosts()[0].Node(), watchedKeys)
	}
	near, err := openLine(c.Hosts()[0].Server, p.KeySize, p.ValueSize)
	if err != nil {
		return nil, err
	}
	defer near.close()
	far, err := openLine(c.Hosts()[1].Server, p.KeySize, p.ValueSize)
	if err != nil {
		return nil, err
	}
	defer far.close()
	redis, err := b.start(ctx, record.Redis, b.watchOptions(p, "-hang"))
	if err != nil {
		return nil, err
	}
	defer redis.Stop()
	front := filepath.Join(b.dir, "hang.sock")
	if err := links.Stream("unix", front, redis.Socket); err != nil {
		return nil, err
	}
	readers := map[string]reader{record.Sidecar: func() (uint64, bool, error) { return far.get(own[0]) }}
	key := string(load.Key(nil, 0, p.KeySize))
	direct, err := rueidis.NewClient(redisClient(redis.Socket))
	if err != nil {
		return nil, err
	}
	defer direct.Close()
	for name, change := range redisReaders {
		o := redisClient(front)
		change(&o)
		client, err := rueidis.NewClient(o)
		if err != nil {
			return nil, err
		}
		defer client.Close()
		readers[name] = func() (uint64, bool, error) { return cached(ctx, client, key) }
	}
	overwrite := func(n uint64) error {
		value := string(binary.BigEndian.AppendUint64(nil, n))
		if err := near.set(own[0], n); err != nil {
			return err
		}
		return direct.Do(ctx, direct.B().Set().Key(key).Value(value).Build()).Error()
	}
	if err := overwrite(1); err != nil {
		return nil, err
	}
	for name, read := range readers {
		if err := haveCopy(read); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	links.Hang()
	if err := overwrite(2); err != nil {
		return nil, err
	}
	return readOn(ctx, readers, time.Now(), time.Duration(p.HangFor)*time.Second)
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
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		n, copied, err := read()
		if err != nil {
			return err
		}
		if copied && n == 1 {
			return nil
		}
	}
	return fmt.Errorf("there is no copy after a second of reads")
}

// readOn reads for some time after the value 1 was overwritten with 2.
func readOn(ctx context.Context, readers map[string]reader, answered time.Time, d time.Duration) (map[string]record.HangSide, error) {
	sides := map[string]record.HangSide{}
	var mu sync.Mutex // guards sides
	var g errgroup.Group
	for name, read := range readers {
		g.Go(func() error {
			var s record.HangSide
			for ctx.Err() == nil && time.Since(answered) < d {
				begun := time.Since(answered)
				n, _, err := read()
				s.Reads++
				switch {
				case err != nil:
					s.Errors++
				case n == 0:
					s.Misses++
				case n == 1:
					s.Old++
					s.OldMS = float64(begun) / float64(time.Millisecond)
				}
				time.Sleep(hangEvery)
			}
			mu.Lock()
			defer mu.Unlock()
			sides[name] = s
			return ctx.Err()
		})
	}
	err := g.Wait()
	return sides, err
}
