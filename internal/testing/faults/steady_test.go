package faults

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

var steady = flag.Duration("faults.steady", 0,
	"how long a cluster runs at 70 % of its peak while what operators do is done; no time is not at all")

// TestSteadySoak runs this tree's command on three hosts, and now and then on a fourth, at
// 70 % of the peak that it has measured before, for the time of -faults.steady. Meanwhile
// what operators do is done, in random order; see soakTest.events.
//
// No value is wrong, or older than the bound. No request of an app fails (see failures),
// and resident memory, goroutines and descriptors of the sidecars stay flat (see flat).
func TestSteadySoak(t *testing.T) {
	if *steady == 0 {
		t.Skip("skipped without -faults.steady=TIME")
	}
	s := newSoakTest(t, rand.Uint64())
	peak := s.load.peak(peakTime)
	s.load.rate.Store(int64(0.7 * peak))
	t.Logf("peak: %.0f requests/s; the load: %.0f", peak, 0.7*peak)
	watched := s.sample(s.nodes[:2])
	begun := s.load.now()
	s.run(*steady)
	took := s.load.now() - begun
	s.load.end()
	for _, series := range watched() {
		series.flat(t)
	}
	t.Logf("%v; what was done: %v", took.Round(time.Second), s.done)
	s.load.report(took)
}

const peakTime = 4 * time.Second

// soakTest is a cluster and what is done to it.
type soakTest struct {
	*group
	random    *rand.Rand
	load      *soakLoad
	pages     *pages
	authority *peertest.Authority
	rotations int // of the cluster key
	reloads   int
	done      map[string]int
}

func newSoakTest(t *testing.T, seed uint64) *soakTest {
	t.Logf("seed %d", seed)
	s := &soakTest{
		group: newGroup(t, 2*fast, 4), random: rand.New(rand.NewPCG(seed, 0)), pages: newPages(t),
		authority: peertest.NewAuthority(t, "one"), done: map[string]int{},
	}
	command := built(t)
	for _, n := range s.nodes {
		n.program, n.spec.Namespaces = command, s.pages.settings(queueTime)
		n.key(keyDigit(0))
		n.certify(tomorrow(), s.authority)
	}
	s.start(s.nodes[:3])
	s.load = newSoakLoad(s.group, s.pages)
	return s
}

// event is something that operators do, or that happens to them.
type event struct {
	name string
	do   func()
}

// events returns what is done. The first two hosts run from the first to the last moment.
func (s *soakTest) events() []event {
	return []event{
		{"join or leave", s.joinOrLeave},
		{"restart", func() { s.restart(s.nodes[2]) }},
		{"key rotation", s.rotateKey},
		{"certificate renewal", s.renewCertificates},
		{"drain", s.drain},
		{"reload", s.reload},
		{"origin outage", s.originOutage},
	}
}

// run does each event once in each round, in random order, until the time is over; the
// first round is whole.
func (s *soakTest) run(d time.Duration) {
	s.t.Helper()
	end := time.Now().Add(d)
	for round := 0; ; round++ {
		list := s.events()
		s.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, e := range list {
			begun := time.Now()
			e.do()
			s.done[e.name]++
			if s.random.IntN(4) > 0 { // else the next one comes at once
				testenv.Succeeds(s.t, "all to agree after "+e.name, func() error { return s.agreed(s.living()) })
				s.calm()
			}
			if s.t.Failed() || round > 0 && time.Now().After(end) {
				s.t.Logf("the last event, %s, took %v", e.name, time.Since(begun).Round(time.Millisecond))
				return
			}
		}
	}
}

// calm waits a while, and a hundredth of a long soak.
func (s *soakTest) calm() {
	time.Sleep(time.Duration(s.random.Int64N(int64(max(time.Second, *steady/100)))))
}

// joinOrLeave starts the fourth host, or ends it.
func (s *soakTest) joinOrLeave() {
	if n := s.nodes[3]; n.up.Load() {
		n.leave()
	} else {
		n.start()
	}
}

func (s *soakTest) restart(n *node) {
	n.leave()
	n.start()
}

// drain drains a host that serves its apps all the while, and takes that back.
func (s *soakTest) drain() {
	s.t.Helper()
	list := s.living()
	n := list[s.random.IntN(len(list))]
	for _, o := range []wire.Options{0, wire.Undo} {
		c := patientConn(n)
		if c == nil {
			s.t.Fatalf("%s takes no connection", n.spec.Node)
		}
		defer c.Close()
		q := &wire.Request{Op: wire.OpDrain, Options: o, TimeoutMS: 30_000, TTLMS: wire.TTLDefault}
		call, err := c.Do(s.t.Context(), testenv.Patience, q)
		if err != nil {
			s.t.Fatalf("%s does not answer DRAIN: %v", n.spec.Node, err)
		}
		var r wire.Reply
		if err := wire.DecodeReply(wire.OpDrain, call.Frame(), &r); err != nil || r.Status != wire.OK {
			s.t.Errorf("%s answers DRAIN with option %d: %v %s, %v", n.spec.Node, o, r.Status, r.Message, err)
		}
		c.Release(call)
		if o == 0 {
			s.calm()
		}
	}
}

// rotateKey replaces the cluster key on all hosts, in the three steps of docs/CONFIG.md.
func (s *soakTest) rotateKey() {
	old, next := keyDigit(s.rotations), keyDigit(s.rotations+1)
	s.rotations++
	for _, digits := range []string{old + next, next + old, next} {
		s.changeFiles(func(n *node) { n.key(digits) })
	}
}

// keyDigit returns the digit of a key, by how many were before it. No key is all zeros.
func keyDigit(i int) string { return fmt.Sprint(1 + i%9) }

func (s *soakTest) renewCertificates() {
	s.changeFiles(func(n *node) { n.certify(tomorrow(), s.authority) })
}

// changeFiles changes the files of keys or certificates of every host, one by one, and
// waits until its sidecar has read them: after SIGHUP, or because it looks at them.
func (s *soakTest) changeFiles(change func(n *node)) {
	s.t.Helper()
	for _, n := range s.nodes {
		if !n.up.Load() {
			change(n)
			continue
		}
		before := n.taken()
		change(n)
		if s.random.IntN(4) > 0 {
			n.signal(syscall.SIGHUP)
		}
		testenv.Succeeds(s.t, n.spec.Node+" to take its files", func() error {
			if n.taken() == before {
				return errors.New("it has not")
			}
			return nil
		})
	}
}

// taken returns how often the process has read its keys and certificates.
func (n *node) taken() int {
	b, err := os.ReadFile(n.log)
	testenv.Must(n.g.t, err)
	return strings.Count(string(b), "cluster keys and certificates are read")
}

// reload changes a setting on all hosts, and makes each read its file: by the command
// reload, or by SIGHUP.
func (s *soakTest) reload() {
	s.t.Helper()
	s.reloads++
	now := queueTime + time.Duration(s.reloads)*time.Millisecond
	for _, n := range s.nodes {
		n.spec.Namespaces = s.pages.settings(now)
		if !n.up.Load() {
			continue // it reads its file when it starts
		}
		n.configure()
		if s.random.IntN(2) == 0 {
			out, err := n.command(n.program, "reload")
			if err != nil || !strings.Contains(out, "queue_time") {
				s.t.Errorf("reload of %s: %q, %v", n.spec.Node, out, err)
			}
		} else {
			n.signal(syscall.SIGHUP)
		}
		testenv.Succeeds(s.t, n.spec.Node+" to reload", func() error { return n.says("to=" + now.String()) })
	}
}

// originOutage makes the origin fail for up to three seconds.
func (s *soakTest) originOutage() {
	defer s.load.outage()()
	s.pages.stop(true)
	time.Sleep(time.Second + time.Duration(s.random.IntN(2000))*time.Millisecond)
	s.pages.stop(false)
}

// sampled is one measure of one process over time.
type sampled struct {
	what   string
	unit   float64
	margin float64 // what may come on top, in the unit
	values []float64
}

// sample looks at some nodes' processes, which must not be restarted, ten times a second
// at most. The returned function ends that, and returns what was seen.
func (s *soakTest) sample(nodes []*node) func() []*sampled {
	var list []*sampled
	for _, n := range nodes {
		list = append(list, &sampled{what: n.spec.Node + ": resident memory in MiB", unit: 1 << 20, margin: 8},
			&sampled{what: n.spec.Node + ": goroutines", unit: 1, margin: 25},
			&sampled{what: n.spec.Node + ": descriptors", unit: 1, margin: 25})
	}
	stop, over := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(over)
		for {
			select {
			case <-stop:
				return
			case <-time.After(max(100*time.Millisecond, *steady/1200)):
			}
			for i, n := range nodes {
				st, err := n.app.Stats(s.t.Context())
				if err != nil {
					continue // the apps meet the same, and it is judged there
				}
				open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", st.Process.PID))
				for j, v := range []int{int(st.Process.ResidentBytes), int(st.Process.Goroutines), len(open)} {
					list[3*i+j].values = append(list[3*i+j].values, float64(v)/list[3*i+j].unit)
				}
			}
		}
	}()
	end := func() []*sampled {
		if stop != nil {
			close(stop)
			<-over
			stop = nil
		}
		return list
	}
	s.t.Cleanup(func() { end() })
	return end
}

// flat fails the test if the values grow.
func (m *sampled) flat(t *testing.T) {
	t.Helper()
	if len(m.values) < 30 {
		t.Errorf("%s: %d samples are too few", m.what, len(m.values))
		return
	}
	first, second, last := m.thirds()
	t.Logf("%s: medians of the thirds %.0f, %.0f, %.0f; at most %.0f", m.what, first, second, last, slices.Max(m.values))
	if m.grows() {
		t.Errorf("%s: it grows: the medians of its thirds are %.1f, %.1f and %.1f", m.what, first, second, last)
	}
}

// grows reports whether the median of the last third is above that of the second by more
// than a tenth and the margin. The first third is for warming up.
func (m *sampled) grows() bool {
	_, second, last := m.thirds()
	return last > 1.1*second+m.margin
}

// thirds returns the medians of the three thirds of the values.
func (m *sampled) thirds() (first, second, last float64) {
	n := len(m.values) / 3
	return median(m.values[:n]), median(m.values[n : 2*n]), median(m.values[2*n:])
}

func median(values []float64) float64 {
	list := slices.Sorted(slices.Values(values))
	return list[len(list)/2]
}

// TestFlat checks that growth is found, and that noise and a warm-up are not taken for it.
func TestFlat(t *testing.T) {
	series := func(f func(i int) float64) (list []float64) {
		for i := range 300 {
			list = append(list, f(i))
		}
		return list
	}
	for name, tc := range map[string]struct {
		values []float64
		grows  bool
	}{
		"flat":    {series(func(int) float64 { return 100 }), false},
		"noise":   {series(func(i int) float64 { return 100 + 90*float64(i%2) }), false},
		"warm-up": {series(func(i int) float64 { return min(float64(i), 100) }), false},
		"a leak":  {series(func(i int) float64 { return 100 + float64(i)/2 }), true},
	} {
		m := sampled{what: name, margin: 5, values: tc.values}
		if m.grows() != tc.grows {
			t.Errorf("%s: grows: %v", name, m.grows())
		}
	}
}
