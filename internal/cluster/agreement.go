package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Hosts with different settings answer the same question differently. An answer to a poll tells a digest
// of all settings of its host that change an answer. Where two hosts' differ, each asks the other for the
// digests of the single settings, once for each pair, and compares those that both have: a host of
// another version may have more.

// Bounds of the comparison.
const (
	askEvery     = 10 * time.Second // the least time between two questions to a host
	maxDiffer    = 32               // settings that are named of a host
	maxDiffering = 256              // and of all
)

// Agreement compares the settings of other hosts with this one's. Its goroutine is run.
type Agreement struct {
	cfg    *Config
	pool   *peer.Pool
	report *reporter
	wake   chan struct{}
	Asked  atomic.Int64 // questions

	mu     sync.Mutex
	own    Digests
	sum    uint64 // of own
	body   []byte // of the answer to SETTINGS
	others map[kv.Process]*otherSettings
}

// otherSettings is what is known of another host's settings.
type otherSettings struct {
	sum     uint64        // as it has told last; zero: nothing
	pair    [2]uint64     // the sums of this host and of it when it was asked
	asked   time.Duration // boot clock
	differ  []cachesidecar.SettingStats
	more    int    // that are not in differ
	written string // to the log
}

// due reports whether a host is to be asked, if the sum of this one is own.
func (ot *otherSettings) due(own uint64, now time.Duration) bool {
	return ot.sum != 0 && ot.sum != own && ot.pair != [2]uint64{own, ot.sum} && now-ot.asked >= askEvery
}

func newAgreement(cfg *Config, pool *peer.Pool, report *reporter) *Agreement {
	a := &Agreement{
		cfg: cfg, pool: pool, report: report, wake: make(chan struct{}, 1), others: map[kv.Process]*otherSettings{},
	}
	a.Set(cfg.Digests)
	return a
}

// Set replaces this host's digests.
func (ag *Agreement) Set(own Digests) {
	w := pack(own)
	body := wire.MarshalBody(w)
	digest := sha256.Sum256(body)
	ag.mu.Lock()
	defer ag.mu.Unlock()
	ag.own, ag.body, ag.sum = own, body, max(1, binary.BigEndian.Uint64(digest[:]))
}

// ownSum returns what an answer to a poll says.
func (ag *Agreement) ownSum() uint64 {
	ag.mu.Lock()
	defer ag.mu.Unlock()
	return ag.sum
}

// answer answers SETTINGS.
func (ag *Agreement) answer() wire.Reply {
	ag.mu.Lock()
	defer ag.mu.Unlock()
	return wire.Reply{Body: ag.body}
}

// heard takes what a process tells with each poll.
func (ag *Agreement) heard(id kv.Process, sum uint64) {
	now := ag.cfg.Clock.Read().Boot
	ag.mu.Lock()
	defer ag.mu.Unlock()
	o := ag.others[id]
	if o == nil {
		o = &otherSettings{asked: -askEvery}
		ag.others[id] = o
	}
	o.sum = sum
	switch {
	case sum == 0, sum == ag.sum:
		ag.found(id, o, nil)
		o.pair = [2]uint64{}
	case o.due(ag.sum, now):
		wake(ag.wake)
	default:
		ag.log(id, o) // a line may have been one too many
	}
}

// forget ends what is known of a process that is not polled any more.
func (ag *Agreement) forget(id kv.Process) {
	ag.mu.Lock()
	defer ag.mu.Unlock()
	delete(ag.others, id)
}

// run asks the hosts whose settings differ, until ctx ends.
func (ag *Agreement) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ag.wake:
		}
		for id, sum := range ag.due() {
			ag.askHost(ctx, id, sum)
		}
	}
}

// due returns the hosts to be asked now, and what they have told.
func (ag *Agreement) due() map[kv.Process]uint64 {
	list := map[kv.Process]uint64{}
	now := ag.cfg.Clock.Read().Boot
	ag.mu.Lock()
	defer ag.mu.Unlock()
	for id, o := range ag.others {
		if o.due(ag.sum, now) {
			o.asked = now
			list[id] = o.sum
		}
	}
	return list
}

// askHost asks a host that has told a digest. If it tells another one meanwhile, it is asked again.
func (ag *Agreement) askHost(ctx context.Context, id kv.Process, sum uint64) {
	var w wire.Settings
	own := ag.ownSum()
	ag.Asked.Add(1)
	err := ag.pool.Ask(ctx, id, ag.cfg.Bound/2, wire.OpSettings, &wire.AskSettings{Digest: own}, &w)
	ag.answered(id, [2]uint64{own, sum}, &w, err)
}

// answered notes the answer of a host to this one's question, which was about a pair of digests.
func (ag *Agreement) answered(id kv.Process, pair [2]uint64, w *wire.Settings, err error) {
	theirs, ok := unpack(w)
	ag.mu.Lock()
	defer ag.mu.Unlock()
	o := ag.others[id]
	switch {
	case o == nil || pair != [2]uint64{ag.sum, o.sum}: // the next poll tells
	case err == nil && !ok:
		o.pair = pair
		ag.found(id, o, nil)
	case err == nil:
		o.pair = pair
		ag.found(id, o, differences(ag.own, theirs))
	}
}

// found notes which settings of a host differ. ag.mu is held.
func (ag *Agreement) found(id kv.Process, o *otherSettings, differ []cachesidecar.SettingStats) {
	o.differ, o.more = differ[:min(len(differ), maxDiffer)], max(0, len(differ)-maxDiffer)
	for i := range o.differ {
		o.differ[i].Node = string(id.Node)
	}
	ag.log(id, o)
}

// log writes a line if other settings differ than the log says. ag.mu is held.
func (ag *Agreement) log(id kv.Process, o *otherSettings) {
	var names []string
	for i := range o.differ {
		names = append(names, o.differ[i].Name())
	}
	text := strings.Join(names, ", ")
	if text == o.written || !ag.report.due("settings", id.Node) {
		return
	}
	if o.written = text; text == "" {
		ag.cfg.Log.Info("a host has the same settings again", "node", id.Node)
		return
	}
	ag.cfg.Log.Warn("a host has other settings: it may answer differently", "node", id.Node, "settings", names,
		"more", o.more)
}

// Differing returns the settings in which other hosts differ from this one, by host and name.
func (ag *Agreement) Differing() (list []cachesidecar.SettingStats) {
	ag.mu.Lock()
	defer ag.mu.Unlock()
	for _, o := range ag.others {
		list = append(list, o.differ...)
	}
	slices.SortFunc(list, cachesidecar.SettingStats.Compare)
	return list[:min(len(list), maxDiffering)]
}
