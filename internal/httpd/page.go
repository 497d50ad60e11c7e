package httpd

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

const (
	maxStreams = 16               // of events at once, unless there is less room
	interval   = 2 * time.Second  // of the events of a stream
	eventTime  = 10 * time.Second // for an event, to be taken
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string

	templates = template.Must(template.New("page").Funcs(template.FuncMap{
		"plain": logs.Plain, "size": size, "ratio": ratio, "percent": percent, "perSecond": perSecond,
		"count": func(n reflect.Value) string { return count(n.Int()) },
		"short": func(us int64) string { return short(time.Duration(us) * time.Microsecond) },
		"long":  func(ms int64) string { return long(time.Duration(ms) * time.Millisecond) },
	}).Parse(pageHTML))
	policy = "default-src 'none'; style-src '" + sourceOf(pageCSS) + "'; script-src '" + sourceOf(pageJS) +
		"'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// sourceOf returns the source expression of Content-Security-Policy that allows a text.
func sourceOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// page is the status page: one HTML document for a person with a browser, and a stream of
// server-sent events that keeps it up to date. It shows one host, and the other hosts as this
// one sees them.
//
// The document is complete without a script, and an event is the same part of it again. All
// viewers share one sample: a hundred requests a second cost as much as one. Names and messages
// of other hosts and of apps are escaped. The page keeps no history but that of the last five
// minutes, while somebody watches. Its methods may be called concurrently.
type page struct {
	snapshot func() (telemetry.Snapshot, bool)
	most     int // streams at once
	streams  streams

	mu       sync.Mutex
	now      time.Time // of the last sample; zero: none yet
	last     telemetry.Snapshot
	history  history
	document []byte // the page
	event    []byte // its <main>, as an event
}

// newPage returns a page that has room for so many streams.
func newPage(snapshot func() (telemetry.Snapshot, bool), room int) *page {
	return &page{snapshot: snapshot, most: min(max(room, 1), maxStreams)}
}

// serve serves the document.
func (p *page) serve(w http.ResponseWriter, _ *http.Request) {
	document, _, err := p.draw()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(document)))
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(document)
}

// serveEvents serves the stream: the page's <main>, at once and then every two seconds. The
// stream lives in the goroutine of its request, and ends with it, or ten seconds after the
// buffers of its connection are full, since its client does not read.
func (p *page) serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	s := p.streams.enter(ownerOfRequest(r), p.most)
	defer p.streams.leave(s)
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // the server's own is for requests
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		_, event, err := p.draw()
		if err != nil {
			return
		}
		_ = rc.SetWriteDeadline(time.Now().Add(eventTime))
		if _, err := w.Write(event); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.ended:
			return
		case <-tick.C:
		}
	}
}

// draw returns the page and the event of the present sample. It takes a new one if that is
// older than three quarters of the interval.
func (p *page) draw() (document, event []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.now.IsZero() && now.Sub(p.now) < interval*3/4 {
		return p.document, p.event, nil
	}
	v := view{CSS: template.CSS(pageCSS), JS: template.JS(pageJS), At: now.Format("15:04:05 MST")}
	v.State = telemetry.NotReady + ": stopping"
	if s, ok := p.snapshot(); ok {
		gap := now.Sub(p.now)
		if p.now.IsZero() || s.Stats.UptimeMS <= p.last.Stats.UptimeMS {
			p.last, gap = telemetry.Snapshot{}, 0
		}
		point := v.fill(&s, &p.last)
		p.history.add(point, gap)
		v.Tiles = tiles(&v, &s, point, &p.history)
		p.last = s
	}
	p.now = now
	var all, main bytes.Buffer
	if err := templates.ExecuteTemplate(&main, "main", &v); err != nil {
		return nil, nil, fmt.Errorf("the status page cannot be drawn: %w", err)
	}
	text := strings.TrimSpace(main.String()) // the same in both: what is alike stays
	v.Main = template.HTML(text)
	if err := templates.Execute(&all, &v); err != nil {
		return nil, nil, fmt.Errorf("the status page cannot be drawn: %w", err)
	}
	p.document, p.event = all.Bytes(), eventOf(text)
	return p.document, p.event, nil
}

// eventOf returns an event whose data is the text.
func eventOf(text string) []byte {
	return []byte("data: " + strings.ReplaceAll(text, "\n", "\ndata: ") + "\n\n")
}
