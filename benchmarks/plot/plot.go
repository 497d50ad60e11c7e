// Package plot draws line charts as SVG that are readable on light and on dark pages.
//
// Input is a Chart. Output is the file's bytes; the same chart gives the same bytes. The drawing is gonum's; the
// package chooses colours, markers and ticks.
package plot

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Chart is one picture.
type Chart struct {
	Title  string
	Note   string // a line under the title
	X, Y   Axis
	Series []Series // at most as many as there are colours
}

// Axis is one axis. Its ticks are derived from the points unless they are given.
type Axis struct {
	Label string // with the unit
	Log   bool   // requires all values to be above zero
	Ticks []Tick
	// Format formats the values of derived ticks. Default: with k or M for thousands and
	// millions.
	Format func(float64) string
}

// Tick is a labelled place on an axis.
type Tick = plot.Tick

// Series is one line.
type Series struct {
	Name   string
	Points []Point // ordered by X
}

// Point is a median with the lowest and the highest value. If Low and High are equal,
// there is no band.
type Point struct{ X, Y, Low, High float64 }

// People with colour-blindness can tell the colours apart (Okabe and Ito), and every line has a marker of its own.
var (
	colours = []color.NRGBA{{0x00, 0x72, 0xb2, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff}, {0x6e, 0x77, 0x81, 0xff}}
	markers = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, draw.PlusGlyph{}}
)

// dark turns light into dark on dark pages, and leaves the hues.
const dark = "<style>@media (prefers-color-scheme: dark) { svg { filter: invert(.93) hue-rotate(180deg) } }</style>\n"

// SVG draws the chart.
func (c Chart) SVG() ([]byte, error) {
	if len(c.Series) == 0 || len(c.Series) > len(colours) {
		return nil, fmt.Errorf("chart %q has %d series: give 1 to %d", c.Title, len(c.Series), len(colours))
	}
	plot.DefaultFont.Variant = "Sans"
	p := plot.New()
	p.Title.Text = c.Title + "\n" + c.Note + "\n"
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Points(3)
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xdd}, color.Gray{0xdd}
	p.Add(grid)
	for i, s := range c.Series {
		if err := c.add(p, i, s); err != nil {
			return nil, fmt.Errorf("chart %q: %s %w", c.Title, s.Name, err)
		}
	}
	c.X.apply(&p.X)
	c.Y.apply(&p.Y)
	w, err := p.WriterTo(vg.Points(570), vg.Points(330), "svg")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		return nil, err
	}
	svg := bytes.ReplaceAll(b.Bytes(), []byte("Liberation Sans"), []byte("Liberation Sans, sans-serif"))
	return bytes.Replace(svg, []byte("<g "), []byte(dark+"<g "), 1), nil
}

// add adds a line with its band.
func (c Chart) add(p *plot.Plot, i int, s Series) error {
	if len(s.Points) == 0 {
		return errors.New("has no points")
	}
	var line, band plotter.XYs
	for _, at := range s.Points {
		for _, v := range []struct {
			Axis
			values []float64
		}{{c.X, []float64{at.X}}, {c.Y, []float64{at.Y, at.Low, at.High}}} {
			for _, value := range v.values {
				if math.IsNaN(value) || math.IsInf(value, 0) || v.Log && value <= 0 {
					return fmt.Errorf("has a value of %v, which has no place", value)
				}
			}
		}
		line = append(line, plotter.XY{X: at.X, Y: at.Y})
		band = append(band, plotter.XY{X: at.X, Y: at.High})
	}
	for n := len(s.Points) - 1; n >= 0; n-- {
		band = append(band, plotter.XY{X: s.Points[n].X, Y: s.Points[n].Low})
	}
	l, points, err := plotter.NewLinePoints(line)
	if err != nil {
		return err
	}
	fill, err := plotter.NewPolygon(band)
	if err != nil {
		return err
	}
	l.Color, l.Width, points.Color, points.Shape, points.Radius = colours[i], vg.Points(1.5), colours[i], markers[i], vg.Points(2.5)
	faint := colours[i]
	faint.A = 0x29
	fill.Color, fill.LineStyle.Width = faint, 0
	p.Add(fill, l, points)
	p.Legend.Add(s.Name, l, points)
	return nil
}

// apply gives an axis of the picture its label, its scale and its ticks.
func (a Axis) apply(to *plot.Axis) {
	to.Label.Text = a.Label
	var ticks plot.Ticker = plot.DefaultTicks{}
	if a.Log {
		to.Scale, ticks = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	to.Tick.Marker = plot.TickerFunc(func(low, high float64) (list []plot.Tick) {
		if len(a.Ticks) > 0 {
			return a.Ticks
		}
		for _, t := range ticks.Ticks(low, high) {
			first := strconv.FormatFloat(t.Value, 'e', 0, 64)[0] // digit
			if t.Label != "" || a.Log && high/low < 100 && (first == '2' || first == '5') {
				t.Label = a.write(t.Value)
			}
			list = append(list, t)
		}
		return list
	})
}

// write formats a value.
func (a Axis) write(v float64) string {
	unit := ""
	switch {
	case a.Format != nil:
		return a.Format(v)
	case math.Abs(v) >= 1e6:
		v, unit = v/1e6, " M"
	case math.Abs(v) >= 1e3:
		v, unit = v/1e3, " k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64) + unit
}
