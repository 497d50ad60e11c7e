package changes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Bounds of what is under way.
const (
	maxDeletions = 64 // requests at a time
	keysEach     = 64 // keys of a request

	flushesAtOnce = 4       // that begin without a rest
	maxReceived   = 1024    // transactions that were received and not looked at
	maxPending    = 1 << 16 // transactions that are not confirmed
	// maxWaiting is the Size, in bytes, of what was received and not looked at; and of transactions that no reader
	// sees yet, whose keys beyond it are flushes.
	maxWaiting = loader.MaxSize
)

const (
	checkEvery = 5 * time.Second       // between two questions whether the stream is whole
	roundEvery = 2 * time.Millisecond  // between two rounds at least: each asks the server a statement
	flushEvery = 20 * time.Millisecond // the same after a round that flushes
	flushRest  = time.Millisecond      // after each flushesAtOnce
	seenFirst  = time.Millisecond      // until the next look at a transaction that no reader sees
	seenMost   = 50 * time.Millisecond // the wait doubles up to that
	giveUpTime = 2 * time.Second
)

// following is a stream that is being followed.
type following struct {
	*Follower
	stream   loader.FeedStream
	came     chan *loader.Transaction
	queued   atomic.Int64 // Size of those in came
	unseen   []*pending   // in the order of their commits
	waiting  int          // Size of these
	order    []*pending   // not confirmed yet, in that order
	after    time.Time    // which the next round begins
	deleting errgroup.Group

	broken loader.Gap      // why changes may be missing, until the namespaces are flushed
	again  loader.Snapshot // they are flushed once more when its open transactions have ended; nil: not

	flushing atomic.Int64 // namespaces, for that

	heard   loader.Position // up to where all has come
	next    *certificate    // nil: none is under way
	telling []told          // in order

	mu    sync.Mutex
	ended []*pending    // whose keys are deleted
	wake  chan struct{} // that there are such
}

// pending is a transaction that is not confirmed.
type pending struct {
	*loader.Transaction
	came time.Time
	upTo loader.Position // behind it, and behind what has changed nothing after it
	done bool
}

// follow follows the feed until ctx ends, or an error.
func (f *Follower) follow(ctx context.Context) error {
	f.counts.setState(Starting)
	known := f.host.FeedCheckpoint(f.name)
	if failpoint.Out(failpoint.FeedState) {
		known = ""
	}
	stream, err := f.feed.Stream(ctx, f.gap, known)
	if err != nil {
		return err
	}
	defer stream.Close()
	if stream.Gap() != "" {
		if err := f.beginStream(ctx, stream); err != nil {
			return err
		}
		f.gap = ""
	}
	f.counts.setState(Following)
	f.told = ""
	f.log.Info("following the changes of the database", "anew", string(stream.Gap()))
	f.warn(ctx, stream)
	s := &following{
		Follower: f, stream: stream,
		came: make(chan *loader.Transaction, maxReceived), wake: make(chan struct{}, 1),
	}
	s.deleting.SetLimit(maxDeletions)
	if known == "" && stream.Gap() == "" && f.MaxLag == 0 { // else nothing was kept before the first certificate
		s.broken = "no host knows what was deleted before"
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.receive(ctx) })
	group.Go(func() error { return s.run(ctx) })
	err = group.Wait()
	_ = s.deleting.Wait() // its functions end with ctx, which has ended, and none fails
	if f.missed(err); f.gap != "" {
		f.giveUp(stream)
	}
	return err
}

// warn logs what earlier feeds have left behind at the server. An error is that of a connection, which the
// next question finds out too.
func (f *Follower) warn(ctx context.Context, stream loader.FeedStream) {
	left, _ := stream.LeftBehind(ctx)
	for _, text := range left {
		f.log.Warn("a replication slot is not in use, and keeps the log of the database", "warning", text)
	}
}

// giveUp has the next stream begin with a gap, also if another host makes it: it does not know the reason.
func (f *Follower) giveUp(stream loader.FeedStream) {
	ctx, cancel := context.WithTimeout(context.Background(), giveUpTime)
	defer cancel()
	if err := stream.GiveUp(ctx); err != nil {
		_, _, err = f.tell(err)
		f.log.Warn("changes may be missing, and another host that follows will not know: "+
			"flush the namespaces of the feed", "reason", string(f.gap), "error", err)
	}
}

// beginStream drops what was cached before a stream that leaves out earlier changes. The stream stays
// unfinished until then: if this host ends before, the next one has a gap too.
func (f *Follower) beginStream(ctx context.Context, stream loader.FeedStream) error {
	if wait := time.Until(f.counts.lastGap().Add(f.gapPause())); wait > 0 && !kv.Sleep(ctx, wait) {
		return ctx.Err()
	}
	f.log.Warn("the feed begins anew: the namespaces that it names are flushed", "reason", string(stream.Gap()))
	for pause := seenFirst; ; pause = min(2*pause, time.Second) {
		v, err := stream.View(ctx)
		if err != nil {
			return err
		}
		if v.SeesPast() {
			break
		}
		if !kv.Sleep(ctx, pause) {
			return ctx.Err()
		}
	}
	f.counts.noteGap(stream.Gap())
	for _, namespace := range f.feed.Namespaces() {
		if err := f.flush(ctx, namespace, "the feed begins anew"); err != nil {
			return err
		}
	}
	return stream.CloseGap(ctx)
}

func (f *Follower) flush(ctx context.Context, namespace, why string) error {
	err := f.host.FlushAll(ctx, namespace)
	if err == nil {
		f.counts.flushes.Add(1)
		f.log.Info("a namespace is flushed, since its rows have changed", "namespace", namespace, "reason", why)
	}
	return err
}

// receive receives transactions. It goes on telling the server that it is there while there is no
// room for more.
func (s *following) receive(ctx context.Context) error {
	for {
		t, err := s.stream.Receive(ctx)
		if err != nil {
			return err
		}
		for t != nil {
			came, wait := s.came, time.Second
			if s.queued.Load() >= maxWaiting {
				came, wait = nil, 10*time.Millisecond
			}
			select {
			case came <- t:
				s.queued.Add(int64(t.Size))
				t = nil
			case <-time.After(wait):
				if err := s.stream.KeepAlive(); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// run goes in rounds: it takes what has come during the round before, asks what readers see, and
// deletes.
func (s *following) run(ctx context.Context) error {
	look, pause := time.NewTimer(0), seenFirst
	defer look.Stop()
	broken := time.NewTicker(s.wholeEvery())
	defer broken.Stop()
	if err := s.whole(ctx); err != nil {
		return err
	}
	for {
		came := s.came
		if !s.hasRoom() {
			came = nil
		}
		fresh, due := false, false
		select {
		case t := <-came:
			s.takeTransaction(t)
			fresh = true
		case <-look.C:
			due = true
		case <-s.wake:
			s.finish()
		case <-broken.C:
			if err := s.whole(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		for len(s.came) > 0 && s.hasRoom() {
			s.takeTransaction(<-s.came)
			fresh = true
		}
		if fresh {
			pause = seenFirst
		}
		if len(s.unseen) == 0 || !fresh && !due {
			continue
		}
		if wait := time.Until(s.after); wait > 0 {
			look.Reset(wait)
			continue
		}
		s.after = time.Now().Add(roundEvery)
		if err := s.round(ctx); err != nil {
			return err
		}
		if len(s.unseen) > 0 {
			look.Reset(pause)
			pause = min(2*pause, seenMost)
		}
	}
}

// takeTransaction takes a transaction that has come.
func (s *following) takeTransaction(t *loader.Transaction) {
	s.queued.Add(-int64(t.Size))
	s.counts.noteReceived(t.End)
	s.heard = max(s.heard, t.End)
	defer s.certify()
	if len(t.Changed) == 0 { // it is confirmed with the one before
		if n := len(s.order); n > 0 {
			s.order[n-1].upTo = max(s.order[n-1].upTo, t.End)
		} else {
			s.stream.Confirm(t.End)
		}
		return
	}
	p := &pending{Transaction: t, came: time.Now(), upTo: t.End}
	s.order, s.unseen = append(s.order, p), append(s.unseen, p)
	s.counts.rows.Add(int64(t.Rows))
	s.counts.notePending(s.order)
	s.waiting += t.Size
}

// hasRoom reports whether more transactions can be taken before the next round.
func (s *following) hasRoom() bool { return len(s.order) < maxPending && s.waiting <= maxWaiting }

// shrink makes flushes of the keys that no reader sees yet, if they are too many. Very many transactions that no
// reader sees are a gap: a server has few commits under way at a time.
func (s *following) shrink() error {
	if s.waiting <= maxWaiting {
		return nil
	}
	s.waiting = 0
	for _, p := range s.unseen {
		for namespace := range p.Changed {
			p.Flush(namespace, "very many keys came before readers saw their transactions")
		}
		s.waiting += p.Size
	}
	if s.waiting > maxWaiting {
		return fmt.Errorf("%w: readers do not see %d transactions of the log: does their server send it, and do "+
			"its standbys answer?", loader.ErrGap, len(s.unseen))
	}
	return nil
}

// round deletes what the transactions have changed that readers see by now.
func (s *following) round(ctx context.Context) error {
	v, err := s.stream.View(ctx)
	if err != nil {
		return err
	}
	s.counts.noteView(v)
	var wait, of []*pending
	all := &loader.Transaction{}
	for _, p := range s.unseen {
		if !v.Sees(p.Transaction) {
			wait = append(wait, p)
			continue
		}
		all.Join(p.Transaction)
		s.waiting -= p.Size
		p.Changed = nil // it may wait long for one before it
		of = append(of, p)
	}
	if s.unseen = wait; len(of) > 0 {
		s.delete(ctx, all, of)
	}
	return s.shrink()
}

// delete deletes what a round has changed. The last part tells of its transactions.
func (s *following) delete(ctx context.Context, all *loader.Transaction, of []*pending) {
	var parts, flushes []func() error
	for namespace, c := range all.Changed {
		if c.Flush != "" {
			flushes = append(flushes, func() error { return s.flush(ctx, namespace, c.Flush) })
			continue
		}
		for keys := range slices.Chunk(slices.Collect(maps.Keys(c.Keys)), keysEach) {
			parts = append(parts, func() error { return s.outdate(ctx, namespace, keys) })
		}
	}
	if len(flushes) > 0 {
		s.after = s.after.Add(flushEvery - roundEvery)
	}
	left, keyParts := atomic.Int64{}, len(parts)
	left.Store(int64(len(parts) + len(flushes)))
	for i, part := range append(parts, flushes...) {
		if n := i - keyParts; n > 0 && n%flushesAtOnce == 0 {
			kv.Sleep(ctx, flushRest)
		}
		s.deleting.Go(func() error {
			if part() == nil && left.Add(-1) == 0 { // it fails with ctx alone
				s.mu.Lock()
				s.ended = append(s.ended, of...)
				s.mu.Unlock()
				select {
				case s.wake <- struct{}{}:
				default:
				}
			}
			return nil
		})
	}
}

func (s *following) outdate(ctx context.Context, namespace string, keys []string) error {
	list := make([][]byte, len(keys))
	for i, key := range keys {
		list[i] = []byte(key)
	}
	err := s.host.Outdate(ctx, namespace, list)
	if err == nil {
		s.counts.deletions.Add(int64(len(keys)))
	}
	return err
}

// finish notes the transactions whose keys are deleted.
func (s *following) finish() {
	s.mu.Lock()
	ended := s.ended
	s.ended = nil
	s.mu.Unlock()
	for _, p := range ended {
		p.done = true
		s.counts.noteDeleted(p)
	}
	s.confirm()
}

// confirm confirms what is done up to the first transaction that is not.
func (s *following) confirm() {
	n := 0
	for n < len(s.order) && s.order[n].done {
		n++
	}
	if n > 0 {
		s.stream.Confirm(s.order[n-1].upTo)
		s.order = slices.Delete(s.order, 0, n)
	}
	s.counts.notePending(s.order)
	s.certify()
}

// whole asks whether the stream has all changes. If it may not, the namespaces are flushed, and once
// more when the transactions have ended that were open until then.
func (s *following) whole(ctx context.Context) error {
	s.forget()
	now, under := s.host.Now(), s.next
	gap, err := s.stream.FindGap(ctx)
	if err != nil {
		return err
	}
	if gap != "" { // the next stream has it too if this one ends before the namespaces are flushed
		s.broken, s.gap = gap, gap
	}
	v, err := s.stream.View(ctx)
	if err != nil {
		return err
	}
	s.counts.noteView(v)
	switch {
	case s.broken != "" && time.Since(s.counts.lastGap()) >= s.gapPause():
		s.log.Warn("changes may be missing: the namespaces of the feed are flushed", "reason", string(s.broken))
		s.counts.noteGap(s.broken)
		s.flushAll(ctx, string(s.broken))
		s.broken, s.again = "", v.Snapshot
	case s.again != nil && s.broken == "" && v.Outlives(s.again):
		s.flushAll(ctx, "the transactions of then have ended")
		s.again = nil
	}
	if s.broken == "" && s.again == nil && s.flushing.Load() == 0 {
		s.gap = ""
		s.beginCertificate(now, v)
	}
	if s.counts.silent() || under != nil && s.next == under {
		return s.stream.Nudge(ctx)
	}
	return nil
}

// flushAll flushes all namespaces of the feed.
func (s *following) flushAll(ctx context.Context, why string) {
	for _, namespace := range s.feed.Namespaces() {
		s.flushing.Add(1)
		s.deleting.Go(func() error {
			if s.flush(ctx, namespace, why) == nil { // it fails with ctx alone
				s.flushing.Add(-1)
			}
			return nil
		})
	}
}
