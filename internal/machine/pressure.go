package machine

import "github.com/prometheus/procfs"

// Percent of the time in which a task waited for a resource, at which the machine has
// reached the limit of what it can bear.
const (
	fullCPU    = 50.0
	fullMemory = 10.0
)

// Pressure returns the highest pressure on processors and memory in the last ten seconds,
// as a fraction of what the machine can bear (pressure stall information, Linux).
func Pressure() (p float64) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	for resource, full := range map[string]float64{"cpu": fullCPU, "memory": fullMemory} {
		if st, err := fs.PSIStatsForResource(resource); err == nil && st.Some != nil {
			p = max(p, st.Some.Avg10/full)
		}
	}
	return p
}
