package measure

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

const (
	watchedKeys = 64
	// copyTime is how long a host may take to have a copy. A read makes one, a moment
	// after its answer.
	copyTime = 20 * time.Millisecond
	// pollEach is the least time between the beginnings of two reads.
	pollEach = 75 * time.Microsecond
)

// sidecars is several hosts. A key of the first is watched through the others.
type sidecars struct {
	watched
	c *peers.Cluster
}

// watched is keys that are overwritten through their owner and read through other hosts,
// while more keys are overwritten on all hosts.
type watched struct {
	write pacers
	keys  []uint64
	owner *line
	read  []*line
	bound time.Duration // of the reads' staleness
	seq   uint64
}

// openSidecars starts hosts. Each host's own keys are written through it, so that the
// load consists of invalidations and not of forwarded writes. The watched keys come after
// all of these.
func (b *Bench) openSidecars(ctx context.Context, p record.Parameters, o peers.Options) stream {
	s := &sidecars{watched: watched{bound: time.Duration(p.Bound) * time.Millisecond}}
	s.c = b.startHosts(ctx, p.Hosts, s.bound, o)
	hosts := s.c.Hosts()
	owners := must(s.c.Owners(ctx, hosts[0], p.Keys+4*watchedKeys*len(hosts)))
	for i, h := range hosts {
		var own []uint64
		for _, k := range owners[h.Node()] {
			switch {
			case k < uint64(p.Keys):
				own = append(own, k)
			case i == 0:
				s.keys = append(s.keys, k)
			}
		}
		if len(own) == 0 {
			fail("%s owns none of %d keys: give more", h.Node(), p.Keys)
		}
		s.connect(b, h.Server, p, own)
	}
	if len(s.keys) == 0 {
		fail("%s owns no key that could be watched: give more hosts or keys", hosts[0].Node())
	}
	s.writeFirst()
	return s
}

// connect opens a host. The first one is the owner of the watched keys. own are the keys
// that are overwritten through the host.
func (s *watched) connect(b *Bench, h *peers.Server, p record.Parameters, own []uint64) {
	draw := uniform(uint64(len(s.write)), len(own))
	s.write = append(s.write, b.openPaced(h, func(n int) uint64 { return own[draw(0, n)] }))
	l := b.openLine(h, "", p)
	if s.owner == nil {
		s.owner = l
	} else {
		s.read = append(s.read, l)
	}
}

// writeFirst writes the watched keys for the first time.
func (s *watched) writeFirst() {
	s.seq = 1
	for _, k := range s.keys {
		check(s.owner.set(k, s.seq))
	}
}

func (s *watched) writers() pacers { return s.write }

// count adds what the sidecars have counted of gaps, resets and missed polls, or takes it away.
func (s *sidecars) count(ctx context.Context, t *tally, sign float64) {
	sums := []figure{{"gaps", 0}, {"resets", 0}, {"polls missed", 0}}
	for _, h := range s.c.Hosts() {
		st := must(h.Stats(ctx))
		sums[0].value += float64(st.Cluster.Invalidations.Gaps)
		sums[1].value += float64(st.Cluster.Invalidations.Resets)
		sums[2].value += float64(st.Cluster.PollFailures)
	}
	for i := range sums {
		sums[i].value *= sign
		if t.alarms != nil {
			sums[i].value += t.alarms[i].value
		}
	}
	t.alarms = sums
}

func (s *watched) probe(n uint64) ([]time.Duration, error) {
	key := s.keys[n%uint64(len(s.keys))]
	s.seq++
	seen := make([]time.Time, len(s.read))
	errs := make([]error, len(s.read))
	var ready, done sync.WaitGroup
	ready.Add(len(s.read))
	begin := make(chan struct{})
	for i, l := range s.read {
		done.Go(func() { // ends when it has seen the write, or after a timeout
			copied, err := l.copied(key)
			ready.Done()
			<-begin
			if err == nil && copied {
				seen[i], err = l.await(key, s.seq, 2*s.bound+time.Second)
			}
			errs[i] = err
		})
	}
	ready.Wait()
	close(begin)
	err := s.owner.set(key, s.seq)
	answered := time.Now()
	done.Wait()
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	delays := make([]time.Duration, len(seen))
	for i, at := range seen {
		if delays[i] = at.Sub(answered); at.IsZero() {
			delays[i] = noCopy
		}
	}
	return delays, nil
}

// copied reads a key until a copy answers, and reports whether one did.
func (l *line) copied(key uint64) (bool, error) {
	for end := time.Now().Add(copyTime); ; {
		n, copied, err := l.get(key)
		if err != nil || copied && n > 0 {
			return err == nil, err
		}
		if time.Now().After(end) {
			return false, nil
		}
		sleepUntil(time.Now().Add(pollEach))
	}
}

// await reads a key until its number is at least number, and returns the time of that
// answer.
func (l *line) await(key, number uint64, most time.Duration) (time.Time, error) {
	for begun := time.Now(); ; {
		asked := time.Now()
		n, _, err := l.get(key)
		now := time.Now()
		switch {
		case err != nil:
			return now, err
		case n >= number:
			return now, nil
		case now.Sub(begun) > most:
			return now, fmt.Errorf("key %d is still %d, want %d, %v after it was written", key, n, number, most)
		}
		sleepUntil(asked.Add(pollEach))
	}
}
