package machine

import (
	"fmt"
	"strings"
	"testing"
)

// TestFormula holds the formula to what Need computes, unit by unit.
func TestFormula(t *testing.T) {
	const unit = 1 << 20
	rest := Sizes{}.Need().Total()
	of := func(s Sizes) float64 { return float64(s.Need().Total()-rest) / unit }
	var terms []string
	for _, x := range []struct {
		name string
		n    float64
	}{
		{"l2_size", of(Sizes{L2: unit})}, {"l1_size", of(Sizes{L1: unit})}, {"buffer_size", of(Sizes{Buffers: unit})},
		{"shared_size", of(Sizes{Shared: unit})},
	} {
		if x.n == 1 {
			terms = append(terms, x.name)
		} else {
			terms = append(terms, fmt.Sprintf("%g × %s", x.n, x.name))
		}
	}
	terms = append(terms,
		fmt.Sprintf("%g KiB × connections", of(Sizes{Connections: 1 << 10})),
		fmt.Sprintf("%g × key filters", of(Sizes{Filters: unit})),
		fmt.Sprintf("%d MiB", rest>>20))
	if want := strings.Join(terms, " + "); Formula != want {
		t.Errorf("the formula is\n%s\nand what is computed\n%s", Formula, want)
	}
	if n := of(Sizes{Connections: 1 << 10, TCP: true}); n != 156 {
		t.Errorf("a connection needs %g KiB where apps connect over TCP", n)
	}
}

// TestFit checks that as many connections fit as there is memory for, if that is enough of them.
func TestFit(t *testing.T) {
	s := Sizes{L1: 64 << 20, L2: 256 << 20, Buffers: 128 << 20, Connections: 5000}
	all, some := s.Need().Total(), Sizes{L1: s.L1, L2: s.L2, Buffers: s.Buffers, Connections: 1000}.Need().Total()
	for _, c := range []struct {
		have int64
		want int
	}{{all, 5000}, {all << 10, 5000}, {all - 1, 4999}, {some, 1000}, {some - 1, 0}, {0, 0}} {
		if n := s.Fit(c.have, 1000); n != c.want {
			t.Errorf("in %d bytes fit %d, want %d", c.have, n, c.want)
		}
	}
	s.Connections = 10
	if n := s.Fit(s.Need().Total(), 1000); n != 10 {
		t.Errorf("of ten, %d fit", n)
	}
}
