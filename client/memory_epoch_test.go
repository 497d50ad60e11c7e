package client

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/shm"
)

// The region is that of the process that the latest HELLO has named, or there is none.
func TestRegionIsOfTheLatestHello(t *testing.T) {
	const killed, next = 1, 2
	region := new(shm.Reader)
	for name, c := range map[string]struct {
		hears []uint64 // while the region is asked for
		of    uint64
		kept  bool
		then  uint64 // a HELLO afterwards; zero: none
		lost  bool
	}{
		"a region of this process":           {of: killed, kept: true},
		"then a HELLO of this process":       {of: killed, kept: true, then: killed},
		"then a HELLO of another process":    {of: killed, kept: true, then: next, lost: true},
		"another HELLO meanwhile":            {hears: []uint64{next}, of: killed},
		"and one of the first process, late": {hears: []uint64{next, killed}, of: killed},
		"a region of the next process":       {of: next, kept: true},
		"then a HELLO of the next process":   {of: next, kept: true, then: next},
		"then a late HELLO of the first one": {of: next, kept: true, then: killed, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			var m memory
			m.setEpoch(killed)
			generation := m.generation()
			for _, epoch := range c.hears {
				m.setEpoch(epoch)
			}
			if kept := m.keep(region, c.of, generation); kept != c.kept || kept != (m.reader.Load() != nil) {
				t.Fatalf("kept: %v, there is one: %v", kept, m.reader.Load() != nil)
			}
			if c.then != 0 {
				m.setEpoch(c.then)
			}
			if c.kept && c.lost != (m.reader.Load() == nil) {
				t.Errorf("the region is lost: %v", m.reader.Load() == nil)
			}
		})
	}
}
