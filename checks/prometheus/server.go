// Package prometheus holds the dashboard, the rules and the queries of the handbook to a
// real Prometheus that scrapes real sidecars.
package prometheus

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/checks/sidecars"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// server is a running Prometheus.
type server struct {
	t    testing.TB
	url  string
	file string // its configuration
}

// start starts Prometheus with a configuration. It ends with the test.
func start(t testing.TB, config string) *server {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		testenv.Needs(t, "there is no prometheus: install the Debian package prometheus")
	}
	dir := t.TempDir()
	p := &server{t: t, file: filepath.Join(dir, "prometheus.yml")}
	if err := os.WriteFile(p.file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", sidecars.Ports(t, 1)[0])
	p.url = "http://" + address
	cmd := exec.Command(path, "--config.file="+p.file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=error")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	testenv.Eventually(t, "prometheus is ready", func() bool {
		r, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return p
}

// api asks Prometheus, and decodes the data of its answer.
func (p *server) api(path string, query url.Values, data any) error {
	r, err := http.Get(p.url + "/api/v1/" + path + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %w", body, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s", answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}

// query returns how many series an expression gives, now or at a time.
func (p *server) query(expr, at string) (int, error) {
	q := url.Values{"query": {expr}}
	if at != "" {
		q.Set("time", at)
	}
	var data struct{ Result []json.RawMessage }
	err := p.api("query", q, &data)
	return len(data.Result), err
}

// alerts returns the alerts of a state.
func (p *server) alerts(state string) (names []string) {
	p.t.Helper()
	var data struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	if err := p.api("alerts", nil, &data); err != nil {
		p.t.Fatal(err)
	}
	for _, a := range data.Alerts {
		if a.State == state {
			names = append(names, a.Labels["alertname"]+" "+a.Labels["job"]+" "+a.Labels["instance"])
		}
	}
	return names
}

// panel is a panel of the dashboard.
type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Datasource               struct{ UID string }
	Targets                  []struct{ Expr, LegendFormat string }
}

// dashboard returns the panels of the dashboard that is shipped, and its text.
func dashboard(t testing.TB) (panels []panel, text string) {
	t.Helper()
	b, err := os.ReadFile("../../deploy/grafana/cachesidecar.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct{ Panels []panel }
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d.Panels, string(b)
}

// resolve replaces the variables of the dashboard, as Grafana does for "All".
func resolve(expr string) string {
	return strings.NewReplacer("$job", "cachesidecar.*", "$instance", ".*", "$namespace", ".*",
		"$__rate_interval", "15s").Replace(expr)
}
