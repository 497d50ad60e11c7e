package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/testing/memcachedtest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// lied is what a lying server says: 3 MB with its address, control characters and the password.
var lied = strings.Repeat("db.internal <script>\x1b[31m s3cret\r\n", 90_000)

// liar is an origin whose server says that, and takes writes or nothing.
type liar struct{ kind error }

func (l liar) err() error                                         { return fmt.Errorf("%w: %s", l.kind, lied) }
func (liar) Kind() string                                         { return "liar" }
func (liar) Descriptors() int                                     { return 0 }
func (l liar) Load(context.Context, []byte) (loader.Value, error) { return loader.Value{}, l.err() }
func (l liar) Store(context.Context, []byte, loader.Value) error  { return l.err() }
func (l liar) Delete(context.Context, []byte) error               { return l.err() }
func (l liar) Keys(context.Context, func([]byte) error) error     { return l.err() }
func (l liar) Check(context.Context) error                        { return l.err() }

func (l liar) Open(loader.OriginOptions) (*loader.Origin, error) {
	list := func(loader.List) (loader.Lister, error) { return l, nil }
	return &loader.Origin{Source: l, Writer: l, List: list, Checks: []loader.Checker{l}, Secrets: []string{"s3cret"}}, nil
}

// lyingFeed is a feed of such a server.
type lyingFeed struct {
	loader.Feed
	liar
}

func (f lyingFeed) Open() (loader.Feed, error)                     { return f, nil }
func (f lyingFeed) Kind() string                                   { return "liar" }
func (f lyingFeed) Namespaces() []string                           { return []string{"plain"} }
func (f lyingFeed) Secrets() []string                              { return []string{"s3cret"} }
func (f lyingFeed) Check(context.Context) (left []string, _ error) { return nil, f.err() }
func (f lyingFeed) Stream(context.Context, loader.Gap, loader.Checkpoint) (loader.FeedStream, error) {
	return nil, f.err()
}

// TestNoWordsOfServers checks that no door shows what the server of an origin or a feed has said: apps are told how it
// has failed, and the log has the words, cut and without the password. Who administers is shown more, cut too.
func TestNoWordsOfServers(t *testing.T) {
	var lines bytes.Buffer
	log := logs.Start(&lines, logs.Options{})
	cfg := Config{
		HTTP: "127.0.0.1:0", Memcached: "127.0.0.1:0", Log: log.Logger(),
		Socket: filepath.Join(t.TempDir(), "s"), Namespaces: map[string]Namespace{}, Feeds: map[string]Feed{},
	}
	lies := map[string]error{
		"plain": errors.New("odd"), "refused": loader.ErrPermanent, "unwritten": loader.ErrNotWritten,
		"large": loader.ErrTooLarge, "misfit": loader.ErrFeed, "gap": loader.ErrGap,
	}
	for name, kind := range lies {
		cfg.Feeds[name] = Feed{Source: lyingFeed{liar: liar{kind}}}
		cfg.Namespaces[name] = Namespace{
			Origin: liar{kind}, WriteThrough: true, ExistingKeys: &ExistingKeys{Keys: 100, MaxAge: 2 * time.Second},
		}
	}
	ctx := t.Context()
	s := start(t, cfg)
	c, err := client.Dial(ctx, client.Config{
		Socket: cfg.Socket, NoSharedMemory: true, DialTimeout: testenv.Patience, RequestTimeout: testenv.Patience,
	})
	testenv.Must(t, err)
	defer c.Close()
	shown := func(door string, most int, of ...any) {
		t.Helper()
		for _, word := range []string{"s3cret", "db.internal", "<script>", "\x1b"} {
			if text := fmt.Sprintf("%+v", of); strings.Contains(text, word) || len(text) > most {
				t.Errorf("%s shows %q, or %d bytes: %.200q", door, word, len(text), text)
			}
		}
	}
	for name := range lies {
		in := c.InNamespace(name)
		_, loading := in.Get(ctx, "k", cachesidecar.GetOptions{})
		_, writing := in.Set(ctx, "k", nil, cachesidecar.SetOptions{})
		shown("a load of "+name, 400, loading)
		shown("a write to "+name, 400, writing)
	}
	var st cachesidecar.Stats
	testenv.Eventually(t, "all has failed", func() bool {
		st, err = c.Stats(ctx)
		testenv.Must(t, err)
		return !slices.ContainsFunc(st.Changes, func(f cachesidecar.ChangesStats) bool { return f.Error == "" }) &&
			!slices.ContainsFunc(st.Namespaces, func(n cachesidecar.NamespaceStats) bool {
				return n.KeyFilter.Configured && n.KeyFilter.Error == ""
			})
	})
	for _, f := range st.Changes {
		want := askFeed
		if f.Name == "gap" {
			want = "the feed flushes its namespaces and goes on"
		}
		if health := telemetry.ConditionLine(&cachesidecar.Stats{Changes: []cachesidecar.ChangesStats{f}}); !strings.Contains(health, want) || strings.Contains(health, "changes sql") != (f.Name == "misfit") {
			t.Errorf("what to do about feed %s: %s", f.Name, health)
		}
	}
	all, err1 := c.ClusterStats(ctx)
	members, err2 := c.Members(ctx)
	hot, err3 := c.Hot(ctx, cachesidecar.HotOptions{})
	slow, err4 := c.Slow(ctx, cachesidecar.SlowOptions{})
	verified, err5 := c.Verify(ctx, 100*time.Millisecond)
	testenv.Must(t, errors.Join(err1, err2, err3, err4, err5))
	shown("STATS", 40_000, st)
	shown("STATS of all", 80_000, all)
	shown("MEMBERS", 400, members)
	shown("HOT and SLOW", 4000, hot, slow)
	shown("VERIFY", 2000, verified)
	for path, most := range map[string]int{"/livez": 400, "/readyz": 4000, "/metrics": 200_000} {
		_, page := httpAnswer(t, s.http.Load().Addr().String(), "GET "+path+" HTTP/1.0\r\nHost: localhost\r\n\r\n")
		shown(path, most, page)
	}
	_, page := httpAnswer(t, s.http.Load().Addr().String(), "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
	if len(page) > 200_000 || strings.Contains(page, "db.internal") || strings.Contains(page, "s3cret") { // it has scripts
		t.Errorf("the page has %d bytes", len(page))
	}
	stats := memcachedtest.Dial(t, "tcp", s.memcached.ln.Addr().String())
	stats.Send("stats\r\n")
	for line := stats.Line(); line != "END"; line = stats.Line() {
		shown("memcached's stats", 200, line)
	}

	origins, err := cfg.AskOrigins(ctx)
	testenv.Must(t, err)
	feeds, err := cfg.AskFeeds(ctx)
	testenv.Must(t, err)
	for _, of := range []any{origins, feeds} {
		if text := fmt.Sprint(of); len(text) > 2*len(lies)<<14 || strings.Contains(text, "s3cret") {
			t.Errorf("an administrator is shown %d bytes: %.200q", len(text), text)
		}
	}
	log.Close(time.Minute)
	for line := range strings.Lines(lines.String()) {
		if len(line) > 4<<10 || strings.Contains(line, "s3cret") {
			t.Errorf("the log has %d bytes: %.200q", len(line), line)
		}
	}
	if n := strings.Count(lines.String(), "db.internal"); n < 2*len(lies) {
		t.Errorf("the log has the servers' words %d times", n)
	}
}
