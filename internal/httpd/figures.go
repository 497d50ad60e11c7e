package httpd

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

const (
	maxPoints = 150              // of a history: five minutes
	maxGap    = 10 * time.Second // between two points of one history
)

// point has the figures of one sample.
type point struct {
	telemetry.Rates
	p50, p99 time.Duration
}

// history has the last points, the oldest first.
type history struct{ points []point }

// add appends the point of the time since the last one. It drops the others if that is too
// long. A gap of zero is the first point of a process, whose rates are since its start: it
// is no part of a history.
func (h *history) add(p point, gap time.Duration) {
	switch {
	case gap == 0:
		h.points = nil
		return
	case gap > maxGap:
		h.points = nil
	case len(h.points) == maxPoints:
		h.points = append(h.points[:0], h.points[1:]...)
	}
	h.points = append(h.points, p)
}

// line draws the course of a figure in a box of 100 × 20 whose lower edge is zero, and
// whose upper edge is the highest figure or top.
func (h *history) line(top float64, figure func(*point) float64) string {
	if len(h.points) < 2 {
		return ""
	}
	for i := range h.points {
		top = max(top, figure(&h.points[i]))
	}
	if top <= 0 {
		top = 1
	}
	var b strings.Builder
	step := 100 / float64(maxPoints-1)
	from := 100 - step*float64(len(h.points)-1)
	for i := range h.points {
		fmt.Fprintf(&b, "%.1f,%.1f ", from+step*float64(i), 19-18*max(figure(&h.points[i]), 0)/top)
	}
	return strings.TrimSpace(b.String())
}

// tiles returns the first row of the page.
func tiles(v *view, s *telemetry.Snapshot, p point, h *history) []tile {
	hits, p99, p50 := "–", "–", "of the batches of requests"
	if p.Hits >= 0 {
		hits = percent(p.Hits)
	}
	if p.p99 > 0 {
		p99, p50 = short(p.p99), "p50 "+short(p.p50)+", of batches"
	}
	hosts := "this host only"
	if !s.Stats.Cluster.Alone {
		hosts = v.States
	}
	return []tile{
		{"reads per second", perSecond(p.Reads), "keys read by apps of this host",
			h.line(0, func(p *point) float64 { return p.Reads })},
		{"hits", hits, "of the reads, from the cache", h.line(1, func(p *point) float64 { return p.Hits })},
		{"p99 latency", p99, p50,
			h.line(0, func(p *point) float64 { return float64(p.p99) })},
		{"writes per second", perSecond(p.Writes), "deletions included",
			h.line(0, func(p *point) float64 { return p.Writes })},
		{"loads per second", perSecond(p.Loads), "from origins", h.line(0, func(p *point) float64 { return p.Loads })},
		{"errors per second", perSecond(p.Errors), "of all requests",
			h.line(0, func(p *point) float64 { return p.Errors })},
		{"entries", count(s.Stats.L2.Entries), count(s.Stats.L1.Entries) + " copies", ""},
		{"hosts", count(int64(len(s.Members))), hosts, ""},
	}
}

// quantile estimates a quantile of the batches between two samples, in the way of
// Prometheus' histogram_quantile. It is zero without batches.
func quantile(now, last []telemetry.Bucket, q float64) time.Duration {
	if len(now) == 0 {
		return 0
	}
	at := func(i int) float64 {
		n := float64(now[i].Count)
		if i < len(last) {
			n -= float64(last[i].Count)
		}
		return n
	}
	want := q * at(len(now)-1)
	if want <= 0 {
		return 0
	}
	lower, below := 0.0, 0.0
	for i := range now {
		if n := at(i); n >= want {
			if math.IsInf(now[i].Seconds, 1) {
				break
			}
			lower += (now[i].Seconds - lower) * (want - below) / (n - below)
			break
		}
		lower, below = now[i].Seconds, at(i)
	}
	return time.Duration(lower * float64(time.Second))
}

func ratio(part, all int64) float64 {
	if all <= 0 {
		return 0
	}
	return min(max(float64(part)/float64(all), 0), 1)
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

func count(n int64) string { return humanize.Comma(n) }

func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }

func perSecond(rate float64) string {
	switch {
	case rate <= 0:
		return "0"
	case rate < 0.05:
		return "< 0.1"
	case rate < 9.95:
		return fmt.Sprintf("%.1f", rate)
	}
	return humanize.Comma(int64(math.Round(rate)))
}

// short formats a time that may be very short.
func short(d time.Duration) string {
	if d >= time.Minute {
		return long(d)
	}
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{time.Second, "s"}, {time.Millisecond, "ms"}} {
		if d >= u.of {
			return strconv.FormatFloat(float64(d.Round(u.of/100))/float64(u.of), 'f', -1, 64) + " " + u.name
		}
	}
	return fmt.Sprintf("%d µs", d.Microseconds())
}

// long formats a time of seconds or more.
func long(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Round(time.Second).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days %d h", int(d.Hours())/24, int(d.Hours())%24)
}
