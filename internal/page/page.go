package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/condition"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

const (
	// MaxStreams is the most event streams at once, unless Config has less.
	MaxStreams = 16

	interval     = 2 * time.Second // of the events of a stream
	writeTimeout = 10 * time.Second
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string

	templates = template.Must(template.New("page").Parse(pageHTML))
	policy    = "default-src 'none'; style-src '" + digest(pageCSS) + "'; script-src '" + digest(pageJS) +
		"'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// digest returns the source expression of Content-Security-Policy that allows a text.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// Config is what the page shows.
type Config struct {
	// Snapshot reads the statistics. It returns false once the host is closing.
	Snapshot func() (telemetry.Snapshot, bool)
	// Streams is the most event streams at once. Zero is MaxStreams, which is also the most.
	Streams int
}

// Page serves the status page and its events. Its methods may be called concurrently.
type Page struct {
	cfg     Config
	streams streams

	mu       sync.Mutex
	now      time.Time // of the last sample; zero: none yet
	last     telemetry.Snapshot
	history  history
	document []byte // the page
	event    []byte // its <main>, as an event
}

// New returns a Page.
func New(c Config) *Page {
	if c.Streams <= 0 || c.Streams > MaxStreams {
		c.Streams = MaxStreams
	}
	return &Page{cfg: c}
}

// ServeHTTP serves the page.
func (p *Page) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
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

// ServeEvents serves the stream: the page's <main>, at once and then every two seconds.
func (p *Page) ServeEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	s := p.streams.enter(r.RemoteAddr, p.cfg.Streams)
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
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
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
func (p *Page) draw() (document, event []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.now.IsZero() && now.Sub(p.now) < interval*3/4 {
		return p.document, p.event, nil
	}
	v := view{CSS: template.CSS(pageCSS), JS: template.JS(pageJS), At: now.Format("15:04:05 MST")}
	v.State = condition.NotReady + ": stopping"
	if s, ok := p.cfg.Snapshot(); ok {
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
