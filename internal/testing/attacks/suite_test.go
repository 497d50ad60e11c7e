package attacks

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

const (
	mostRatio = 3.0                    // of the victim's p99s
	mostBack  = 1.1                    // of the memory after an attack to that before
	brief     = 800 * time.Millisecond // duration of an attack that is not timed
	briefer   = 200 * time.Millisecond // the same if it concerns only time
	longer    = 4 * time.Second        // the same if it takes memory
)

// result is the result of an attack.
type result struct {
	*attack

	timed       bool
	small       float64 // the ratio of the victim's p99s
	large       float64 // the same for its large requests; 0: none
	wrong       int
	missing     int
	why         map[string]int // of both
	peak        int64          // of memory
	limit       int64          // what the processes need, by what is stated
	back        float64        // the memory afterwards, relative to the memory before
	killedAt    int64
	gone        bool // a process has ended
	count       int64
	learned     []string
	shown       error
	base, under time.Duration // the p99s
}

// faults lists the limits that the result breaks.
func (r *result) faults() (list []string) {
	add := func(bad bool, format string, args ...any) {
		if bad {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add(r.killedAt > 0, "killed at %d MiB", r.killedAt>>20)
	add(r.gone && r.killedAt == 0, "the process has ended")
	add(r.wrong > 0, "%d wrong values: %s", r.wrong, most(r.why))
	add(r.missing > 0, "%d missing answers: %s", r.missing, most(r.why))
	add(r.peak > r.limit, "%d MiB in use, %d are stated", r.peak>>20, r.limit>>20)
	add(r.timed && r.small > mostRatio, "p99 %.1f × of %v, want at most %.0f", r.small, r.base, mostRatio)
	add(r.timed && r.large > mostRatio, "p99 of large requests %.1f ×, want at most %.0f", r.large, mostRatio)
	add(r.timed && !r.gone && r.back > mostBack, "memory %.2f × of that before, want at most %.1f", r.back, mostBack)
	add(len(r.learned) > 0, "the attacker: %v", r.learned)
	add(r.shown != nil, "%v", r.shown)
	return list
}

// most returns some of the most frequent reasons.
func most(why map[string]int) string {
	names := slices.SortedFunc(maps.Keys(why), func(a, b string) int { return cmp.Or(why[b]-why[a], strings.Compare(a, b)) })
	var list []string
	for _, w := range names[:min(3, len(names))] {
		list = append(list, fmt.Sprintf("%d × %s", why[w], w))
	}
	return strings.Join(list, "; ")
}

// pair is the houses of attacks that need the same configuration.
type pair struct {
	here, beside *house // beside is nil if attacks are not timed
}

// pairs are the running pairs, by kind.
type pairs map[string]*pair

func kind(a *attack) string { return fmt.Sprint(a.hosts, a.keyed, a.files, a.config != nil, a.conns) }

// get returns the pair of an attack. It starts one unless a suitable one is running.
func (p pairs) get(t, keeps testing.TB, a *attack) *pair {
	t.Helper()
	if p[kind(a)] == nil {
		n := &pair{here: build(t, keeps, a, "a")}
		if *table != "" {
			n.beside = build(t, keeps, a, "s")
			n.beside.ready(t)
		}
		n.here.ready(t)
		p[kind(a)] = n
	}
	return p[kind(a)]
}

// drop ends the pair of an attack.
func (p pairs) drop(a *attack) {
	for _, h := range []*house{p[kind(a)].here, p[kind(a)].beside} {
		if h != nil {
			h.kill()
		}
	}
	delete(p, kind(a))
}

// TestLengthyAttacks runs all attacks. Without -attacks.table each is short and not timed, so
// that the test checks only what does not depend on the machine.
func TestLengthyAttacks(t *testing.T) {
	testenv.Takes(t, 80*time.Second)
	testenv.ReadsClock(t, brief, "processes attack real sidecars for a time, and a victim's requests are answered meanwhile")
	var results []*result
	standing := pairs{}
	pattern := regexp.MustCompile(*only)
	list := attacks()
	for i := range list {
		a := &list[i]
		if !pattern.MatchString(a.name) {
			continue
		}
		for _, user := range users(a) {
			name := a.name
			if user == 0 && a.shares && os.Getuid() == 0 {
				name += ", same user"
			}
			t.Run(name, func(sub *testing.T) {
				p := standing.get(sub, t, a)
				r := measure(sub, a, p, user)
				results = append(results, r)
				sub.Logf("p99 %v/%v ×%.2f, large ×%.2f, wrong %d, missing %d, %d of %d MiB, back %.2f, count %d",
					r.under, r.base, r.small, r.large, r.wrong, r.missing, r.peak>>20, r.limit>>20, r.back, r.count)
				if bad := r.faults(); len(bad) > 0 {
					for _, b := range bad {
						sub.Error(b)
					}
					for _, h := range p.here.hosts {
						sub.Logf("%s wrote:\n%s", h.Node, h.tail())
					}
				}
				if len(r.faults()) > 0 || a.config != nil {
					standing.drop(a) // the next attack starts with a new pair
				}
			})
		}
	}
	if *only == "" || pattern.MatchString(signals.name) {
		t.Run("signals", func(t *testing.T) {
			r := signalsAtStart(t)
			results = append(results, r)
			for _, b := range r.faults() {
				t.Error(b)
			}
		})
	}
	if *table != "" && *only == "" {
		if err := rewrite(*table, results); err != nil {
			t.Error(err)
		}
	}
}

// users returns the users that an attack runs as: another user than the victim's if
// possible, and also the victim's own if that makes a difference.
func users(a *attack) []int {
	switch {
	case os.Getuid() != 0:
		return []int{0}
	case a.shares && *table != "":
		return []int{stranger, 0}
	default:
		return []int{stranger}
	}
}

// course is one attack's run.
type course struct {
	*result
	t     *testing.T
	pair  *pair
	user  int
	round int
	v     *victim

	ctx     context.Context // of the victim
	stop    func()
	running sync.WaitGroup

	// Parts of the victim's run, to be read after its end.
	based  []*tally // beside the attack on the second house
	struck []*tally // beside the attack on its own house
	others []*tally
}

// measure runs one attack.
func measure(t *testing.T, a *attack, p *pair, user int) *result {
	m := &course{result: &result{attack: a, timed: *table != ""}, t: t, pair: p, user: user}
	m.v = &victim{of: p.here.target(), wait: 20 * time.Second, also: a.also}
	m.v.part()
	m.ctx, m.stop = context.WithCancel(t.Context())
	defer m.stop()
	m.running.Go(func() { m.v.run(m.ctx) })
	rest(m.ctx, 200*time.Millisecond)

	if m.timed {
		m.based = append(m.based, m.strike(p.beside, *each))
	}
	before := p.here.settle(m.ctx, nil, 200*time.Millisecond)
	for _, h := range p.here.hosts {
		h.peak.Store(0)
	}
	lasts := cmp.Or(a.lasts, brief)
	switch {
	case m.timed:
		lasts = *each
	case a.load:
		lasts = briefer
	}
	m.struck = append(m.struck, m.strike(p.here, lasts))
	for range more {
		if !m.timed || !p.here.alive() || !m.unclear() {
			break
		}
		m.based = append(m.based, m.strike(p.beside, 2**each))
		m.struck = append(m.struck, m.strike(p.here, 2**each))
	}
	m.memory(m.ctx, p.here, before)
	m.stop()
	m.running.Wait()
	m.sum()
	if a.shown != nil && p.here.alive() {
		m.shown = a.shown(p.here, report{m.count, m.learned})
	}
	return m.result
}

// strike sends an attacker to a house, and returns the part of the victim's run beside
// it.
func (m *course) strike(h *house, lasts time.Duration) *tally {
	m.round++
	m.others = append(m.others, m.v.part())
	x := send(m.t, order{Attack: m.name, Target: h.target(), User: m.user, Run: time.Minute, Round: m.round})
	rest(m.ctx, lasts)
	if !m.timed {
		m.stop() // requests under way must be answered during the attack
		m.running.Wait()
	}
	said := x.end(m.t)
	m.count += said.Count
	if h == m.pair.here {
		m.learned = append(m.learned, said.Learned...)
	}
	before := m.v.part()
	if m.timed {
		m.v.done(m.ctx)
	}
	return before
}

// sum sums up the victim's run.
func (m *course) sum() {
	m.others = append(m.others, m.v.part())
	var base, under, all tally
	for _, x := range m.based {
		base.add(x)
	}
	for _, x := range m.struck {
		under.add(x)
	}
	for _, x := range slices.Concat(m.based, m.struck, m.others) {
		all.add(x)
	}
	r := m.result
	r.base, r.under = quantile(base.small, 0.99), quantile(under.small, 0.99)
	r.small, r.large = ratio(under.small, base.small), ratio(under.large, base.large)
	r.wrong, r.missing, r.why = all.wrong, all.missing, all.why
	if r.other && m.user == 0 {
		r.missing = 0 // the victim's user has the right to do this
	}
}

// more is how many longer runs there may be. More runs would let a row pass by chance.
const more = 1

// unclear reports whether a ratio is beyond the limit; then a longer run decides. It
// takes the victim's lock, because the last requests may still be running.
func (m *course) unclear() bool {
	m.v.mu.Lock()
	defer m.v.mu.Unlock()
	var under, base tally
	for i := range m.struck {
		under.add(m.struck[i])
		base.add(m.based[i])
	}
	return ratio(under.small, base.small) > mostRatio || ratio(under.large, base.large) > mostRatio
}

// memory records the peak, and the memory after the attack.
func (r *result) memory(ctx context.Context, h *house, before []int64) {
	var bound []int64
	for _, b := range before {
		bound = append(bound, int64(float64(b)*mostBack))
	}
	wait := 10 * time.Second
	if !r.timed {
		wait = 0
	}
	after := h.settle(ctx, bound, wait)
	r.limit = stated(r.attack)
	for i, x := range h.hosts {
		r.peak = max(r.peak, x.peak.Load())
		r.killedAt = max(r.killedAt, x.killedAt.Load())
		r.gone = r.gone || !x.alive()
		r.back = max(r.back, float64(after[i])/float64(before[i]))
	}
}

// ratio returns the ratio of two p99s, or 0 if there are none.
func ratio(under, base []time.Duration) float64 {
	b := quantile(base, 0.99)
	if b == 0 {
		return 0
	}
	return float64(quantile(under, 0.99)) / float64(b)
}
