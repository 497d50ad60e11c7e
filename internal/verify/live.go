package verify

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Namespace is the namespace of checks. Apps may not use it.
const Namespace = "_verify"

// Reserved reports whether a namespace is Namespace, which apps may not use.
func Reserved(namespace []byte) bool { return string(namespace) == Namespace }

// ErrReserved is the answer to an app's request in Namespace.
var ErrReserved = wire.Errorf(wire.BadRequest, "namespace %s is VERIFY's own: use another name", Namespace)

// ProbeTimeout bounds a read by another host. A check may exceed its time by that much.
const ProbeTimeout = 2 * time.Second

// Bounds of a check.
const (
	keysPerNode   = 4
	maxKeys       = 64 // but at least one per node
	readersOfNode = 2
	freshOf       = 8 // one read in freshOf is a fresh one
	writePause    = 50 * time.Millisecond
	readPause     = time.Millisecond
	keyTTL        = wire.MaxVerify*time.Millisecond + time.Minute
	keyTries      = 1000 // per node, to find its keys
	maxViolations = 20   // that are reported; the others are only counted
)

// LiveConfig is the cluster as a check sees it.
type LiveConfig struct {
	Self    kv.Process
	Bound   time.Duration // of staleness
	Hosts   []kv.Process  // that own or copy entries
	Trouble []string      // why a check cannot be conclusive

	// Owner returns the assigned owner of a key in Namespace, by the present ring.
	Owner func(key []byte) (kv.Process, bool)
	Now   func() time.Duration // on the boot clock
	// Execute asks this host, as an app of it would.
	Execute func(context.Context, *wire.Request) (wire.Reply, error)
	// Probe makes a host, or this one, read as for its apps.
	Probe func(context.Context, kv.Process, *wire.Probe) (wire.Probed, error)
}

// Live is a check of the running cluster: this host writes keys of every host, lets all hosts
// read them as their apps would, and judges the answers. Only this host's clock is
// read: a read counts from before it was asked for, a write from after it was acknowledged, so
// that no delay looks like a stale read.
//
// Run uses a goroutine per key and two per host, and returns after all have ended. Others decide
// which callers may ask for a check, and how many checks run at once.
type Live struct {
	cfg     LiveConfig
	keys    []*liveKey
	nodes   []*liveNode
	trouble []string // why the check cannot be conclusive

	mu           sync.Mutex // guards what is below, what is known of keys, and what nodes have read
	order        int64      // of the last begin or end
	readers      []*reader
	begun, acked int64
	violations   []string
	broken       int64 // the number of all violations
}

// liveKey is a key of the check. One goroutine writes it, each time with the next number.
type liveKey struct {
	name   []byte
	number int64

	writes    []*write // in their order, without those that are forgotten
	forgotten int64    // the highest number of these
	forgetAt  int      // writes are forgotten from this number on
}

// liveNode is what one host has read.
type liveNode struct {
	cachesidecar.VerifiedNode
	id    kv.Process
	stale staleness
}

// reader makes one read of its host at a time.
type reader struct {
	*liveNode
	began moment // of the read under way; never: there is none
}

// NewLive prepares a check. It asks no host.
func NewLive(cfg LiveConfig) *Live {
	v := &Live{cfg: cfg, trouble: slices.Clone(cfg.Trouble)}
	for _, id := range cfg.Hosts {
		v.nodes = append(v.nodes, &liveNode{VerifiedNode: cachesidecar.VerifiedNode{Node: string(id.Node)}, id: id})
	}
	v.findKeys()
	return v
}

// Trouble returns why the check cannot be conclusive, as far as that is known before Run.
func (v *Live) Trouble() []string { return slices.Clone(v.trouble) }

// Hosts returns how many hosts read.
func (v *Live) Hosts() int { return len(v.nodes) }

// findKeys chooses keys of every host that owns some.
func (v *Live) findKeys() {
	each := max(1, min(keysPerNode, maxKeys/max(1, len(v.nodes))))
	wanted := map[kv.Process]int{}
	for _, n := range v.nodes {
		wanted[n.id] = each
	}
	run := rand.Uint32()
	for i := 0; i < keyTries*len(v.nodes) && len(wanted) > 0; i++ {
		name := fmt.Appendf(nil, "%s-%x-%d", v.cfg.Self.Node, run, i)
		owner, ok := v.cfg.Owner(name)
		if !ok || wanted[owner] == 0 {
			continue
		}
		if wanted[owner]--; wanted[owner] == 0 {
			delete(wanted, owner)
		}
		v.keys = append(v.keys, &liveKey{name: name})
	}
	for _, n := range v.nodes {
		if wanted[n.id] == each {
			v.trouble = append(v.trouble, fmt.Sprintf("%s owns no keys", n.Node))
		}
	}
}

// Run reads and writes until ctx ends, removes the keys, and returns the report.
func (v *Live) Run(ctx context.Context) cachesidecar.Verified {
	began := v.cfg.Now()
	v.run(ctx)
	return v.report(v.cfg.Now() - began)
}

// run reads and writes until ctx ends, and removes the keys.
func (v *Live) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, k := range v.keys {
		wg.Go(func() {
			for ctx.Err() == nil {
				v.write(k)
				kv.Sleep(ctx, writePause/2+rand.N(writePause))
			}
		})
	}
	for _, n := range v.nodes {
		for range readersOfNode {
			r := &reader{n, never}
			v.mu.Lock()
			v.readers = append(v.readers, r)
			v.mu.Unlock()
			wg.Go(func() {
				for ctx.Err() == nil && len(v.keys) > 0 {
					v.read(ctx, r, v.keys[rand.IntN(len(v.keys))], rand.IntN(freshOf) == 0)
					kv.Sleep(ctx, readPause)
				}
			})
		}
	}
	wg.Wait()
	for _, k := range v.keys {
		_, _ = v.cfg.Execute(context.Background(), &wire.Request{
			Op: wire.OpDelete, Namespace: []byte(Namespace), Keys: [][]byte{k.name},
		})
	}
}

// tick returns the present moment. The lock is held.
func (v *Live) tick() moment {
	v.order++
	return moment{v.cfg.Now(), v.order}
}

// write overwrites a key through this host.
func (v *Live) write(k *liveKey) {
	w := v.beginWrite(k)
	r, err := v.cfg.Execute(context.Background(), &wire.Request{
		Op: wire.OpSet, Namespace: []byte(Namespace), Key: k.name, TTLMS: keyTTL.Milliseconds(),
		Value: binary.BigEndian.AppendUint64(nil, uint64(w.number)),
	})
	v.endWrite(k, w, err == nil && r.Status == wire.OK)
}

func (v *Live) beginWrite(k *liveKey) *write {
	v.mu.Lock()
	defer v.mu.Unlock()
	k.number++
	v.begun++
	w := &write{number: k.number, began: v.tick(), acked: never, sure: never}
	k.writes = append(k.writes, w)
	return w
}

func (v *Live) endWrite(k *liveKey, w *write, acked bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.tick()
	if w.ended = now.at; acked {
		v.acked++
		if w.acked = now; w.sure == never {
			w.sure = now
		}
	}
	v.forget(k)
}

// read makes a host read a key, and judges its answer.
func (v *Live) read(ctx context.Context, n *reader, k *liveKey, fresh bool) {
	v.mu.Lock()
	n.began = v.tick()
	v.mu.Unlock()
	a, err := v.cfg.Probe(ctx, n.id, &wire.Probe{Key: k.name, Fresh: fresh})
	v.mu.Lock()
	defer v.mu.Unlock()
	defer func() { n.began = never }()
	switch {
	case ctx.Err() != nil:
		return
	case err != nil || wire.Status(a.Status).IsError():
		n.Errors++
		return
	case a.Status != uint8(wire.OK) || len(a.Value) != 8:
		n.Misses++
		return
	case fresh:
		n.Fresh++
	case a.Source == uint8(wire.SourceL1):
		n.L1++
	case a.Source == uint8(wire.SourceL2):
		n.L2++
	default:
		n.Peer++
	}
	number, now := int64(binary.BigEndian.Uint64(a.Value)), v.tick()
	found := v.judge(k, n, fresh, number, now)
	n.stale.add(found.stale)
	if found.rule == "" {
		return
	}
	if v.broken++; len(v.violations) < maxViolations {
		v.violations = append(v.violations, found.rule+": "+
			operation("read", k, number, n.id, n.began.at, now.at, "done")+found.reason(k, v.cfg.Self))
	}
}

// report sums up.
func (v *Live) report(took time.Duration) cachesidecar.Verified {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := cachesidecar.Verified{
		DurationMS: took.Milliseconds(), BoundMS: v.cfg.Bound.Milliseconds(), Keys: len(v.keys),
		Writes: v.acked, WriteErrors: v.begun - v.acked,
		Checked: []string{"read_your_writes", "bound", "fresh"},
		Nodes:   []cachesidecar.VerifiedNode{}, Staleness: []cachesidecar.VerifiedBucket{},
		Violations: append([]string{}, v.violations...), ViolationsTotal: v.broken,
		Inconclusive: append([]string{}, v.trouble...),
	}
	var all staleness
	fresh, own := int64(0), int64(0)
	for _, n := range v.nodes {
		n.StaleMaxUS = n.stale.max.Microseconds()
		w.Nodes = append(w.Nodes, n.VerifiedNode)
		all.merge(&n.stale)
		fresh += n.Fresh
		if n.id == v.cfg.Self {
			own = n.L1 + n.L2 + n.Peer
		}
		if len(v.nodes) > 1 && n.L1 == 0 {
			w.Inconclusive = append(w.Inconclusive, n.Node+" has served nothing from a copy")
		}
	}
	if len(v.nodes) == 1 {
		w.Checked = []string{"read_your_writes", "fresh"} // a single host has no copies
	}
	if own == 0 || fresh == 0 || v.acked == 0 {
		w.Inconclusive = append(w.Inconclusive, "there were not enough reads and writes: check for longer")
	}
	for i, n := range all.counts {
		w.Staleness = append(w.Staleness, cachesidecar.VerifiedBucket{UpToMS: staleUpTo[i].Milliseconds(), Reads: n})
	}
	slices.SortFunc(w.Nodes, func(a, b cachesidecar.VerifiedNode) int { return cmp.Compare(a.Node, b.Node) })
	return w
}
