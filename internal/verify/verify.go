// Package verify checks the consistency promise on the running cluster. This host writes
// keys of every host, lets all hosts read them as their apps would, and judges the
// answers by package history.
//
// Input is the members and functions that ask them. Output is the report of VERIFY. Only
// this host's clock is read: a read counts from before it was asked for, a write from
// after it was acknowledged, so that no delay looks like a stale read.
//
// Run uses a goroutine per key and two per host, and returns after all have ended. The
// package does not decide which callers may ask for a check, or how many checks run at
// once.
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
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/history"
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

// Config is the cluster as a check sees it.
type Config struct {
	Self     kv.Process
	Bound    time.Duration // of staleness
	Members  []cluster.Member
	Isolated string // why this host is alone although others should be there; "": it is not

	// Owner returns the assigned owner of a key in Namespace, by the present ring.
	Owner func(key []byte) (kv.Process, bool)
	Now   func() time.Duration // on the boot clock
	// Execute asks this host, as an app of it would.
	Execute func(context.Context, *wire.Request) (wire.Reply, error)
	// Probe makes a host, or this one, read as for its apps.
	Probe func(context.Context, kv.Process, *wire.Probe) (wire.Probed, error)
}

// Check is one check.
type Check struct {
	cfg     Config
	keys    []*key
	nodes   []*node
	trouble []string // why the check cannot be conclusive

	mu           sync.Mutex // guards what is below, and what nodes have read
	history      *history.Checker
	begun, acked int64
	violations   []string
	broken       int64 // the number of all violations
}

// key is a key of the check. One goroutine writes it, each time with the next number.
type key struct {
	name   []byte
	number int64
}

// node is what one host has read.
type node struct {
	cachesidecar.VerifiedNode
	id    kv.Process
	stale staleness
}

// New prepares a check. It asks no host.
func New(cfg Config) *Check {
	v := &Check{cfg: cfg, history: history.New(history.Rules{Bound: cfg.Bound})}
	if cfg.Isolated != "" {
		v.trouble = append(v.trouble, "this host is alone: "+cfg.Isolated)
	}
	for _, m := range cfg.Members {
		switch {
		case m.State == cluster.StateLeft, m.Stranger: // it does not own or copy any entry
			continue
		case m.State == cluster.StateMissing:
			v.trouble = append(v.trouble, fmt.Sprintf("%s is missing: %s", m.ID.Node, m.Why))
			continue
		}
		v.nodes = append(v.nodes, &node{VerifiedNode: cachesidecar.VerifiedNode{Node: string(m.ID.Node)}, id: m.ID})
	}
	v.findKeys()
	return v
}

// Trouble returns why the check cannot be conclusive, as far as that is known before Run.
func (v *Check) Trouble() []string { return slices.Clone(v.trouble) }

// Hosts returns how many hosts read.
func (v *Check) Hosts() int { return len(v.nodes) }

// findKeys chooses keys of every host that owns some.
func (v *Check) findKeys() {
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
		v.keys = append(v.keys, &key{name: name})
	}
	for _, n := range v.nodes {
		if wanted[n.id] == each {
			v.trouble = append(v.trouble, fmt.Sprintf("%s owns no keys", n.Node))
		}
	}
}

// Run reads and writes until ctx ends, removes the keys, and returns the report.
func (v *Check) Run(ctx context.Context) cachesidecar.Verified {
	began := v.cfg.Now()
	v.run(ctx)
	return v.report(v.cfg.Now() - began)
}

// run reads and writes until ctx ends, and removes the keys.
func (v *Check) run(ctx context.Context) {
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
			wg.Go(func() {
				for ctx.Err() == nil && len(v.keys) > 0 {
					v.read(ctx, n, v.keys[rand.IntN(len(v.keys))], rand.IntN(freshOf) == 0)
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

// begin begins an operation in the history.
func (v *Check) begin(o history.Op) *history.Running {
	v.mu.Lock()
	defer v.mu.Unlock()
	if o.Kind == history.Set {
		v.begun++
	}
	o.Began = v.cfg.Now()
	return v.history.Begin(o)
}

// endLocked ends an operation and judges it. The caller holds v.mu.
func (v *Check) endLocked(o *history.Running, out history.Outcome) (stale time.Duration) {
	o.Outcome, o.Ended = out, v.cfg.Now()
	judged := v.history.End(o)
	if judged.Rule != "" {
		if v.broken++; len(v.violations) < maxViolations {
			v.violations = append(v.violations, judged.String())
		}
	}
	return judged.Stale
}

// write overwrites a key through this host.
func (v *Check) write(k *key) {
	k.number++
	o := v.begin(history.Op{Kind: history.Set, Key: string(k.name), Number: k.number, Host: v.cfg.Self.String()})
	q := &wire.Request{
		Op: wire.OpSet, Namespace: []byte(Namespace), Key: k.name, TTLMS: keyTTL.Milliseconds(),
		Value: binary.BigEndian.AppendUint64(nil, uint64(k.number)),
	}
	r, err := v.cfg.Execute(context.Background(), q)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil || r.Status != wire.OK {
		v.endLocked(o, history.Unknown)
		return
	}
	v.acked++
	v.endLocked(o, history.Done)
}

// read makes a host read a key, and judges its answer.
func (v *Check) read(ctx context.Context, n *node, k *key, fresh bool) {
	o := v.begin(history.Op{Kind: history.Read, Key: string(k.name), Host: n.id.String(), Fresh: fresh})
	a, err := v.cfg.Probe(ctx, n.id, &wire.Probe{Key: k.name, Fresh: fresh})
	v.mu.Lock()
	defer v.mu.Unlock()
	out := history.Unknown
	if ctx.Err() == nil && err == nil && a.Status == uint8(wire.OK) && len(a.Value) == 8 {
		out, o.Number = history.Done, int64(binary.BigEndian.Uint64(a.Value))
	}
	stale := v.endLocked(o, out)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil || wire.Status(a.Status).IsError():
		n.Errors++
		return
	case out != history.Done:
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
	n.stale.add(stale)
}

// report sums up.
func (v *Check) report(took time.Duration) cachesidecar.Verified {
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
