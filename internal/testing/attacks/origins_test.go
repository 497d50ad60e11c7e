package attacks

import (
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

var originAttacks = []attack{
	{
		name:   "origins that lie",
		tries:  "GETs whose origins announce too much, never end, drip or answer another key",
		bound:  "an origin's answer is bounded in bytes and time",
		config: liars, run: lie,
	},
	{
		name:   "lists that never end",
		tries:  "lists of keys of one key, of empty lines or pages, or of nothing that is compressed",
		bound:  "a list is bounded in keys, and takes a tenth of a processor",
		config: endlessLists, listed: 4, lasts: longer, shown: listsEnded,
		run: func(ctx context.Context, j *job) error {
			j.count.Add(1)
			<-ctx.Done()
			return nil
		},
	},
	{
		name:   "feeds that lie",
		tries:  "a PostgreSQL sends a feed answers, rows, tables, keys and transactions that are too long, or never end",
		bound:  "what a feed has in memory is bounded, and more is a gap or a flush",
		config: lyingFeeds, lasts: longer, shown: flushesArePaced,
		run: func(ctx context.Context, _ *job) error { <-ctx.Done(); return nil }, // the servers attack
	},
	{
		name:   "keys at which an origin fails",
		tries:  "200 GETs a second of keys at which an honest origin fails or hangs; the victim reads others from it",
		bound:  failsAlone,
		config: failing, also: []also{fromOrigin}, shares: true, run: askForFailures,
	},
	{
		name:   "keys at which an origin fails, of two hosts",
		tries:  "the same on a host of two",
		bound:  failsAlone,
		config: failing, hosts: 2, also: []also{fromOrigin}, shares: true, run: askForFailures,
	},
}

// listedKeys is the largest number of keys of a list in these attacks.
const listedKeys = 100_000

// endlessLists starts origins whose lists never end, and configures a namespace for each.
func endlessLists(t testing.TB, _, _ string) string {
	var b strings.Builder
	b.WriteString("namespaces:\n")
	for name, kind := range map[string]string{"lines": "http", "members": "http", "pages": "redis", "same": "redis"} {
		address, url := origintest.Hostile(t, kind, name), ""
		if kind == "http" {
			url = ", url: http://" + address
		}
		fmt.Fprintf(&b, "  %s: {existing_keys: {keys: %d, max_age: 4s%s}, origin: {", name, listedKeys, url)
		fmt.Fprintf(&b, originKinds[kind]+"}}\n%.0[2]s", address, "")
	}
	return b.String()
}

// listsEnded checks that the lists with keys were given up.
func listsEnded(h *house, _ report) error {
	_, text, err := h.hosts[0].get("/metrics")
	for _, name := range []string{"lines", "same"} {
		of := fmt.Sprintf("known_failures_total{namespace=%q} ", name)
		if err == nil && (!strings.Contains(text, of) || strings.Contains(text, of+"0\n")) {
			err = fmt.Errorf("the list of %s has not ended", name)
		}
	}
	return err
}

// lyingFeeds starts a server of each lie, and configures a feed for it.
func lyingFeeds(t testing.TB, _, dir string) string {
	names, feeds := "namespaces:\n", "changes:\n"
	for i, lie := range origintest.FeedLies {
		dsn := filepath.Join(dir, fmt.Sprintf("feed%d.dsn", i))
		text := "postgres://tester:secretword@" + origintest.LyingFeed(t, lie) + "/db?sslmode=disable"
		if err := os.WriteFile(dsn, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		names += fmt.Sprintf("  n%d: {}\n", i)
		feeds += fmt.Sprintf("  f%d: {postgres: {dsn_file: %s, tables: {public.t: {namespace: n%d, key: \"{id}\"}}}}\n", i, dsn, i)
	}
	return names + feeds
}

// flushesArePaced checks that the flushes of a feed were made together, however fast its server asks for them.
func flushesArePaced(h *house, _ report) error {
	_, text, err := h.hosts[0].get("/metrics")
	socket, err2 := os.Stat(h.hosts[0].Socket) // as old as the host
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	const each = 20 * time.Millisecond
	most := 10 + int(time.Since(socket.ModTime())/each) // some are of gaps
	name := fmt.Sprintf("changes_flushes_total{feed=\"f%d\"} ", slices.Index(origintest.FeedLies, "flushes"))
	_, text, _ = strings.Cut(text, name)
	text, _, _ = strings.Cut(text, "\n")
	if n, err := strconv.Atoi(text); err != nil || n == 0 || n > most {
		return fmt.Errorf("%q flushes were made, want 1 to %d", text, most)
	}
	return nil
}

const failsAlone = "the places of an origin in fair shares, and a breaker for each process and user"

// originKinds maps each kind of origin to its part of a namespace's configuration. Its
// arguments are an address, and a file for what is secret.
var originKinds = map[string]string{
	"http":      `http: {url: "http://%[1]s/{key}", cache_control: true}`,
	"redis":     `redis: {address: "%[1]s"}`,
	"memcached": `memcached: {servers: ["%[1]s"]}`,
	"postgres":  `postgres: {dsn_file: %[2]s, query: "SELECT b FROM t WHERE id = $1"}`,
}

// lyingNames returns the namespaces of hostile origins, one for each kind and mode.
func lyingNames() (names []string) {
	for kind := range originKinds {
		for _, mode := range origintest.Modes(kind) {
			names = append(names, kind+"."+mode)
		}
	}
	return names
}

// liars starts the origins, and configures a namespace for each.
func liars(t testing.TB, _, dir string) string {
	var b strings.Builder
	b.WriteString("namespaces:\n")
	for _, name := range lyingNames() {
		kind, mode, _ := strings.Cut(name, ".")
		address := origintest.Hostile(t, kind, mode)
		dsn := filepath.Join(dir, name+".dsn")
		if err := os.WriteFile(dsn, []byte("postgres://tester:secretword@"+address+"/db?sslmode=disable"), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "  %s: {limits: {timeout: 2s, breaker: {failures: 1000}}, origin: {", name)
		fmt.Fprintf(&b, originKinds[kind]+"}}\n%.0[1]s%.0[2]s", address, dsn)
	}
	return b.String()
}

// failing starts an origin that fails for some keys, and configures a namespace for it.
func failing(t testing.TB, _, _ string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/bad"):
			w.WriteHeader(http.StatusInternalServerError)
		case strings.HasPrefix(r.URL.Path, "/slow"):
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	return fmt.Sprintf("namespaces: {web: {limits: {timeout: 500ms}, origin: {http: {url: %q}}}}\n", server.URL+"/{key}")
}

// askForFailures asks for keys of both kinds.
func askForFailures(ctx context.Context, j *job) error {
	c, err := open(ctx, j.victim().Socket, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	go func() { _, _ = io.Copy(io.Discard, c) }() // ends with the connection
	for n := 0; ctx.Err() == nil; n++ {
		for _, kind := range []string{"bad", "slow"} {
			if _, err := c.send(wire.OpGet, 3000, "web", fmt.Appendf(nil, "%s%d-%d", kind, j.Round, n)); err != nil {
				return err
			}
			j.count.Add(1)
		}
		rest(ctx, 10*time.Millisecond)
	}
	return nil
}

// fromOrigin reads a new key of the same origin.
func fromOrigin(ctx context.Context, v *victim, n int) error {
	_, err := v.ask(ctx, wire.OK, wire.OpGet, "web", fmt.Appendf(nil, "good%d-%d", n, mathrand.Uint64()))
	return err
}

// lie requests keys from the origins.
func lie(ctx context.Context, j *job) error {
	names := lyingNames()
	var n atomic.Int64
	j.crowd(ctx, 32, func(int) error {
		c, err := open(ctx, j.victim().Socket, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		for ctx.Err() == nil {
			i := int(n.Add(1))
			a, err := c.call(wire.OpGet, 3000, names[i%len(names)], fmt.Appendf(nil, "k%d-%d", j.Round, i))
			if err != nil {
				return err
			}
			j.count.Add(1)
			said := content(a.at(0))
			for _, secret := range []string{"127.0.0.1", "tester", "secretword"} {
				if a.status.IsError() && strings.Contains(said, secret) {
					j.learn("%q in %q", secret, cut(said))
				}
			}
		}
		return nil
	})
	return nil
}
