package top

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

// sample is what top has read at one time.
type sample struct {
	cachesidecar.ClusterStats // of this host alone if it tells of no other

	at         time.Time
	here       string // this host
	members    []cachesidecar.Member
	alone      string // why there is this host only
	hot        cachesidecar.HotKeys
	hotRefused string // why there are no hot keys
	err        error  // why the rest is not complete
}

// findings returns what is wrong with the hosts that have answered. The table has the others.
func (sm *sample) findings() telemetry.Findings {
	wrong := telemetry.HostFindings(sm.Nodes)
	if sm.alone == "" && sm.err == nil {
		wrong = append(wrong, telemetry.Ownerless(&sm.ClusterStats)...)
	}
	return wrong
}

// sampler reads samples.
type sampler struct {
	cl         *client.Client
	timeout    time.Duration
	alone      string // why the sidecar tells of this host only
	hotRefused string
}

// maxHot is the most hot keys that top asks for.
const maxHot = 100

// read reads one sample. It asks no longer for what the sidecar has refused.
func (r *sampler) read(ctx context.Context) sample {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	s := sample{at: time.Now()}
	st, err := r.cl.Stats(ctx)
	s.here, s.Nodes = st.Node, []cachesidecar.Stats{st}
	if err == nil && r.alone == "" {
		var all cachesidecar.ClusterStats
		if all, err = r.cl.ClusterStats(ctx); err == nil {
			s.ClusterStats = all
		}
		r.alone, err = refused(err)
	}
	if err == nil {
		s.members, err = r.cl.Members(ctx)
		_, err = refused(err)
	}
	if err == nil && r.hotRefused == "" {
		s.hot, err = r.cl.Hot(ctx, cachesidecar.HotOptions{N: maxHot})
		r.hotRefused, err = refused(err)
	}
	s.alone, s.hotRefused, s.err = r.alone, r.hotRefused, err
	return s
}

// refused says why a sidecar refuses a question of this user, or does not know it. Another error it returns.
func refused(err error) (why string, other error) {
	if errors.Is(err, cachesidecar.ErrUnauthorized) || errors.Is(err, cachesidecar.ErrUnsupported) {
		return err.Error(), nil
	}
	return "", err
}

// activity is a line of top: a host or a namespace. A negative rate is not known yet.
type activity struct {
	telemetry.Rates
	name, state string
	used, limit int64 // bytes
	entries     int64
	lag         time.Duration
	silent      string // why there are no numbers
	trouble     bool   // it should answer, and does not
}

// hosts returns a line for each host that is known: those that answered, and those that
// did not.
func hosts(now, last *sample) (list []activity) {
	states := map[string]cachesidecar.Member{}
	for _, m := range now.members {
		states[m.Node] = m
	}
	for i := range now.Nodes {
		st := &now.Nodes[i]
		a := activity{
			name: st.Node, state: cmp.Or(states[st.Node].State, "in"),
			used: st.L2.Memory.Used, limit: st.L2.Memory.Limit, entries: st.L2.Entries,
			lag: time.Duration(st.Cluster.Invalidations.LagUS) * time.Microsecond,
		}
		t, before, seconds := st.Total(), cachesidecar.NamespaceStats{}, 0.0
		if l := sameProcess(st, last); l != nil {
			before, seconds = l.Total(), float64(st.UptimeMS-l.UptimeMS)/1000
		}
		a.Rates = telemetry.RatesOf(&t, &before, seconds)
		list = append(list, a)
		delete(states, st.Node)
	}
	for _, m := range now.Missing {
		state := cmp.Or(states[m.Node].State, "missing")
		list = append(list, activity{name: m.Node, state: state, silent: "no answer: " + m.Why, trouble: true})
		delete(states, m.Node)
	}
	for _, m := range states { // those that are not asked
		why := cmp.Or(m.Why, "not asked")
		list = append(list, activity{name: m.Node, state: m.State, silent: why, trouble: m.Why != ""})
	}
	return list
}

// sameProcess returns what an earlier sample tells of the same process; nil if nothing.
func sameProcess(st *cachesidecar.Stats, last *sample) *cachesidecar.Stats {
	if last == nil {
		return nil
	}
	for i := range last.Nodes {
		l := &last.Nodes[i]
		if l.Node == st.Node && l.Process.PID == st.Process.PID && l.UptimeMS < st.UptimeMS {
			return l
		}
	}
	return nil
}

// namespaceActivities returns a line for each namespace, and one for all. The rates are those of the
// hosts that have answered in both samples.
func namespaceActivities(now, last *sample) (list []activity, sum activity) {
	var counted, before cachesidecar.ClusterStats
	seconds := 0.0
	for _, st := range now.Nodes {
		if l := sameProcess(&st, last); l != nil {
			counted.Nodes, before.Nodes = append(counted.Nodes, st), append(before.Nodes, *l)
			seconds = max(seconds, float64(st.UptimeMS-l.UptimeMS)/1000)
		}
	}
	total, a, b := now.Total(), counted.Total(), before.Total()
	for i := range total.Namespaces {
		ns := &total.Namespaces[i]
		line := activity{name: ns.Name, used: ns.Bytes, limit: ns.Quota, entries: ns.Entries}
		line.Rates = telemetry.RatesOf(space(&a, ns.Name), space(&b, ns.Name), seconds)
		list = append(list, line)
	}
	sum = activity{used: total.L2.Memory.Used, limit: total.L2.Memory.Limit, entries: total.L2.Entries}
	inA, inB := a.Total(), b.Total()
	sum.Rates = telemetry.RatesOf(&inA, &inB, seconds)
	return list, sum
}

// space returns the counters of a namespace, zeros if there is none.
func space(st *cachesidecar.Stats, name string) *cachesidecar.NamespaceStats {
	for i := range st.Namespaces {
		if st.Namespaces[i].Name == name {
			return &st.Namespaces[i]
		}
	}
	return &cachesidecar.NamespaceStats{}
}
