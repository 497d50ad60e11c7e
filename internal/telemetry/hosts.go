package telemetry

import (
	"github.com/dustin/go-humanize"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

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
