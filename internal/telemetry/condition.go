package telemetry

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// The words with which a line about a host begins. The first is the whole line of a host that is well.
const (
	Serving  = "serving"
	NotWell  = "serving, not well"
	NotReady = "not ready"
)

// failingFor is the time for which a failure counts as present if nothing has come since: an origin
// that was not asked again may be well.
const failingFor = time.Minute

// FewFindings is the number of findings in ConditionLine. It is also the most that a caller should show of
// several hosts on one line.
const FewFindings = 4

// ConditionLine returns the state of a host in one line: a word of the above, and what is wrong.
func ConditionLine(st *cachesidecar.Stats) string {
	word, why := ConditionOf(st)
	if len(why) == 0 {
		return word
	}
	return word + ": " + AtMost(why, FewFindings, "; ")
}

// ConditionOf returns the state of a host: a word of the above, and the reasons for it.
func ConditionOf(st *cachesidecar.Stats) (word string, why Findings) {
	wrong := wrongWith(st)
	switch {
	case st.NotReady != "":
		return NotReady, append(Findings{st.NotReady}, wrong...)
	case len(wrong) > 0:
		return NotWell, wrong
	}
	return Serving, nil
}

// connections is the name of the share of the socket's connections.
const connections = "connections"

// Findings are sentences about a host.
type Findings []string

// Addf adds a sentence.
func (f *Findings) Addf(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// addCounts adds a number and what it counts, and so on, after a title. It leaves out what is
// zero, and the sentence if all is.
func (f *Findings) addCounts(title string, numbers ...any) {
	var parts []string
	for i := 0; i < len(numbers); i += 2 {
		if n := numbers[i].(int64); n > 0 {
			parts = append(parts, strings.TrimSpace(humanize.Comma(n)+" "+numbers[i+1].(string)))
		}
	}
	if len(parts) > 0 {
		f.Addf("%s: %s", title, strings.Join(parts, ", "))
	}
}

// AtMost joins the first texts of a list, and counts the rest.
func AtMost(list []string, n int, between string) string {
	if len(list) > n {
		list = append(slices.Clone(list[:n]), fmt.Sprintf("and %d more", len(list)-n))
	}
	return strings.Join(list, between)
}

// wrongWith returns what is wrong with a host at present, beside what keeps it from being ready:
// nothing if it is well.
func wrongWith(st *cachesidecar.Stats) (f Findings) {
	c := &st.Cluster
	switch {
	case st.NotReady != "":
	case c.Drained:
		f.Addf("drained: this host owns nothing, and serves through others (`cachesidecar drain --undo` ends that)")
	}
	f.addCounts("refused hosts", st.Members["refused"], "(`cachesidecar members` says why)")
	f.addCounts("missing hosts", st.Members["missing"], "(`cachesidecar members` names them)")
	if names := withoutLease(c.Invalidations.Leases); len(names) > 0 {
		f.Addf("no lease on %s: copies of its entries are not served", AtMost(names, 5, ", "))
	}
	for i := range st.Namespaces {
		f.ofNamespace(&st.Namespaces[i])
	}
	f.otherSettings(c.Settings)
	for i := range st.Changes {
		if c := &st.Changes[i]; c.Error != "" {
			f.Addf("the feed of changes %s (%s): %s", c.Name, c.State, c.Error)
		}
		if c := &st.Changes[i]; c.Late && (c.CertifiedMS > 0 || st.UptimeMS > c.MaxLagMS) { // else it has just started
			f.Addf("%s", FeedLate(c))
		}
	}
	f.full(st)
	return f
}

// otherSettings adds the hosts whose settings differ. The list is in their order.
func (f *Findings) otherSettings(list []cachesidecar.SettingStats) {
	for i := 0; i < len(list); {
		node, names := list[i].Node, []string(nil)
		for ; i < len(list) && list[i].Node == node; i++ {
			names = append(names, list[i].Name())
		}
		f.Addf("%s has %s", node, OtherSettings(names))
	}
}

// OtherSettings names the settings in which a host differs; "": there are none.
func OtherSettings(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "other settings, and may answer differently: " + AtMost(names, FewFindings, ", ")
}

// FeedLate says that a feed of changes is later than max_lag.
func FeedLate(c *cachesidecar.ChangesStats) string {
	since := "nothing is certified yet"
	if c.CertifiedMS > 0 {
		since = fmt.Sprintf("certified %v ago", time.Duration(c.CertifiedMS)*time.Millisecond)
	}
	return fmt.Sprintf("the feed of changes %s is later than max_lag (%v), so that loaded values of its namespaces "+
		"are not served: %s", c.Name, time.Duration(c.MaxLagMS)*time.Millisecond, since)
}

// withoutLease returns the hosts whose lease is missing.
func withoutLease(leases []cachesidecar.LeaseStats) (names []string) {
	for _, l := range leases {
		if l.AgeMS < 0 {
			names = append(names, l.Node)
		}
	}
	return names
}

// window returns the time that recent counts are of, in whole seconds.
func window(r *cachesidecar.RecentStats) time.Duration {
	return max(1, time.Duration(r.WindowMS/1000)) * time.Second
}

func (f *Findings) ofNamespace(ns *cachesidecar.NamespaceStats) {
	for i := range ns.Failures {
		if x := &ns.Failures[i]; OriginFails(ns, x) {
			f.Addf("%s", originFailure(ns, x))
		}
	}
	// As the alert CachesidecarErrors, but from the third one on: a mistyped command is one.
	if r := &ns.Recent; r.Errors > 2 && r.Errors*100 > r.Requests {
		f.Addf("requests of %s failed: %s of %s in the last %v", ns.Name,
			humanize.Comma(r.Errors), humanize.Comma(r.Requests), window(r))
	}
	if r := &ns.Recent; r.Evicted > 0 {
		f.Addf("namespace %s is full: %s entries evicted over its quota in the last %v", ns.Name,
			humanize.Comma(r.Evicted), window(r))
	}
	if k := &ns.KeyFilter; k.Configured && !k.InUse && k.Error != "" {
		f.Addf("the key filter of %s is not in use: %s", ns.Name, k.Error)
	}
	if ns.Warm.State == "failed" {
		f.Addf("the keys of %s were not all loaded at the start: this host's log says why in the line "+
			`"warming has ended"`, ns.Name)
	}
	f.addCounts("origin of "+ns.Name+": writes that the new owners of their keys have not heard of",
		ns.Through.Unsettled, "")
}

// full adds what is used up.
func (f *Findings) full(st *cachesidecar.Stats) {
	if n := &st.Connections; n.Limit > 0 && n.Open >= n.Limit {
		text := fmt.Sprintf("all %s connections of the socket are taken", humanize.Comma(n.Limit))
		for _, s := range st.Shares {
			if s.Name == connections {
				text += fmt.Sprintf(", %s by %s", humanize.Comma(s.MostBy), s.Most)
			}
		}
		f.Addf("%s", text)
	}
	if n := &st.Memcached; n.Limit > 0 && n.Open >= n.Limit {
		f.Addf("all %s connections of memcached's protocol are taken", humanize.Comma(n.Limit))
	}
	if b := &st.Connections.Buffers; b.Limit > 0 && b.Total() >= b.Limit/20*19 {
		f.Addf("the memory of requests and answers is full: %s of %s, %s by %s",
			size(b.Total()), size(b.Limit), size(b.MostBy), b.Most)
	}
	if p := &st.Process; p.MemoryLimit > 0 && p.ResidentBytes >= p.MemoryLimit/20*19 {
		f.Addf("the memory of the process is full: %s of %s", size(p.ResidentBytes), size(p.MemoryLimit))
	}
	for _, s := range st.Shares {
		if s.Limit > 0 && s.Used >= s.Limit && s.Name != connections {
			f.Addf("all %s places of %s are taken, %s by %s", humanize.Comma(s.Limit), s.Name,
				humanize.Comma(s.MostBy), s.Most)
		}
	}
}

// OriginFails reports whether calls of an origin fail at present, as far as is known: the last one
// has failed, and not long ago, or the breaker is open.
func OriginFails(ns *cachesidecar.NamespaceStats, x *cachesidecar.FailureStats) bool {
	return x.Calls == "loads" && ns.Loads.BreakerOpen || x.InARow > 0 && x.AgeMS < failingFor.Milliseconds()
}

// originFailure describes the last failure of an origin's calls.
func originFailure(ns *cachesidecar.NamespaceStats, x *cachesidecar.FailureStats) string {
	age := time.Duration(x.AgeMS) * time.Millisecond
	var more []string
	if x.InARow > 1 {
		more = append(more, humanize.Comma(x.InARow)+" in a row")
	}
	if x.Calls == "loads" && ns.Loads.Breaker != "closed" {
		more = append(more, "breaker "+ns.Loads.Breaker)
	}
	text := fmt.Sprintf("origin of %s (%s): %s failed %v ago: %s",
		ns.Name, ns.Loads.Origin, x.Calls, age.Round(time.Second), x.Error)
	if len(more) > 0 {
		text += " (" + strings.Join(more, ", ") + ")"
	}
	return text
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// HostFindings returns what is wrong with hosts, each time with the name of the host.
func HostFindings(all []cachesidecar.Stats) (wrong Findings) {
	for i := range all {
		st := &all[i]
		word, why := ConditionOf(st)
		for j, w := range why {
			if j == 0 && word == NotReady {
				w = word + ": " + w
			}
			wrong.Addf("%s: %s", st.Node, w)
		}
	}
	return wrong
}

// Ownerless says that partitions have no owner, if all hosts have answered.
func Ownerless(all *cachesidecar.ClusterStats) (wrong Findings) {
	sum := all.Total()
	if n := kv.Partitions - sum.Cluster.Owned; n > 0 && len(all.Missing) == 0 {
		wrong.Addf("%s of %s partitions have no owner", humanize.Comma(int64(n)), humanize.Comma(kv.Partitions))
	}
	return wrong
}

// FirstPlain returns the first findings, fit for a terminal.
func (f Findings) FirstPlain(n int, between string) string {
	var plain []string
	for _, text := range f {
		plain = append(plain, logs.Plain(text))
	}
	return AtMost(plain, n, between)
}
