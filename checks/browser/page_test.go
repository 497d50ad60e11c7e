package browser

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cachesidecar/cachesidecar/checks/sidecars"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { sidecars.Main(m) }

var shots = flag.String("shots", "", "write screenshots into this folder")

const axePath = "node_modules/axe-core/axe.min.js"

// browse starts Chromium. It returns a tab, and what the tab's console has complained about.
func browse(t *testing.T) (tab context.Context, complaints func() []string) {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		testenv.Needs(t, "there is no chromium: install the Debian package chromium")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.UserDataDir(t.TempDir()), chromedp.Env("TMPDIR="+t.TempDir()),
		chromedp.WSURLReadTimeout(time.Minute))
	alloc, stop := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(alloc)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); end() })
	var mu sync.Mutex
	var list []string
	if err := chromedp.Listen(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			list = append(list, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			list = append(list, e.Entry.Text+" "+e.Entry.URL)
		}
	}); err != nil {
		t.Fatalf("chromium does not start: %v", err)
	}
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return list
	}
}

// do runs actions in a tab.
func do(t *testing.T, tab context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	run(t, tab, chromedp.Steps(actions...))
}

// run runs an action in a tab, and returns its value.
func run[T any](t *testing.T, tab context.Context, action chromedp.Action[T]) T {
	t.Helper()
	ctx, cancel := context.WithCancel(tab)
	defer cancel()
	defer context.AfterFunc(testenv.Context(t), cancel)()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// call sends a command to the browser.
func call[P any](command cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, command, params)
		return err
	})
}

// eval evaluates an expression in a tab.
func eval[T any](t *testing.T, tab context.Context, expression string) T {
	t.Helper()
	return run(t, tab, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// until waits until an expression is true in a tab.
func until(t *testing.T, tab context.Context, expression string) {
	t.Helper()
	testenv.Succeeds(t, expression, func() error {
		if !eval[bool](t, tab, expression) {
			return errors.New("the page: " + eval[string](t, tab, "document.body.innerText"))
		}
		return nil
	})
}

// serve serves the page of a crowd at an address.
func serve(t *testing.T, address string, c *crowd) (url string, stop func()) {
	t.Helper()
	s, err := httpd.New(httpd.Config{
		Address: address, MaxConns: 64, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		Ready: func() (string, bool) { return "ok", true }, Snapshot: c.snapshot,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return "http://" + s.Addr().String() + "/", stop
}

// look is a way to look at the page.
type look struct {
	name          string
	width, height int64
	dark          bool
}

var looks = []look{
	{"light", 1280, 1600, false}, {"dark", 1280, 1600, true}, {"phone", 360, 740, false}, {"phone-dark", 360, 740, true},
}

// as sets how a tab looks at pages.
func (l look) as() chromedp.Action[chromedp.Void] {
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	return chromedp.Steps(
		chromedp.EmulateViewport(l.width, l.height),
		call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		}),
	)
}

// TestPageOfMany looks at a host of 50 with 256 namespaces and hostile names: nothing runs
// that a name brings, all is readable, and an accessibility check finds nothing.
func TestPageOfMany(t *testing.T) {
	axe, err := os.ReadFile(axePath)
	if err != nil {
		testenv.Needs(t, "there is no axe-core: run \"npm ci\" in checks/browser")
	}
	tab, complaints := browse(t)
	url, _ := serve(t, "127.0.0.1:0", &crowd{})
	for _, l := range looks {
		do(t, tab, l.as(), chromedp.Navigate(url))
		until(t, tab, `document.getElementById("live").textContent.startsWith("Live")`)
		if eval[bool](t, tab, `"hacked" in window`) {
			t.Fatalf("%s: a name was run as a script", l.name)
		}
		text := eval[string](t, tab, "document.body.textContent")
		for _, want := range []string{
			Hostile[0], Hostile[1], Hostile[2], `line\ndata: <b>event</b>\n\n`, `\u202eright to left`, Hostile[5],
			"host-49", "224 more are read less", "32 more", "not joined", "49 in", "1 missing",
		} {
			if l.name == "light" && !strings.Contains(text, want) {
				t.Errorf("%q is not on the page:\n%s", want, text)
			}
		}
		if over := eval[int](t, tab, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			t.Errorf("%s: the page is %d pixels wider than the window", l.name, over)
		}
		check(t, tab, l.name, string(axe))
		picture(t, tab, l.name)
	}
	if list := complaints(); len(list) > 0 {
		t.Errorf("the console complains: %q", list)
	}
}

// check runs the accessibility check. It looks at the page as it stands: what comes later
// would change under it.
func check(t *testing.T, tab context.Context, name, axe string) {
	t.Helper()
	do(t, tab, chromedp.Evaluate[chromedp.Void](axe+"; 0"))
	found := eval[string](t, tab, `axe.run(document, {resultTypes: ["violations", "passes"]}).then(r => JSON.stringify(
		{violations: r.violations.map(v => ({id: v.id, help: v.help, nodes: v.nodes.slice(0, 3).map(n => n.html)})),
		 passes: r.passes.length}))`)
	var result struct {
		Violations []json.RawMessage
		Passes     int
	}
	if err := json.Unmarshal([]byte(found), &result); err != nil {
		t.Fatal(err)
	}
	if len(result.Violations) > 0 || result.Passes < 10 {
		t.Errorf("%s: %d rules hold; broken: %s", name, result.Passes, result.Violations)
	}
}

// picture writes a screenshot of the whole page.
func picture(t *testing.T, tab context.Context, name string) {
	t.Helper()
	if *shots == "" {
		return
	}
	png := run(t, tab, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(*shots, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestPageWithoutScript checks that the first document has everything, and asks for nothing
// else: one request, of 100 KB at most.
func TestPageWithoutScript(t *testing.T) {
	tab, _ := browse(t)
	url, _ := serve(t, "127.0.0.1:0", &crowd{})
	var mu sync.Mutex
	var asked []string
	var size int64
	if err := chromedp.Listen(tab, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			asked = append(asked, e.Request.URL)
		case *network.EventDataReceived:
			size += e.DataLength
		}
	}); err != nil {
		t.Fatal(err)
	}
	scripts := func(off bool) chromedp.Action[chromedp.Void] {
		return call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: off})
	}
	do(t, tab, call(network.Enable, network.EnableParams{}), scripts(true), looks[0].as(), chromedp.Navigate(url),
		scripts(false)) // so that the test may look; the page's own script has not run
	text := eval[string](t, tab, "document.body.innerText")
	for _, want := range []string{"As of ", "Where reads were answered", "host-49", "service-255", "postgres", "since the start"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not on the page without a script:\n%s", want, text)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 1 || size == 0 || size > 100_000 {
		t.Errorf("requests: %q, %d bytes; want one, of 100,000 at most", asked, size)
	}
	t.Logf("the page of 50 hosts and 256 namespaces has %d bytes", size)
}

// TestPageLives checks that figures change by themselves, that what a person has selected
// stays, and that the page says when its figures are old.
func TestPageLives(t *testing.T) {
	tab, _ := browse(t)
	c := &crowd{}
	url, stop := serve(t, testenv.FreeAddress(t), c)
	do(t, tab, chromedp.Navigate(url))
	eval[int](t, tab, `getSelection().selectAllChildren(document.querySelector("h1")); window.loaded = 1`)
	entries := eval[string](t, tab, `document.querySelectorAll(".value")[6].textContent`)
	until(t, tab, fmt.Sprintf(`document.querySelectorAll(".value")[6].textContent !== %q`, entries))
	until(t, tab, `document.querySelectorAll("polyline").length === 6`)
	if got := eval[string](t, tab, "getSelection().toString()"); got != Hostile[0] {
		t.Errorf("after an update %q is selected", got)
	}
	stop()
	until(t, tab, `document.getElementById("live").textContent.startsWith("No connection since")`)
	serve(t, strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/"), c)
	until(t, tab, `document.getElementById("live").textContent.startsWith("Live")`)
	if !eval[bool](t, tab, "window.loaded === 1") {
		t.Error("the page was loaded again")
	}
}

// TestPageOfRealHosts looks at one of three real sidecars while it works, and while another
// one dies.
func TestPageOfRealHosts(t *testing.T) {
	hosts := sidecars.Cluster(t, 3, "--config", sidecars.Origin(t))
	for i := range 30 {
		key := fmt.Sprint("key-", i)
		hosts[0].Run("set", key, "value")
		hosts[0].Run("get", key)
		hosts[0].Run("get", key, "--ns", "pages")
		hosts[0].Run("get", "absent-"+key)
	}
	tab, complaints := browse(t)
	do(t, tab, looks[0].as(), chromedp.Navigate("http://"+hosts[0].HTTP+"/"))
	row := func(name string) string {
		return eval[string](t, tab, fmt.Sprintf(
			`[...document.querySelectorAll("tbody tr")].find(r => r.cells[0].textContent.startsWith(%q))?.innerText ?? ""`, name))
	}
	for name, want := range map[string]string{
		"host-a": "this host", "host-b": " ms", "host-c": " ms", "own entries": " %", "pages": " %", "L1": "64 MiB",
	} {
		if got := row(name); !strings.Contains(got, want) {
			t.Errorf("the row of %s: %q, want %q", name, got, want)
		}
	}
	body := eval[string](t, tab, "document.body.innerText")
	for _, want := range []string{"3 in.", "of 16,384 partitions", "http", "closed"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q on the page:\n%s", want, body)
		}
	}
	picture(t, tab, "real")
	hosts[2].Kill()
	until(t, tab, `document.body.innerText.includes("1 missing")`)
	picture(t, tab, "real-missing")
	if list := complaints(); len(list) > 0 {
		t.Errorf("the console complains: %q", list)
	}
}
