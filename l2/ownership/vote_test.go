package ownership

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// These tests check each rule of the voters by itself; the simulation meets some of
// these cases too rarely.

// hand drives one machine by hand.
type hand struct {
	*testing.T
	m     *Machine
	now   time.Duration
	clock kv.Version
}

var testVoters = []kv.NodeID{"v", "w", "x"}

func newHand(t *testing.T, name kv.NodeID) *hand {
	h := &hand{T: t, now: time.Hour, clock: 1000}
	h.m = New(Config{
		Self: kv.Process{Node: name, Epoch: 1}, Weight: 1, Bound: simBound, Detection: simDetection, Bootstrap: true, Partitions: simPartitions,
		Stamp: func() kv.Version { h.clock++; return h.clock }, Rand: rand.New(rand.NewPCG(1, 1)),
		Table: func(list []RingMember) *Ring { return smallTable(list) }, Voters: testVoters,
	}, h.now)
	return h
}

func (h *hand) tick(d time.Duration) {
	h.now += d
	h.m.Tick(h.now)
}

// stays takes a leave back: the node may come in.
func (h *hand) stays() {
	h.m.leaving = false
	h.m.settle()
}

func ballotOf(clock kv.Version, node kv.NodeID) *kv.Ballot {
	return &kv.Ballot{Clock: clock, Process: kv.Process{Node: node, Epoch: 1}}
}

func everyPartition() kv.PartitionSet { return kv.PartitionSet{1<<simPartitions - 1} }

// asks sends another node's ACQUIRE of everything.
func (h *hand) asks(b *kv.Ballot) Answer {
	return h.m.Asked(h.now, b.Process, Acquire{Ballot: b, Partitions: everyPartition(), Ring: []kv.Process{b.Process}})
}

// polls sends another node's AUTH over everything, and says whether all is
// acknowledged.
func (h *hand) polls(from kv.Process, b *kv.Ballot) bool {
	sets := h.m.Authorize(h.now, from, Auth{[]Ownership{{b, everyPartition()}}})
	return len(sets) == 1 && sets[0].Contains(everyPartition())
}

func (h *hand) check(what string, got, want bool) {
	h.Helper()
	if got != want {
		h.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestVoterIsSilentAfterItsStart(t *testing.T) {
	for at, remembers := range map[time.Duration]bool{0: false, Margin(2*simBound) - 1: false, Margin(2 * simBound): true} {
		h := newHand(t, "v")
		h.m.Leave(h.now) // it votes, and owns nothing
		h.now += at
		h.check("an AUTH is acknowledged", h.polls(kv.Process{Node: "a", Epoch: 1}, ballotOf(10, "a")), remembers)
		a := h.asks(ballotOf(11, "b"))
		h.check("it answers as a voter", a.Voter, remembers)
		h.check("it grants, as any member", a.Granted.Contains(everyPartition()), true)
	}
}

func TestVoterAnswers(t *testing.T) {
	a, b, c := ballotOf(20, "a"), ballotOf(30, "b"), ballotOf(40, "c")
	remembering := func() *hand {
		h := newHand(t, "v")
		h.m.Leave(h.now) // it votes, and owns nothing
		h.tick(Margin(2 * simBound))
		return h
	}
	granted := func(h *hand, b *kv.Ballot) bool { return h.asks(b).Granted.Contains(everyPartition()) }

	h := remembering()
	h.check("an AUTH under another's ballot", h.polls(a.Process, b), false)
	h.check("an AUTH", h.polls(a.Process, a), true)
	h.check("again", h.polls(a.Process, a), true)
	h.check("a higher ACQUIRE", granted(h, b), true)
	h.check("an AUTH of the lower", h.polls(a.Process, a), false)
	h.check("an ACQUIRE of the lower", granted(h, a), false)
	h.check("an AUTH of the higher", h.polls(b.Process, b), true)

	h = remembering()
	h.check("an AUTH that no ACQUIRE came before", h.polls(b.Process, b), true)
	h.check("then a lower ACQUIRE", granted(h, a), false)
	h.check("and a lower AUTH", h.polls(a.Process, a), false)

	h = remembering()
	h.polls(a.Process, a)
	h.now += simBound / 2
	h.polls(b.Process, b)
	names := func(want ...*kv.Ballot) {
		t.Helper()
		var got []*kv.Ballot
		for _, o := range h.asks(c).Authorities {
			got = append(got, o.Ballot)
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %v it names %v, want %v", h.now-time.Hour, got, want)
		}
	}
	names(b) // whose owner has found that a's authority is over
	h.now += simBound*2 - 1
	names(b)
	h.now++
	names()

	h = remembering()
	half := everyPartition()
	half.Remove(3)
	h.polls(a.Process, a)
	h.m.Authorize(h.now, b.Process, Auth{[]Ownership{{b, half}}})
	got := h.asks(c).Authorities
	h.check("it names both", len(got) == 2, true)
	h.check("a for what b has not, and only that", got[0].Ballot == a && got[0].Partitions.Len() == 1 && got[0].Partitions.Has(3), true)
}

// TestPromiseIsForgotten: a promise whose claim came to nothing keeps a voter from
// acknowledging an older ownership for as long as the claim may live, and no longer.
// Otherwise the older ownership would end with the first other voter that stops.
func TestPromiseIsForgotten(t *testing.T) {
	for after, acknowledged := range map[time.Duration]bool{Margin(2*simBound) - 1: false, Margin(2 * simBound): true} {
		h := newHand(t, "v")
		h.m.Leave(h.now) // it votes, and owns nothing
		h.tick(Margin(2 * simBound))
		a, b := ballotOf(20, "a"), ballotOf(30, "b")
		h.check("an AUTH", h.polls(a.Process, a), true)
		h.asks(b)
		h.now += after
		h.check("the AUTH of the older one again", h.polls(a.Process, a), acknowledged)
		h.check("an AUTH of the later one", h.polls(b.Process, b), true)
		h.now += after
		h.check("after the later one's AUTH", h.polls(a.Process, a), acknowledged)
	}
}

// newClaimant returns a node that has asked for everything, and that knows the voters
// and a node h, which may own it.
func newClaimant(t *testing.T) (h *hand, ballot *kv.Ballot) {
	h = newHand(t, "a")
	h.m.Leave(h.now) // until it knows all
	for _, n := range append([]kv.NodeID{"h", "i"}, testVoters...) {
		h.meets(n, 1)
	}
	h.stays()
	asked := map[kv.NodeID]bool{}
	for _, a := range h.m.TakeActions() {
		if a, ok := a.(Send); ok {
			asked[a.To.Node] = true
			ballot = a.Acquire.Ballot
		}
	}
	if len(asked) != 5 {
		t.Fatalf("it asks %v", asked)
	}
	return h, ballot
}

func (h *hand) meets(n kv.NodeID, epoch kv.Epoch) {
	id := kv.Process{Node: n, Epoch: epoch}
	h.m.Seen(h.now, id, 1, 1, false)
	h.m.Leased(h.now, id, h.now)
}

// answers passes a node's answer to the claim.
func (h *hand) answers(n kv.NodeID, a Answer) {
	a.Granted = everyPartition()
	h.m.Answered(h.now, h.m.members[n].id, a)
}

// auth returns the last AUTH that was sent to all voters since the last call.
func (h *hand) auth() (sent *SendAuth) {
	h.Helper()
	n := 0
	for _, a := range h.m.TakeActions() {
		if a, ok := a.(SendAuth); ok {
			if sent == nil || sent.Round != a.Round {
				n = 0
			}
			sent = &a
			n++
		}
	}
	if sent != nil && n != len(testVoters) {
		h.Errorf("an AUTH goes to %d voters", n)
	}
	return sent
}

func TestClaimGoesOn(t *testing.T) {
	earlier := Ownership{ballotOf(5, "h"), everyPartition()}
	own := Ownership{ballotOf(5, "a"), everyPartition()}
	soon, later := simBound/4, Margin(simBound)
	for _, tt := range []struct {
		name string
		do   func(h *hand, b *kv.Ballot)
		when time.Duration // after it; never: not within 2B
	}{
		{"all grant", func(h *hand, b *kv.Ballot) {
			for _, n := range []kv.NodeID{"h", "i", "v", "w", "x"} {
				h.answers(n, Answer{Ballot: b, Voter: true})
			}
		}, 0},
		{"two voters grant, others are silent", func(h *hand, b *kv.Ballot) {
			h.answers("v", Answer{Ballot: b, Voter: true})
			h.answers("w", Answer{Ballot: b, Voter: true})
		}, soon},
		{"one voter grants", func(h *hand, b *kv.Ballot) {
			h.answers("v", Answer{Ballot: b, Voter: true})
			h.answers("h", Answer{Ballot: b, Voter: true})
			h.answers("i", Answer{Ballot: b, Voter: true})
		}, never},
		{"one of two has forgotten", func(h *hand, b *kv.Ballot) {
			h.answers("v", Answer{Ballot: b, Voter: true})
			h.answers("w", Answer{Ballot: b})
		}, never},
		{"one of two is another process now", func(h *hand, b *kv.Ballot) {
			h.answers("v", Answer{Ballot: b, Voter: true})
			h.answers("w", Answer{Ballot: b, Voter: true})
			h.meets("w", 2)
		}, never},
		{"an owner that is named has answered", func(h *hand, b *kv.Ballot) {
			h.answers("h", Answer{Ballot: b})
			h.answers("v", Answer{Ballot: b, Voter: true, Authorities: []Ownership{earlier}})
			h.answers("w", Answer{Ballot: b, Voter: true})
		}, soon},
		{"an owner that is named is silent", func(h *hand, b *kv.Ballot) {
			h.answers("v", Answer{Ballot: b, Voter: true, Authorities: []Ownership{earlier}})
			h.answers("w", Answer{Ballot: b, Voter: true})
		}, later},
		{"a later process of its name has answered", func(h *hand, b *kv.Ballot) {
			h.meets("h", 2)
			h.answers("h", Answer{Ballot: b})
			h.answers("v", Answer{Ballot: b, Voter: true, Authorities: []Ownership{earlier}})
			h.answers("w", Answer{Ballot: b, Voter: true})
		}, later},
		{"it has refused", func(h *hand, b *kv.Ballot) {
			h.m.Answered(h.now, h.m.members["h"].id, Answer{Ballot: b})
			h.answers("v", Answer{Ballot: b, Voter: true, Authorities: []Ownership{earlier}})
			h.answers("w", Answer{Ballot: b, Voter: true})
		}, later},
		{"the asker itself is named", func(h *hand, b *kv.Ballot) {
			h.answers("v", Answer{Ballot: b, Voter: true, Authorities: []Ownership{own}})
			h.answers("w", Answer{Ballot: b, Voter: true})
		}, soon},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, b := newClaimant(t)
			tt.do(h, b)
			begun := h.now
			const step = simBound / 200
			for when := time.Duration(0); when < 2*simBound; when += step {
				if h.auth() != nil {
					if when < tt.when || when >= tt.when+step+1 {
						t.Errorf("after %v, want %v", when, tt.when)
					}
					return
				}
				h.now = begun + when + step
				h.m.Tick(h.now)
			}
			if tt.when != never {
				t.Errorf("not at all, want it after %v", tt.when)
			}
		})
	}
}

// TestSilentVoterIsAskedAgain: a voter that was silent when it granted a claim is
// asked until it votes. What the last owners have released is for this very ballot.
func TestSilentVoterIsAskedAgain(t *testing.T) {
	h, b := newClaimant(t)
	h.answers("v", Answer{Ballot: b, Voter: true})
	for _, n := range []kv.NodeID{"h", "i", "w"} {
		h.answers(n, Answer{Ballot: b})
	}
	asked := func() (list []kv.NodeID) {
		for _, a := range h.m.TakeActions() {
			if a, ok := a.(Send); ok && a.Acquire.Ballot.Compare(b) == 0 {
				list = append(list, a.To.Node)
			}
		}
		slices.Sort(list)
		return list
	}
	asked()
	for range 3 {
		h.tick(simBound / 4)
		if got := asked(); !slices.Equal(got, []kv.NodeID{"w", "x"}) {
			t.Errorf("it asks %v again, want w, which does not vote yet, and x, which has not answered", got)
		}
	}
	h.answers("w", Answer{Ballot: b, Voter: true})
	h.check("an AUTH once it votes", h.auth() != nil, true)
}

// newPolling returns a claimant to which all have granted everything, at its first
// AUTH.
func newPolling(t *testing.T) (h *hand, sent *SendAuth) {
	h, b := newClaimant(t)
	for _, n := range []kv.NodeID{"h", "i", "v", "w", "x"} {
		h.answers(n, Answer{Ballot: b, Voter: true})
	}
	if sent = h.auth(); sent == nil {
		t.Fatal("no AUTH")
	}
	return h, sent
}

// acknowledged passes a voter's answer to an AUTH, of everything.
func (h *hand) acknowledged(n kv.NodeID, sent *SendAuth) {
	h.m.Authorized(h.now, h.m.members[n].id, sent.Round, []kv.PartitionSet{everyPartition()})
}

func TestAuthority(t *testing.T) {
	h, sent := newPolling(t)
	begun := h.now
	h.now += simBound / 10
	h.acknowledged("v", sent)
	h.check("one has acknowledged", h.m.serves(3), false)
	h.acknowledged("v", sent)
	h.check("and again", h.m.serves(3), false)
	h.acknowledged("h", sent)
	h.check("and one that is no voter", h.m.serves(3), false)
	h.m.Authorized(h.now, h.m.members["w"].id, sent.Round, []kv.PartitionSet{{0}})
	h.check("and one that refuses", h.m.serves(3), false)
	h.acknowledged("x", sent)
	h.check("two have", h.m.serves(3), true)
	if got, want := h.m.LapseAt(), begun+simBound; got != want {
		t.Errorf("its authority lasts until %v, want %v", got-begun, want-begun)
	}
	h.auth()
	h.tick(simBound / 4)
	second, at := h.auth(), h.now
	if second == nil {
		t.Fatal("authority is not sought again after B/4")
	}
	h.acknowledged("v", second)
	h.now += simBound / 10
	h.acknowledged("w", second)
	if got, want := h.m.LapseAt(), at+simBound; got != want {
		t.Errorf("then until %v, want %v", got-begun, want-begun)
	}
	h.auth()
	h.now = at + simBound - 1
	h.m.Tick(h.now)
	late := h.auth()
	h.acknowledged("v", late)
	h.check("just before its end", h.m.serves(3), true)
	h.now++
	h.acknowledged("w", late)
	h.check("at its end, though a later AUTH is acknowledged", h.m.serves(3), false)
	if !slices.ContainsFunc(h.m.TakeActions(), func(a Action) bool { e, ok := a.(Ended); return ok && e.Partitions.Contains(everyPartition()) }) {
		t.Error("the ownership has not ended")
	}
}

// TestLapsedGivesNothing: a node that no longer owns a partition has no entries to
// give.
func TestLapsedGivesNothing(t *testing.T) {
	for at, gives := range map[time.Duration]bool{simBound - 1: true, simBound: false} {
		h, sent := newPolling(t)
		h.acknowledged("v", sent)
		h.acknowledged("w", sent)
		h.m.in = false // its ring has no say
		h.now += at
		b := ballotOf(1<<20, "h")
		a := h.m.Asked(h.now, b.Process, Acquire{Ballot: b, State: 2, Partitions: everyPartition()})
		h.check("it gives its entries", a.Released.Has(3), gives)
	}
}

// TestClaimExpires: voters may have forgotten a claim that takes 2B.
func TestClaimExpires(t *testing.T) {
	for at, begins := range map[time.Duration]bool{2*simBound - 1: true, 2 * simBound: false} {
		h, sent := newPolling(t)
		began := h.now
		for h.now < began+simBound*3/2 {
			h.tick(simBound / 8)
			if s := h.auth(); s != nil {
				sent = s
			}
		}
		h.now = began + at
		h.acknowledged("v", sent)
		h.acknowledged("w", sent)
		h.check("it begins", h.m.serves(3), begins)
	}
}

// TestEntriesOfTheLastOwner: two nodes give their entries. Only the node that the
// voters acknowledged last had the latest entries.
func TestEntriesOfTheLastOwner(t *testing.T) {
	h, b := newClaimant(t)
	first, last := Ownership{ballotOf(5, "h"), everyPartition()}, Ownership{ballotOf(6, "i"), everyPartition()}
	h.answers("h", Answer{Ballot: b, Released: everyPartition()})
	h.answers("i", Answer{Ballot: b, Released: everyPartition()})
	h.answers("v", Answer{Ballot: b, Voter: true, Authorities: []Ownership{first}})
	h.answers("w", Answer{Ballot: b, Voter: true, Authorities: []Ownership{first, last}})
	h.answers("x", Answer{Ballot: b, Voter: true})
	sent := h.auth()
	if sent == nil {
		t.Fatal("no AUTH")
	}
	h.acknowledged("v", sent)
	h.acknowledged("w", sent)
	for _, a := range h.m.TakeActions() {
		if begun, ok := a.(Begun); ok {
			if len(begun.Releasers) != 1 || begun.Releasers[last.Ballot.Process] == nil {
				t.Errorf("entries come from %v, want them from %v", begun.Releasers, last.Ballot.Process)
			}
			return
		}
	}
	t.Error("nothing begins")
}

// TestVoterClaims: a voter that has itself asked for partitions acknowledges no lower
// ballot.
func TestVoterClaims(t *testing.T) {
	h := newHand(t, "v")
	h.m.Leave(h.now) // until it remembers
	h.tick(Margin(2 * simBound))
	h.meets("w", 1)
	h.meets("b", 1)
	low, high := ballotOf(20, "b"), ballotOf(1<<20, "b")
	h.stays()
	h.check("it asks", len(h.m.claims) == 1, true)
	h.check("an AUTH of a lower ballot", h.polls(low.Process, low), false)
	h.check("an AUTH of a higher one", h.polls(high.Process, high), true)
}
