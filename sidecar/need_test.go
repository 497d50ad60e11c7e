package sidecar

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/loader"
)

// TestMemoryFormula holds the formula to what need computes, unit by unit.
func TestMemoryFormula(t *testing.T) {
	const unit = 1 << 20
	rest := memorySizes{}.need().total()
	of := func(s memorySizes) float64 { return float64(s.need().total()-rest) / unit }
	var terms []string
	for _, x := range []struct {
		name string
		n    float64
	}{
		{"l2_size", of(memorySizes{l2: unit})}, {"l1_size", of(memorySizes{l1: unit})}, {"buffer_size", of(memorySizes{buffers: unit})},
		{"shared_size", of(memorySizes{shared: unit})},
	} {
		if x.n == 1 {
			terms = append(terms, x.name)
		} else {
			terms = append(terms, fmt.Sprintf("%g × %s", x.n, x.name))
		}
	}
	terms = append(terms,
		fmt.Sprintf("%g KiB × connections", of(memorySizes{connections: 1 << 10})),
		fmt.Sprintf("%g × key filters", of(memorySizes{filters: unit})),
		fmt.Sprintf("%d MiB × feeds", int(of(memorySizes{feeds: 1}))),
		fmt.Sprintf("%d MiB", rest>>20))
	if want := strings.Join(terms, " + "); memoryFormula != want {
		t.Errorf("the formula is\n%s\nand what is computed\n%s", memoryFormula, want)
	}
	if n := of(memorySizes{connections: 1 << 10, tcp: true}); n != 156 {
		t.Errorf("a connection needs %g KiB where apps connect over TCP", n)
	}
}

// TestFeedsMemory checks that what a feed is counted with is enough for what it keeps at its bounds, and that it is
// counted: keys of the transaction that comes, of those received and of those that no reader sees yet, and 16 MiB for
// its tables and for transactions that wait.
func TestFeedsMemory(t *testing.T) {
	if least := 3*loader.MaxSize + 16<<20; feedOfHeap < least {
		t.Errorf("a feed is counted with %d bytes, and keeps %d", feedOfHeap, least)
	}
	with := Config{Feeds: map[string]Feed{"shop": {}, "stock": {}}}
	without := (&Config{}).sizes()
	if s := with.sizes(); s.need().heap-without.need().heap != 2*feedOfHeap {
		t.Errorf("two feeds are counted as %d", s.feeds)
	}
}

// TestFitConnections checks that as many connections fit as there is memory for, if that is enough of them.
func TestFitConnections(t *testing.T) {
	s := memorySizes{l1: 64 << 20, l2: 256 << 20, buffers: 128 << 20, connections: 5000}
	all, some := s.need().total(), memorySizes{l1: s.l1, l2: s.l2, buffers: s.buffers, connections: 1000}.need().total()
	for _, c := range []struct {
		have int64
		want int
	}{{all, 5000}, {all << 10, 5000}, {all - 1, 4999}, {some, 1000}, {some - 1, 0}, {0, 0}} {
		if n := s.fit(c.have, 1000); n != c.want {
			t.Errorf("in %d bytes fit %d, want %d", c.have, n, c.want)
		}
	}
	s.connections = 10
	if n := s.fit(s.need().total(), 1000); n != 10 {
		t.Errorf("of ten, %d fit", n)
	}
}
