package recipe

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestRecipe cooks docs/RECIPE-PYTHON.md: every block of it runs, on three hosts, before a real
// PostgreSQL. Then articles change on all hosts, while one sidecar is restarted and another one
// killed: no app answers with an error, or with a title that was changed longer ago than the
// bound.
func TestRecipe(t *testing.T) {
	page := readPage(t)
	needPython(t, page.take(t, "packages"))
	origintest.Need(t, "curl", "apt-get install curl")
	database := origintest.NewPostgres(t)
	database.Start(t, "wal_level=logical")
	database.Exec(t, page.take(t, "table"))

	p := newPlace(origintest.Folder(t), database.DSN())
	install, key, app := page.take(t, "install"), page.take(t, "key"), page.take(t, "app.py")
	config, check, dsn := page.take(t, "config"), page.take(t, "check"), page.take(t, "dsn")
	for host := 1; host <= 3; host++ {
		p.run(t, host, install)
		if host == 1 {
			p.run(t, host, key)
		} else {
			p.run(t, host, "cp -p "+filepath.Join(p.folder(1), "etc", "cluster.key")+" /etc/cachesidecar/")
		}
		p.run(t, host, dsn)
		p.write(t, host, "etc/config.yaml", config)
		p.write(t, host, "srv/app.py", app)
		if out := p.run(t, host, check); out != "" && !strings.Contains(out, "ok") {
			t.Errorf("config check prints %q", out)
		}
	}

	run, start := page.take(t, "run"), page.take(t, "app")
	var sidecars [4]*process
	for host := 1; host <= 3; host++ {
		sidecars[host] = p.launch(t, host, run)
	}
	p.allIn(t)
	p.console(t, 1, page.take(t, "members"))
	feed := page.take(t, "feed")
	for host := 1; host <= 3; host++ { // until then nothing is kept
		testenv.Eventually(t, "the feed is in time", func() bool { return strings.Contains(p.run(t, host, feed), "is certified up to") })
	}
	for host := 1; host <= 3; host++ {
		p.launch(t, host, start)
		testenv.Eventually(t, "the app answers", func() bool { _, err := p.get(host, "1"); return err == nil })
	}
	p.console(t, 1, page.take(t, "try"))
	p.cold(t)
	p.storm(t, sidecars[:], run)

	for line := range strings.Lines(page.take(t, "measure")) {
		out := p.run(t, 1, line)
		if !strings.Contains(line, "/metrics") {
			continue
		}
		for _, name := range slices.Compact(regexp.MustCompile(`cachesidecar_[a-z_]+`).FindAllString(page.text, -1)) {
			if !strings.Contains(out, "\n"+name+"{") && !strings.Contains(out, "\n"+name+" ") {
				t.Errorf("there is no metric %s", name)
			}
		}
	}
	for name := range page.blocks {
		t.Errorf("the block %s was not run", name)
	}
}

// needPython checks that Debian's Python has what the page installs.
func needPython(t *testing.T, install string) {
	t.Helper()
	out, err := exec.Command("/usr/bin/python3", "-c", "import flask, gunicorn, msgpack, pip, psycopg2").CombinedOutput()
	if err == nil {
		return
	}
	why := fmt.Sprintf("Python cannot run the recipe: %s\n%v %s", install, err, out)
	testenv.Needs(t, why)
}

// write writes a file of a host as the page gives it.
func (p *place) write(t *testing.T, host int, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.folder(host), name), []byte(p.on(host, text)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// answer is what an app answers.
type answer struct {
	status     int
	text, from string
}

// web opens a connection for each request: a worker that is busy delays no other one.
var web = http.Client{Timeout: testenv.Patience, Transport: &http.Transport{DisableKeepAlives: true}}

func (p *place) get(host int, path string) (answer, error) { return p.ask(host, "GET", path, "") }

func (p *place) ask(host int, method, path, body string) (answer, error) {
	url := "http://" + p.address(host) + ":8080/" + path
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, text: strings.TrimSuffix(string(b), "\n"), from: resp.Header.Get("X-From")}, err
}

// bound is max_lag and the default of max_staleness.
const bound = 12 * time.Second

// history is what is known of one article: when each change of it was acknowledged.
type history struct {
	mu    sync.Mutex
	acked []time.Time         // by the number of the title; the first is the one of the start
	from  map[string][4]int   // answers by their source, then by host
	seen  [4]map[int]struct{} // numbers of titles that a host has shown
}

// least returns the oldest title that a read which begins now may return.
func (h *history) least() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for n := len(h.acked) - 1; n > 0; n-- {
		if now.Sub(h.acked[n]) > bound {
			return n
		}
	}
	return 0
}

func (h *history) count(host int, from string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.from[from][host]
}

// read reads the article through an app, and checks the answer.
func (p *place) read(t *testing.T, h *history, host int) bool {
	least := h.least()
	a, err := p.get(host, "9")
	var n int
	_, wrong := fmt.Sscanf(a.text, "title %d of article 9", &n)
	if err != nil || a.status != http.StatusOK || wrong != nil || n < least {
		t.Errorf("host %d answers %+v, %v; want title %d or a later one", host, a, err, least)
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	counts := h.from[a.from]
	counts[host]++
	h.from[a.from] = counts
	h.seen[host][n] = struct{}{}
	return true
}

// change changes the article through an app.
func (p *place) change(t *testing.T, h *history, host int) bool {
	n := len(h.acked) // there is one writer
	a, err := p.ask(host, "PUT", "9", fmt.Sprintf("title %d of article 9", n))
	if err != nil || a.status != http.StatusOK || a.text != "changed" {
		t.Errorf("host %d: change %d: %+v, %v", host, n, a, err)
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked = append(h.acked, time.Now())
	return true
}

// cold reads articles that no host has yet, each through all apps at once: one reader of all asks
// the database. Some may ask it too, on a machine that is so busy that a sidecar's answer is late.
func (p *place) cold(t *testing.T) {
	const first, articles, readers = 20, 20, 24
	var loads atomic.Int64
	for article := first; article < first+articles; article++ {
		var all sync.WaitGroup
		for reader := range readers {
			all.Go(func() {
				a, err := p.get(1+reader%3, fmt.Sprint(article))
				if want := fmt.Sprintf("title 0 of article %d", article); err != nil || a.text != want {
					t.Errorf("answer %+v, %v; want %s", a, err, want)
				}
				if a.from == "database" {
					loads.Add(1)
				}
			})
		}
		all.Wait()
	}
	if n := loads.Load(); n < articles || n > articles+2*readers {
		t.Errorf("%d articles, each read by %d readers at once: %d loads", articles, readers, n)
	}
}

// storm changes one article again and again, through all apps in turn, while all apps are asked
// for it; it restarts the sidecar of host 2 and kills that of host 3 meanwhile.
func (p *place) storm(t *testing.T, sidecars []*process, run string) {
	testenv.ReadsClock(t, bound, "what apps read is held to max_lag and max_staleness")
	const readers = 4 // of each host: while calls wait for a sidecar others go on
	h := &history{acked: []time.Time{time.Now()}, from: map[string][4]int{}}
	stop := make(chan struct{})
	var all sync.WaitGroup
	loop := func(pause time.Duration, step func() bool) { // until stop, or the first mistake
		all.Go(func() {
			for step() {
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	for host := 1; host <= 3; host++ {
		h.seen[host] = map[int]struct{}{}
		for range readers {
			loop(10*time.Millisecond, func() bool { return p.read(t, h, host) })
		}
	}
	turn := 0
	loop(100*time.Millisecond, func() bool { turn++; return p.change(t, h, 1+turn%3) })
	defer func() {
		close(stop)
		all.Wait()
		t.Logf("%d changes; answers %v", len(h.acked)-1, h.from)
	}()

	changed := func() int { h.mu.Lock(); defer h.mu.Unlock(); return len(h.acked) }
	calm := func() {
		t.Helper()
		before := changed()
		testenv.Eventually(t, "15 changes in a calm", func() bool { return t.Failed() || changed() >= before+15 })
	}
	cached := func(host int) {
		t.Helper()
		before := h.count(host, "cache")
		testenv.Eventually(t, fmt.Sprintf("the cache answers host %d", host), func() bool {
			return t.Failed() || h.count(host, "cache") > before+20
		})
	}
	for host := 1; host <= 3; host++ {
		cached(host)
	}
	calm()
	for i, end := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		host := i + 2
		before := h.count(host, "database")
		sidecars[host].end(t, end)
		testenv.Eventually(t, fmt.Sprintf("the database answers host %d without its sidecar", host), func() bool {
			return t.Failed() || h.count(host, "database") > before+20
		})
		sidecars[host] = p.launch(t, host, run)
		p.allIn(t)
		cached(host)
		calm()
	}
	n := changed()
	for host := 1; host <= 3; host++ { // what was changed last is seen everywhere
		testenv.Eventually(t, fmt.Sprintf("host %d shows change %d or a later one", host, n), func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			for m := range h.seen[host] {
				if m >= n {
					return true
				}
			}
			return t.Failed()
		})
	}
}
