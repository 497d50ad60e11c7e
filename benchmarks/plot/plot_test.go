package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

func line(name string, values ...float64) Series {
	s := Series{Name: name}
	for i, v := range values {
		s.Points = append(s.Points, Point{X: float64(i + 1), Y: v, Low: v * 0.9, High: v * 1.1})
	}
	return s
}

func TestSVGIsWholeAndTheSameEachTime(t *testing.T) {
	c := Chart{
		Title: "A <title> & more", Note: "note", X: Axis{Label: "connections"}, Y: Axis{Label: "requests a second", Log: true},
		Series: []Series{line("one", 10, 100, 1000), line("two", 20, 30, 40), line("three", 1, 2, 3), line("four", 5, 5, 5)},
	}
	svg, err := c.SVG()
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	d := xml.NewDecoder(strings.NewReader(string(svg)))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("no XML: %v", err)
		}
		if chars, ok := token.(xml.CharData); ok {
			texts = append(texts, strings.TrimSpace(string(chars)))
		}
	}
	for _, want := range []string{c.Title, "note", "connections", "requests a second", "one", "four", "1 k"} {
		if !slices.Contains(texts, want) {
			t.Errorf("%q is not in the picture", want)
		}
	}
	if !strings.Contains(string(svg), "prefers-color-scheme: dark") {
		t.Error("there are no colours for dark pages")
	}
	again, err := c.SVG()
	if err != nil || string(again) != string(svg) {
		t.Errorf("the second picture differs, error %v", err)
	}
}

func TestSVGRefusesWhatHasNoPlace(t *testing.T) {
	five := make([]Series, colours+1)
	for _, c := range []struct {
		name  string
		chart Chart
		want  string
	}{
		{"no series", Chart{}, "0 series"},
		{"more series than colours", Chart{Series: five}, "5 series"},
		{"no points", Chart{Series: []Series{{Name: "a"}}}, "there are no points"},
		{"NaN", Chart{Series: []Series{line("a", math.NaN())}}, "a has a value of NaN"},
		{"zero on a logarithmic axis", Chart{Y: Axis{Log: true}, Series: []Series{line("a", 0)}}, "y axis: a has a value of 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := c.chart.SVG(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestTicks(t *testing.T) {
	labels := func(ticks []Tick) (l []string) {
		for _, t := range ticks {
			l = append(l, t.Label)
		}
		return l
	}
	for _, c := range []struct {
		name string
		got  []Tick
		want []string
	}{
		{"linear", linearTicks(3, 97, short), []string{"0", "20", "40", "60", "80", "100"}},
		{"linear, thousands", linearTicks(0, 240_000, short), []string{"0", "50 k", "100 k", "150 k", "200 k", "250 k"}},
		{"linear, narrow", linearTicks(50.2, 50.9, short), []string{"50.2", "50.3", "50.4", "50.5", "50.6", "50.7", "50.8", "50.9"}},
		{"linear, one value", linearTicks(7, 7, short), []string{"6", "6.5", "7", "7.5", "8"}},
		{"two decades and more", logTicks(20, 5_000_000, short), []string{"10", "100", "1 k", "10 k", "100 k", "1 M", "10 M"}},
		{"less than two decades", logTicks(760, 15_000, short), []string{"500", "1 k", "2 k", "5 k", "10 k", "20 k"}},
		{"a power of ten", logTicks(10, 1000, short), []string{"10", "100", "1 k"}},
	} {
		if got := labels(c.got); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestScale(t *testing.T) {
	x := func(p Point) []float64 { return []float64{p.X} }
	s, err := Axis{Log: true, Ticks: []Tick{{1, "1"}, {100, "100"}}}.scale([]Series{line("a", 1, 1)}, x)
	if err != nil || s.part(1) != 0 || s.part(10) != 0.5 || s.part(100) != 1 {
		t.Errorf("logarithmic: got %v, %v, %v, error %v", s.part(1), s.part(10), s.part(100), err)
	}
	s, err = Axis{}.scale([]Series{{Name: "a", Points: []Point{{X: 7}}}}, x)
	if p := s.part(7); err != nil || p < 0 || p > 1 {
		t.Errorf("one value: got place %v, error %v", p, err)
	}
}
