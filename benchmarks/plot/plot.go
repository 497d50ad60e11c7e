// Package plot draws line charts as SVG that are readable on light and on dark pages.
//
// Input is a Chart. Output is the file's bytes; the same chart gives the same bytes. It
// is not a general plotting library: it draws lines with markers, a band between low and
// high, and linear and logarithmic axes.
package plot

import (
	"bytes"
	"fmt"
	"html"
	"strings"
)

// Chart is one picture.
type Chart struct {
	Title  string
	Note   string // a line under the title
	X, Y   Axis
	Series []Series // at most as many as there are colours
}

// Axis is one axis. Ticks and bounds are derived from the points unless they are given.
type Axis struct {
	Label string // with the unit
	Log   bool   // requires all values to be above zero
	Ticks []Tick // the first and the last are the bounds
	// Format formats the values of derived ticks. Default: with k or M for thousands and
	// millions.
	Format func(float64) string
}

// Tick is a labelled place on an axis.
type Tick struct {
	At    float64
	Label string
}

// Series is one line.
type Series struct {
	Name   string
	Points []Point // ordered by X
}

// Point is a median with the lowest and the highest value. If Low and High are equal,
// there is no band.
type Point struct{ X, Y, Low, High float64 }

// Places in the picture, in units of the SVG.
const (
	width, height = 760, 440
	left, right   = 78, 24
	top, bottom   = 92, 58
	plotWidth     = width - left - right
	plotHeight    = height - top - bottom
	letter        = 7.5 // approximate width of a letter in the legend
)

// style colours by class, so that one file serves light and dark pages. People with
// colour-blindness can tell the colours apart (Okabe and Ito), and every line has a
// marker of its own.
const style = `
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 } .note { fill: #57606a }
.page { fill: #ffffff } .grid { stroke: #d8dee4 } .frame { stroke: #8c959f; fill: none }
.line { fill: none; stroke-width: 2 } .band { stroke: none; fill-opacity: .16 }
.s0 { stroke: #0072b2 } .f0 { fill: #0072b2 } .s1 { stroke: #d55e00 } .f1 { fill: #d55e00 }
.s2 { stroke: #009e73 } .f2 { fill: #009e73 } .s3 { stroke: #6e7781; stroke-dasharray: 6 4 } .f3 { fill: #6e7781 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .note { fill: #9198a1 } .page { fill: #0d1117 } .grid { stroke: #30363d } .frame { stroke: #6e7681 }
.s0 { stroke: #56b4e9 } .f0 { fill: #56b4e9 } .s1 { stroke: #ff9447 } .f1 { fill: #ff9447 }
.s2 { stroke: #3fd6a6 } .f2 { fill: #3fd6a6 } .s3 { stroke: #9198a1 } .f3 { fill: #9198a1 }
}
`

// colours is the number of series that the style has colours for.
const colours = 4

// SVG draws the chart.
func (c Chart) SVG() ([]byte, error) {
	if len(c.Series) == 0 || len(c.Series) > colours {
		return nil, fmt.Errorf("chart %q has %d series: give 1 to %d", c.Title, len(c.Series), colours)
	}
	x, err := c.X.scale(c.Series, func(p Point) []float64 { return []float64{p.X} })
	if err != nil {
		return nil, fmt.Errorf("chart %q, x axis: %w", c.Title, err)
	}
	y, err := c.Y.scale(c.Series, func(p Point) []float64 { return []float64{p.Y, p.Low, p.High} })
	if err != nil {
		return nil, fmt.Errorf("chart %q, y axis: %w", c.Title, err)
	}
	d := drawing{x: x, y: y}
	d.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`,
		width, height, width, height, html.EscapeString(c.Title))
	d.add("<style>%s</style>", style)
	d.add(`<rect class="page" width="%d" height="%d"/>`, width, height)
	d.text(left, 26, "title", "start", c.Title)
	d.text(left, 46, "note", "start", c.Note)
	d.axes(c)
	for i, s := range c.Series {
		d.band(i, s)
	}
	for i, s := range c.Series {
		d.series(i, s)
	}
	d.legend(c.Series)
	d.add("</svg>")
	return d.out.Bytes(), nil
}

// drawing is a chart being drawn.
type drawing struct {
	out  bytes.Buffer
	x, y scale
}

func (d *drawing) add(format string, args ...any) {
	fmt.Fprintf(&d.out, format, args...)
	d.out.WriteByte('\n')
}

func (d *drawing) text(x, y float64, class, anchor, s string) {
	d.add(`<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(s))
}

func (d *drawing) at(x, y float64) (px, py float64) {
	return left + plotWidth*d.x.part(x), top + plotHeight*(1-d.y.part(y))
}

func (d *drawing) axes(c Chart) {
	const base = top + plotHeight
	for _, t := range d.x.ticks {
		px := left + plotWidth*d.x.part(t.At)
		d.add(`<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, px, top, px, base)
		d.text(px, base+19, "tick", "middle", t.Label)
	}
	for _, t := range d.y.ticks {
		py := top + plotHeight*(1-d.y.part(t.At))
		d.add(`<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`, left, py, left+plotWidth, py)
		d.text(left-8, py+4.5, "tick", "end", t.Label)
	}
	d.add(`<rect class="frame" x="%d" y="%d" width="%d" height="%d"/>`, left, top, plotWidth, plotHeight)
	d.text(left+plotWidth/2, height-14, "label", "middle", c.X.Label)
	d.add(`<text class="label" text-anchor="middle" transform="translate(20 %d) rotate(-90)">%s</text>`, top+plotHeight/2, html.EscapeString(c.Y.Label))
}

func (d *drawing) band(i int, s Series) {
	var there, back []string
	for _, p := range s.Points {
		x, low := d.at(p.X, p.Low)
		_, high := d.at(p.X, p.High)
		there = append(there, fmt.Sprintf("%.1f,%.1f", x, high))
		back = append([]string{fmt.Sprintf("%.1f,%.1f", x, low)}, back...)
	}
	d.add(`<polygon class="band f%d" points="%s"/>`, i, strings.Join(append(there, back...), " "))
}

func (d *drawing) series(i int, s Series) {
	var line []string
	for _, p := range s.Points {
		x, y := d.at(p.X, p.Y)
		line = append(line, fmt.Sprintf("%.1f,%.1f", x, y))
	}
	d.add(`<polyline class="line s%d" points="%s"/>`, i, strings.Join(line, " "))
	for _, p := range s.Points {
		x, y := d.at(p.X, p.Y)
		d.marker(i, x, y)
	}
}

// marker draws the series' marker: circle, square, triangle or diamond.
func (d *drawing) marker(i int, x, y float64) {
	switch i {
	case 0:
		d.add(`<circle class="f0" cx="%.1f" cy="%.1f" r="4"/>`, x, y)
	case 1:
		d.add(`<rect class="f1" x="%.1f" y="%.1f" width="7" height="7"/>`, x-3.5, y-3.5)
	case 2:
		d.add(`<path class="f2" d="M%.1f %.1fl4.5 8h-9z"/>`, x, y-5)
	default:
		d.add(`<path class="f3" d="M%.1f %.1fl4.5 4.5l-4.5 4.5l-4.5 -4.5z"/>`, x, y-4.5)
	}
}

func (d *drawing) legend(series []Series) {
	x := float64(left)
	for i, s := range series {
		const y = 70
		d.add(`<line class="line s%d" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, i, x, y, x+26, y)
		d.marker(i, x+13, y)
		d.text(x+33, y+4.5, "key", "start", s.Name)
		x += 33 + letter*float64(len([]rune(s.Name))) + 28
	}
}
