package top

import (
	"cmp"
	"slices"
	"strings"
)

// order is an order of lines: the letter of its key, and its name.
type order struct {
	key    byte
	name   string
	weight func(*activity) float64 // the highest first; nil: by name
}

var orders = []order{
	{'r', "reads", func(a *activity) float64 { return a.Reads }},
	{'w', "writes", func(a *activity) float64 { return a.Writes }},
	{'h', "misses", func(a *activity) float64 { return a.Reads * (1 - max(a.Hits, 0)) }},
	{'l', "loads", func(a *activity) float64 { return a.Loads }},
	{'e', "errors", func(a *activity) float64 { return a.Errors }},
	{'g', "lag", func(a *activity) float64 { return float64(a.lag) }},
	{'m', "memory", func(a *activity) float64 { return float64(a.used) }},
	{'n', "name", nil},
}

// sort sorts lines. Hosts that should answer and do not are the first.
func (o *order) sort(list []activity) {
	slices.SortFunc(list, func(a, b activity) int {
		if a.trouble != b.trouble {
			if a.trouble {
				return -1
			}
			return 1
		}
		if o.weight != nil {
			if d := cmp.Compare(o.weight(&b), o.weight(&a)); d != 0 {
				return d
			}
		}
		return strings.Compare(a.name, b.name)
	})
}
