package plot

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/plot"
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
	five := make([]Series, len(colours)+1)
	for _, c := range []struct {
		name  string
		chart Chart
		want  string
	}{
		{"no series", Chart{}, "0 series"},
		{"more series than colours", Chart{Series: five}, "5 series"},
		{"no points", Chart{Series: []Series{{Name: "a"}}}, "a has no points"},
		{"NaN", Chart{Series: []Series{line("a", math.NaN())}}, "a has a value of NaN"},
		{"zero on a logarithmic axis", Chart{Y: Axis{Log: true}, Series: []Series{line("a", 0)}}, "a has a value of 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := c.chart.SVG(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		name      string
		axis      Axis
		low, high float64
		want      []string
	}{
		{"linear, thousands", Axis{}, 0, 240_000, []string{"0", "100 k", "200 k"}},
		{"two decades and more", Axis{Log: true}, 20, 5_000_000, []string{"100", "1 k", "10 k", "100 k", "1 M"}},
		{"less than two decades", Axis{Log: true}, 760, 15_000, []string{"1 k", "2 k", "5 k", "10 k"}},
		{"a format", Axis{Log: true, Format: func(v float64) string { return fmt.Sprint(v, " µs") }}, 1, 100, []string{"1 µs", "10 µs", "100 µs"}},
		{"given", Axis{Ticks: []Tick{{Value: 1, Label: "one"}, {Value: 100, Label: "max"}}}, 1, 100, []string{"one", "max"}},
	} {
		var to plot.Axis
		c.axis.apply(&to)
		var got []string
		for _, tick := range to.Tick.Marker.Ticks(c.low, c.high) {
			if tick.Label != "" && tick.Value >= c.low && tick.Value <= c.high {
				got = append(got, tick.Label)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
