package cluster

import (
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// touched counts the calls that reach the tiers.
type touched struct {
	noDelegate
	n int
}

func (tc *touched) LearnFlushes([]wire.Floor)                      { tc.n++ }
func (tc *touched) NoteFlush(wire.Floor) error                     { tc.n++; return nil }
func (tc *touched) Apply(kv.Process, uint64, []invalidation.Event) { tc.n++ }
func (tc *touched) Relayed([]invalidation.Event)                   { tc.n++ }
func (tc *touched) Offer(kv.Process, *kv.Ballot, kv.PartitionSet)  { tc.n++ }
func (tc *touched) Reset(kv.Process, []invalidation.Mark, []wire.Floor, kv.Version) {
	tc.n++
}

// TestMessagesAhead checks that a message is refused if any version in it is too far
// ahead. Nothing in it is applied, and its sender's clock counts as off.
func TestMessagesAhead(t *testing.T) {
	clock := &still{}
	now := clock.Read().Wall
	hour := uint64(kv.FirstVersionAt(now + time.Hour.Milliseconds()))
	for _, far := range []uint64{math.MaxUint64, hour} {
		ok := uint64(kv.FirstVersionAt(now))
		from := kv.Process{Node: "b", Epoch: 1}
		ballots := []wire.Promise{{Ballot: kv.Ballot{Clock: kv.Version(far), Process: from}}}
		floors := []wire.Floor{{Version: far}}
		var events wire.Events
		events.Add(wire.EventChanged, 1, far, nil)
		for name, m := range map[string]struct {
			op   wire.Op
			body any
		}{
			"poll":             {wire.OpPoll, &wire.Poll{WallMS: now, Clock: far}},
			"poll, ballots":    {wire.OpPoll, &wire.Poll{WallMS: now, Clock: ok, Ballots: ballots}},
			"acquire":          {wire.OpAcquire, &wire.Acquire{Clock: far, Ballot: kv.Ballot{Clock: kv.Version(ok), Process: from}}},
			"acquire, its":     {wire.OpAcquire, &wire.Acquire{Clock: ok, Ballot: kv.Ballot{Clock: kv.Version(far), Process: from}}},
			"auth":             {wire.OpAuth, &wire.Auth{Clock: far}},
			"auth, ownerships": {wire.OpAuth, &wire.Auth{Clock: ok, Ownerships: ballots}},
			"note":             {wire.OpNote, &wire.Note{Floor: floors[0], WallMS: now}},
			"relay":            {0, &wire.Relay{From: from, Events: events}},
			"follow":           {wire.OpFollow, &wire.Followed{WallMS: now, Clock: far}},
			"follow, events":   {wire.OpFollow, &wire.Followed{WallMS: now, Clock: ok, Events: events, To: 1}},
			"follow, floors":   {wire.OpFollow, &wire.Followed{WallMS: now, Clock: ok, Reset: true, Floors: floors}},
		} {
			tiers := &touched{}
			n, err := New(Config{
				Self: kv.Process{Node: "a", Epoch: 1}, Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", Join: []string{"127.0.0.1:1"},
				Clock: clock, Versions: kv.NewHLC(1), Delegate: tiers, Mirror: noDelegate{}, Events: invalidation.NewLog(1), Log: slog.New(slog.DiscardHandler),
			})
			testenv.Must(t, err)
			b := kv.Process{Node: "b", Epoch: 1}
			n.driver.state.members[b.Node] = &member{id: b}
			body := wire.MarshalBody(m.body)
			switch m.op {
			case 0:
				n.relay.receive(body)
			case wire.OpFollow:
				f := &followed{frame: wire.AppendReply(nil, wire.OpFollow, &wire.Reply{Body: body})[wire.LengthSize:], sent: now}
				if _, err := n.following.apply(b, f); err != errSkewed {
					t.Errorf("%s: %v", name, err)
				}
			default:
				r := n.answer(b, &wire.Request{Op: m.op, Body: body})
				if r.Status != wire.Unauthorized || !strings.Contains(string(r.Message), "max_clock_skew") {
					t.Errorf("%s: %v %s", name, r.Status, r.Message)
				}
			}
			if v := n.cfg.Versions.Next(now); tiers.n != 0 || v > kv.FirstVersionAt(now+time.Minute.Milliseconds()) {
				t.Errorf("%s: %d calls of the tiers, the clock is %v", name, tiers.n, v)
			}
			if m := n.driver.state.members[b.Node]; !m.skewed || !strings.Contains(m.trouble, "the version clock of b") {
				t.Errorf("%s: %q is said of its sender, skewed %v", name, m.trouble, m.skewed)
			}
		}
	}
}
