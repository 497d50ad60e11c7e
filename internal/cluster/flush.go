package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// flusher flushes the cluster, and takes part in the flushes of others. Before FLUSH is
// acknowledged, every process that could own a partition, or release one, has noted the
// flush's version. A process that takes a partition later learns of the flush from the
// processes that grant it: answers to ACQUIRE and AUTH carry the flushes.
//
//	first       a version is sent to all; each process notes it, drops all that it has,
//	            and answers with its clock from then and with the members that are in
//	again       with a version above those clocks, until each has noted a version above
//	            the clock of its first answer, and has dropped all once more: so
//	            nothing comes back that was on its way and was made from an older value,
//	            as by an INCR under a version above the first
//
// Under policy available, every process must note the flush that is not considered dead
// here, and every process that an answer names. Under policy consistent, a majority of
// the voters must note it, and the owners that these voters have acknowledged; if such
// an owner does not answer, its authority must have ended.
//
// flusher has no lock of its own. Its methods take the driver's lock, and must not be
// called under it.
type flusher struct {
	cfg       *Config
	driver    *driver
	pool      *peer.Pool
	admission *admission
}

// flush flushes a namespace, or all; see Node.Flush.
func (fl *flusher) flush(ctx context.Context, name string) (kv.Version, *wire.Error) {
	f := &flushing{
		flusher: fl, floor: wire.Floor{Namespace: name},
		heard: map[kv.Process]bool{}, noted: map[kv.Process]*noted{}, why: map[kv.NodeID]string{},
	}
	f.floor.Version = uint64(fl.cfg.Versions.Next(fl.cfg.Clock.Read().Wall))
	failpoint.At(failpoint.FlushDue)
	for {
		var joined, quorum bool
		fl.driver.step(func(s *state, _ time.Duration) { joined, quorum = s.machine.Joined(), s.machine.Quorum() })
		switch {
		case !joined:
			return 0, wire.Errorf(wire.Unavailable, "nothing was flushed: this host has not found the others yet")
		case !quorum && len(f.heard) == 0 && !failpoint.Out(failpoint.FlushMajority):
			return 0, wire.Errorf(wire.Unavailable,
				"nothing was flushed: this host does not reach a majority of the voters %s",
				strings.Join(fl.cfg.Voters, ", "))
		}
		if err := f.round(ctx); err != nil {
			return 0, err
		}
		if f.again() {
			continue
		}
		missing := f.missing()
		if len(missing) == 0 {
			return kv.Version(f.floor.Version), nil
		}
		if !kv.Sleep(ctx, fl.cfg.Bound/64) {
			return 0, f.late(missing)
		}
	}
}

// flushing is a flush in progress.
type flushing struct {
	flusher *flusher
	floor   wire.Floor
	ahead   bool // the version is above the unknown clock of a silent owner

	mu    sync.Mutex
	heard map[kv.Process]bool   // processes that have noted some version
	above bool                  // a process has noted the present version as its first
	noted map[kv.Process]*noted // the answers to the present version
	why   map[kv.NodeID]string  // why there is no answer
	fails *wire.Error           // a process cannot note the flush
}

// noted is an answer.
type noted struct {
	at     time.Duration // on the boot clock, when it arrived
	in     []kv.Process
	voter  bool
	owners []kv.Process
}

// round asks all processes that have not answered.
func (fs *flushing) round(ctx context.Context) *wire.Error {
	ctx, cancel := context.WithTimeout(ctx, fs.flusher.cfg.Bound/4)
	defer cancel()
	ask := slices.DeleteFunc(fs.all(), func(id kv.Process) bool { return fs.noted[id] != nil })
	var wg sync.WaitGroup
	for _, id := range ask {
		wg.Go(func() {
			a, err := fs.flusher.noteAt(ctx, id, fs.floor)
			fs.keepAnswer(id, a, err)
		})
	}
	wg.Wait()
	return fs.fails
}

// keepAnswer keeps an answer, or why there is none.
func (fs *flushing) keepAnswer(id kv.Process, a *wire.Noted, err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var refused *wire.Error
	switch {
	case errors.As(err, &refused) && refused.Status == wire.BadRequest:
		fs.fails = wire.Errorf(wire.BadRequest, "%s: %s", id.Node, refused.Message)
	case err != nil:
		fs.why[id.Node] = err.Error()
	default:
		delete(fs.why, id.Node)
		fs.above = fs.above || !fs.heard[id]
		fs.heard[id] = true
		fs.noted[id] = &noted{
			at: fs.flusher.cfg.Clock.Read().Boot,
			in: a.In, voter: a.Voter, owners: a.Owners,
		}
	}
}

// all lists the processes to ask: live processes that may own something, and processes
// that an answer names.
func (fs *flushing) all() []kv.Process {
	d := fs.flusher.driver
	list := []kv.Process{d.cfg.Self}
	d.step(func(s *state, _ time.Duration) {
		for _, id := range s.machine.Live() {
			if m := s.members[id.Node]; m == nil || !s.stranger(m) {
				list = append(list, id)
			}
		}
	})
	if failpoint.Out(failpoint.FlushAgain) {
		return list
	}
	for _, a := range fs.noted {
		for _, id := range slices.Concat(a.in, a.owners) {
			if !slices.Contains(list, id) && !d.hasLeft(id) {
				list = append(list, id)
			}
		}
	}
	return list
}

// again reports whether all processes must be told again, with a higher version. That
// is so if a process has noted the present version as its first, or if the clock of an
// owner that does not answer is unknown.
func (fs *flushing) again() bool {
	raise := fs.above && !failpoint.Out(failpoint.FlushClocks)
	cfg := fs.flusher.cfg
	version := cfg.Versions.Next(cfg.Clock.Read().Wall)
	if !raise && !fs.ahead && len(fs.silent()) > 0 {
		raise, fs.ahead = true, true
		version = max(version, kv.FirstVersionAt(version.Wall().UnixMilli()+2*cfg.MaxSkew.Milliseconds()))
	}
	if raise {
		fs.floor.Version, fs.above = uint64(version), false
		clear(fs.noted)
	}
	return raise
}

// missing lists the processes that must note the flush and have not.
func (fs *flushing) missing() (list []kv.Process) {
	if fs.flusher.cfg.Policy == Available {
		for _, id := range fs.all() {
			if fs.noted[id] == nil {
				list = append(list, id)
			}
		}
		// Ask these again: they may not name the missing process any more.
		for id, a := range fs.noted {
			if slices.ContainsFunc(list, func(o kv.Process) bool { return slices.Contains(a.in, o) }) {
				delete(fs.noted, id)
			}
		}
		return list
	}
	at := fs.votes()
	need := fs.flusher.cfg.majority()
	switch {
	case failpoint.Out(failpoint.FlushMajority):
		return nil
	case len(at) < need:
		return fs.voters()
	case fs.flusher.cfg.Clock.Read().Boot >= at[need-1]+Margin(fs.flusher.cfg.Bound):
		return nil // earlier authority has ended, and later authority came with the flush
	}
	return fs.silent()
}

// votes returns when the voters have answered, in ascending order.
func (fs *flushing) votes() (at []time.Duration) {
	for id, a := range fs.noted {
		if a.voter && slices.Contains(fs.flusher.cfg.Voters, string(id.Node)) {
			at = append(at, a.at)
		}
	}
	slices.Sort(at)
	return at
}

// silent lists the owners that the voters name and that have not answered.
func (fs *flushing) silent() (list []kv.Process) {
	if fs.flusher.cfg.Policy == Available || failpoint.Out(failpoint.FlushOwners) {
		return nil
	}
	for _, a := range fs.noted {
		for _, id := range a.owners {
			if fs.noted[id] == nil && !slices.Contains(list, id) {
				list = append(list, id)
			}
		}
	}
	return list
}

// voters lists the voters that have not answered, or not as voters.
func (fs *flushing) voters() (list []kv.Process) {
	for _, name := range fs.flusher.cfg.Voters {
		has := false
		for id, a := range fs.noted {
			has = has || string(id.Node) == name && a.voter
		}
		if !has {
			list = append(list, kv.Process{Node: kv.NodeID(name)})
		}
	}
	return list
}

// late returns the TIMEOUT error. It names the processes that have noted no version of
// the flush; if there are none, all that are missing.
func (fs *flushing) late(missing []kv.Process) *wire.Error {
	slices.SortFunc(missing, kv.Process.Compare)
	heard := map[kv.NodeID]bool{}
	for id := range fs.heard {
		heard[id.Node] = true
	}
	silent := slices.DeleteFunc(slices.Clone(missing), func(id kv.Process) bool { return heard[id.Node] })
	if len(silent) == 0 {
		silent = missing
	}
	var list []string
	for _, id := range silent {
		s := string(id.Node)
		if why := fs.why[id.Node]; why != "" {
			s += " (" + why + ")"
		}
		list = append(list, s)
	}
	return wire.Errorf(wire.Timeout, "not flushed everywhere: no answer of %s; other hosts have flushed",
		strings.Join(list, ", "))
}

// noteAt has a process note a flush. The process may be this one. A floor without a
// version only asks the process what it knows.
func (fl *flusher) noteAt(ctx context.Context, id kv.Process, floor wire.Floor) (*wire.Noted, error) {
	if id == fl.cfg.Self {
		return fl.noteHere(floor)
	}
	sent := fl.cfg.Clock.Read()
	note := &wire.Note{Floor: floor, WallMS: sent.Wall}
	var w wire.Noted
	if err := fl.pool.Ask(ctx, id, fl.cfg.Bound/4, wire.OpNote, note, &w); err != nil {
		return nil, err
	}
	if fl.admission.skewed(id, w.WallMS, sent.Wall) || fl.admission.ahead(id, w.NewestVersion()) {
		return nil, errSkewed
	}
	fl.cfg.Versions.Observe(kv.Version(w.Clock))
	return &w, nil
}

// noteHere notes a flush and returns the processes that may have to hear of it too. That
// list is made after the flush was noted: a process that asks for partitions later gets
// the flush with the answer.
func (fl *flusher) noteHere(floor wire.Floor) (*wire.Noted, error) {
	if floor.Version != 0 {
		if err := fl.cfg.Delegate.NoteFlush(floor); err != nil {
			return nil, err
		}
	}
	now := fl.cfg.Clock.Read()
	a := &wire.Noted{Clock: uint64(fl.cfg.Versions.Next(now.Wall)), WallMS: now.Wall}
	fl.driver.step(func(s *state, _ time.Duration) {
		a.In = s.machine.AreIn()
		a.Owners, a.Voter = s.machine.Acknowledged()
	})
	return a, nil
}

// maxFloors limits how many flushes of a list are taken. Processes note fewer.
const maxFloors = 1 << 14

// learn notes flushes that other nodes have noted.
func (c *Config) learn(floors []wire.Floor) {
	if len(floors) > 0 {
		c.Delegate.LearnFlushes(floors[:min(len(floors), maxFloors)])
	}
}

// floors returns the flushes that this process knows, for an answer that lets another
// process own something.
func (c *Config) floors(g failpoint.Guard) []wire.Floor {
	if failpoint.Out(g) {
		return nil
	}
	return c.Delegate.Floors()
}
