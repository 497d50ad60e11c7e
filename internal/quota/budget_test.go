package quota

import (
	"errors"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// asked counts how often an account was asked to give, and gives all.
type asked struct {
	account *Account
	use     Use
	times   int
}

func (a *asked) GiveMemory() int64 {
	n := a.account.Used()
	a.times++
	a.account.Give(a.use, n)
	return n
}

// TestFairShares checks that at each level the largest user is refused first, and must
// give.
func TestFairShares(t *testing.T) {
	const mb = 1 << 20
	b := NewBudget(64 * mb)
	open := func(tenant, process string) (*Account, *asked) {
		g := &asked{use: ForFrames}
		g.account = b.Open(tenant, process)
		g.account.Serves(g)
		return g.account, g
	}
	greedy, gives := open("uid 1", "pid 1")
	for range 56 {
		if err := greedy.Take(ForFrames, mb); err != nil {
			t.Fatalf("with %d of 64 MiB taken: %v", b.Stats().Total()/mb, err)
		}
	}
	err := greedy.Take(ForFrames, mb)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "buffer_size 64.0 MiB uid 1 holds 56.0 MiB, pid 1 of it 56.0 MiB") {
		t.Errorf("beyond 7/8: %v", err)
	}
	if gives.times != 0 || greedy.Used() != 56*mb {
		t.Errorf("asked to give %d times, has %d", gives.times, greedy.Used())
	}
	for _, tc := range []struct{ tenant, process string }{{"uid 1", "pid 1"}, {"uid 1", "pid 2"}, {"uid 2", "pid 3"}} {
		gives.account.Give(ForFrames, gives.account.Used())
		greedy.Force(ForFrames, 56*mb)
		gives.times = 0
		b.search.Store(0)
		other, _ := open(tc.tenant, tc.process)
		if err := other.Take(ForFrames, 8*mb); err != nil {
			t.Errorf("a neighbour of %s, %s: %v", tc.tenant, tc.process, err)
		}
		if gives.times != 1 {
			t.Errorf("for %s, %s the greedy one gave %d times", tc.tenant, tc.process, gives.times)
		}
		other.Give(ForFrames, 8*mb)
		other.Close()
	}
	greedy.Close()
	if st := b.Stats(); st.Total() != 0 || st.Tenants != 0 || len(b.root.named) != 0 || st.Taken != 3 || st.RefusedFor["frames"] != 1 {
		t.Errorf("at the end: %+v, %d tenants", st, len(b.root.named))
	}
}

// TestRequestsLeaveHalf checks that requests that wait may use half of the budget,
// because their memory cannot be taken back, and each tenant a fair part of that.
func TestRequestsLeaveHalf(t *testing.T) {
	b := NewBudget(64)
	one, two := b.Open("uid 1", ""), b.Open("uid 2", "")
	n := 0
	for n < 100 && one.Take(ForRequests, 1) == nil {
		n++
	}
	m := 0
	for m < 100 && two.Take(ForRequests, 1) == nil {
		m++
	}
	if n != 32 || m != 16 {
		t.Errorf("the first got %d, the second %d, of 64; want 32 and 16", n, m)
	}
	if err := two.Take(ForFrames, 8); err != nil {
		t.Errorf("something else: %v", err)
	}
}

// TestSharesDoNotAddUp checks that further connections of a greedy process, each below its share, leave
// some of what is there beyond the limit for other processes, and more for other tenants.
func TestSharesDoNotAddUp(t *testing.T) {
	const mb = 1 << 20
	for use, want := range map[Use][4]int64{ForFrames: {56, 60, 62, 64}, ForRequests: {32, 40, 44, 48}} {
		b := NewBudget(64 * mb)
		var got [4]int64
		for i, of := range [4][2]string{{"uid 1", "pid 1"}, {"uid 1", "pid 1"}, {"uid 1", "pid 2"}, {"uid 2", "pid 3"}} {
			for a := b.Open(of[0], of[1]); a.Take(use, mb) == nil; {
			}
			got[i] = b.used[use].Load() / mb
		}
		if got != want {
			t.Errorf("%s: %d of 64 MiB are used, want %d", use, got, want)
		}
	}
}

// TestNextGreediestGives checks that the next tenant above its share gives if the largest
// tenant has nothing that can be taken back.
func TestNextGreediestGives(t *testing.T) {
	const mb = 1 << 20
	b := NewBudget(64 * mb)
	host := b.Open("node b", "") // answers that have begun: they come or time out
	greedy := &asked{use: ForFrames}
	greedy.account = b.Open("uid 1", "pid 1")
	greedy.account.Serves(greedy)
	modest := &asked{use: ForFrames}
	modest.account = b.Open("uid 2", "pid 2")
	modest.account.Serves(modest)
	for a, n := range map[*Account]int64{host: 29, greedy.account: 25, modest.account: 2} {
		testenv.Must(t, a.Take(ForFrames, n*mb))
	}
	if err := b.Open("uid 3", "pid 3").Take(ForFrames, 4*mb); err != nil {
		t.Error(err)
	}
	if greedy.times != 1 || modest.times != 0 {
		t.Errorf("the greedy gave %d times, the modest %d", greedy.times, modest.times)
	}
}

// awaits says whether n more reads of an account at once find memory.
func awaits(a *Account, n int64) bool {
	a.Reads(n)
	defer a.Reads(-n)
	return a.Awaits()
}

// TestAwaits checks that the number of answers with memory depends on the longest of the
// last ones.
func TestAwaits(t *testing.T) {
	b := NewBudget(256 << 20)
	a := b.Open("uid 1", "pid 1")
	if !awaits(a, 1) || !awaits(a, 16) || awaits(a, 17) {
		t.Error("before the first answer they count as 1 MiB each")
	}
	for range 300 {
		a.Expect(100)
	}
	if !awaits(a, 10_000) {
		t.Error("10,000 answers of 100 bytes have no room")
	}
	a.Expect(8 << 20)
	if !awaits(a, 2) || awaits(a, 3) {
		t.Error("other than two answers of 8 MiB have room")
	}
	other := b.Open("uid 1", "pid 1")
	if other.Reads(2); !awaits(a, 1) || awaits(a, 2) {
		t.Error("reads of one process's connections do not count together")
	}
	other.Reads(-2)
	for range 64 { // these use memory, and read nothing
		testenv.Must(t, b.Open("uid 1", "pid 1").Take(ForRequests, 1))
	}
	if !awaits(a, 2) {
		t.Error("connections that read nothing count")
	}
	for range 2 {
		if a.Expect(100); awaits(a, 10) {
			t.Error("a long answer is forgotten with the next one")
		}
	}
	if a.Expect(40 << 20); !awaits(a, 1) {
		t.Error("one answer is always awaited")
	}
	if awaits(other, 2) {
		t.Error("another connection of the process does not know of its answers")
	}
	if other := b.Open("uid 1", "pid 2"); !awaits(other, 16) {
		t.Error("another process pays for it")
	}
}

// TestTenantsShareSendBuffers checks that the last eighth of what sockets may have is for tenants
// below their share.
func TestTenantsShareSendBuffers(t *testing.T) {
	const mb = 1 << 20
	b := NewBudget(64 * mb)
	greedy, other := b.Open("uid 1", "pid 1"), b.Open("uid 2", "pid 2")
	n := 0
	for n < 100 && greedy.TakeSocket(mb) {
		n++
	}
	m := 0
	for m < 100 && other.TakeSocket(mb) {
		m++
	}
	if n != 14 || m != 2 {
		t.Errorf("the first got %d, the second %d, of 16; want 14 and 2", n, m)
	}
}
