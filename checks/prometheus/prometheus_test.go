package prometheus

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/checks/sidecars"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { sidecars.Main(m) }

const rules = "../../deploy/prometheus/"

// TestRules has promtool check the configuration and run the tests of the rules.
func TestRules(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		testenv.Needs(t, "there is no promtool: install the Debian package prometheus")
	}
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"}, {"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"},
	} {
		cmd := exec.Command(tool, args...)
		cmd.Dir = rules
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}

// TestDashboardLayout checks the form of the dashboard: each panel says what it shows and in
// which unit, takes its data source from the variable, and covers no other one.
func TestDashboardLayout(t *testing.T) {
	panels, text := dashboard(t)
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range panels {
		if ids[p.ID] {
			t.Errorf("two panels have the number %d", p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x > 23 {
					t.Errorf("%q covers %q, or is too far to the right", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%q lacks a description, a unit, the data source or a query", p.Title)
		}
		for _, target := range p.Targets {
			if target.LegendFormat == "" || !strings.Contains(target.Expr, "$job") {
				t.Errorf("%q: %s has no legend, or is not of the chosen cluster", p.Title, target.Expr)
			}
		}
	}
	for _, name := range []string{"$job", "$instance", "$namespace", "${datasource}"} {
		if !strings.Contains(text, name) {
			t.Errorf("the variable %s is not used", name)
		}
	}
}

// emptyWhenHealthy are panels without a series in the cluster of the test, with the reason.
var emptyWhenHealthy = map[string]string{
	"Writes to origins": "no namespace of the test writes through",
	"Certificates":      "the hosts of the test have no key",
}

// configOf is a Prometheus that scrapes each second, with the rules from a file.
func configOf(rulesFile string, jobs ...string) string {
	return "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [" + rulesFile + "]\nscrape_configs:\n" +
		strings.Join(jobs, "")
}

func job(name string, targets []string, more string) string {
	return fmt.Sprintf("  - {job_name: %s, static_configs: [{targets: [%s]}]%s}\n", name, strings.Join(targets, ", "), more)
}

// quick returns the file of the rules with shorter times: minutes are seconds.
func quick(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(rules + "alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "alerts.yml")
	text := regexp.MustCompile(`(for: |\[)(\d+)m`).ReplaceAllString(string(b), "${1}${2}s")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// traffic makes requests of all kinds on each host.
func traffic(hosts []*sidecars.Sidecar, round int) {
	for _, h := range hosts {
		key := fmt.Sprintf("key-%d-%s", round, h.Node)
		h.Run("set", key, "value")
		for range 3 {
			h.Run("get", "key-0-host-a", "key-0-host-b", "key-0-host-c", key)
		}
		h.Run("get", key, "--ns", "pages")
	}
}

// older serves the metrics of the hosts as an older version would: without the metrics
// that came later.
func older(hosts []*sidecars.Sidecar) *httptest.Server {
	newer := regexp.MustCompile(`(?m)^(# (HELP|TYPE) )?cachesidecar_(ready|max_staleness_seconds|connections_limit|http_connections_limit|no_room_total|certificate_expires_timestamp_seconds)\b.*\n`)
	mux := http.NewServeMux()
	for _, h := range hosts {
		mux.HandleFunc("/"+h.Node, func(w http.ResponseWriter, _ *http.Request) {
			r, err := http.Get("http://" + h.HTTP + "/metrics")
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer r.Body.Close()
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(newer.ReplaceAll(b, nil))
		})
	}
	return httptest.NewServer(mux)
}

// TestCluster scrapes three real hosts: every query of the dashboard, of the rules and of
// METRICS.md is valid and gives something, no alert fires while they are well, and one
// fires when a host dies. The same holds for hosts of an older version, whose panels may
// be empty.
func TestCluster(t *testing.T) {
	hosts := sidecars.Cluster(t, 3, "--config", sidecars.Origin(t))
	old := older(hosts)
	defer old.Close()
	var targets []string
	jobs := []string{""}
	for i, h := range hosts {
		targets = append(targets, h.HTTP)
		jobs = append(jobs, job(fmt.Sprintf("cachesidecar-older-%d", i), []string{strings.TrimPrefix(old.URL, "http://")},
			", metrics_path: /"+h.Node+", relabel_configs: [{target_label: job, replacement: cachesidecar-older}, {target_label: instance, replacement: "+h.Node+"}]"))
	}
	jobs[0] = job("cachesidecar", targets, "")
	p := start(t, configOf(quick(t), jobs...))

	panels, _ := dashboard(t)
	missing := func(job string) (list []string) {
		for _, panel := range panels {
			found := panel.Type == "row"
			for _, target := range panel.Targets {
				n, err := p.query(strings.ReplaceAll(resolve(target.Expr), "cachesidecar.*", job), "")
				if err != nil {
					t.Fatalf("%q: %s: %v", panel.Title, target.Expr, err)
				}
				if _, err := p.query(resolve(target.Expr), "1"); err != nil { // nothing was stored then
					t.Fatalf("%q, of nothing: %s: %v", panel.Title, target.Expr, err)
				}
				found = found || n > 0
			}
			if !found && emptyWhenHealthy[panel.Title] == "" {
				list = append(list, panel.Title)
			}
		}
		return list
	}
	round := 0
	testenv.Succeeds(t, "a series of each panel", func() error {
		round++
		traffic(hosts, round)
		empty, older := missing("cachesidecar"), missing("cachesidecar-older")
		if len(empty) == 0 && slices.Equal(older, []string{"Ready", "Writes without room"}) && round > 6 {
			return nil
		}
		return fmt.Errorf("panels without one: %q; for an older version: %q", empty, older)
	})
	if n, err := p.query("count by (version) (cachesidecar_build_info)", ""); n != 1 || err != nil {
		t.Errorf("%d versions, %v", n, err)
	}
	for _, q := range queries(t) {
		testenv.Eventually(t, "a series of METRICS.md's "+q, func() bool { // a recording rule lags behind
			n, err := p.query(q, "")
			if err != nil {
				t.Fatalf("METRICS.md: %s: %v", q, err)
			}
			return n > 0
		})
	}
	for _, seconds := range []int{30, 60} { // each is less than a test waits
		testenv.Eventually(t, "the slowest rule would have fired", func() bool {
			n, err := p.query(fmt.Sprintf(`min(time() - process_start_time_seconds{job="cachesidecar"}) > %d`, seconds), "")
			return err == nil && n == 1
		})
	}
	// Not from the start on: minutes are seconds here, and the first scrapes come one by one. Alerts are right on a
	// machine that stands still for a second: three of them always, all of them if the hosts notice.
	const (
		healthy = `max_over_time(ALERTS{alertstate="firing", alertname!~"CachesidecarSlow|CachesidecarPaused|CachesidecarDown"}[20s])`
		paused  = `increase(cachesidecar_pauses_total{job="cachesidecar"}[40s]) > 0`
	)
	testenv.Succeeds(t, "no alert in 20 s", func() error {
		n, err := p.query(healthy, "")
		if n == 0 && err == nil {
			return nil
		}
		if pauses, _ := p.query(paused, ""); pauses == 0 {
			t.Fatalf("%d alerts have fired in a healthy cluster, %v: now %q", n, err, p.alerts("firing"))
		}
		return fmt.Errorf("%d alerts have fired, and the machine has stood still: now %q", n, p.alerts("firing"))
	})

	hosts[2].Kill()
	testenv.Eventually(t, "CachesidecarDown fires", func() bool {
		return slices.Contains(p.alerts("firing"), "CachesidecarDown cachesidecar "+hosts[2].HTTP)
	})
	testenv.Eventually(t, "CachesidecarHostMissing fires", func() bool {
		return slices.Contains(p.alerts("firing"), "CachesidecarHostMissing cachesidecar ")
	})
	hosts[2].Start()
	hosts[0].Sees(3)
	testenv.Succeeds(t, "no alert fires", func() error {
		if list := p.alerts("firing"); len(list) > 0 {
			return fmt.Errorf("%q fire", list)
		}
		return nil
	})
}

// queries returns the PromQL of METRICS.md.
func queries(t *testing.T) (list []string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "## Queries")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| [^|`]+ \\| `(.+)` \\|$").FindAllStringSubmatch(section, -1) {
		list = append(list, strings.ReplaceAll(m[1], `\|`, "|"))
	}
	if len(list) < 8 {
		t.Fatalf("METRICS.md has %d queries", len(list))
	}
	return list
}
