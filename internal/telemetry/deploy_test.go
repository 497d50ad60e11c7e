package telemetry

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// known returns the names of all metrics, with the series of histograms.
func known() map[string]bool {
	families := map[string][]row{}
	visit(reflect.TypeFor[page](), newPlan(reflect.TypeFor[page](), nil), "", nil, families)
	names := map[string]bool{}
	for name := range families {
		names[MetricPrefix+name] = true
	}
	for _, h := range histograms {
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			names[MetricPrefix+h.name+suffix] = true
		}
	}
	return names
}

// read returns a file of the project.
func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", path))
	testenv.Must(t, err)
	return string(b)
}

// TestNamedMetricsExist checks that the dashboard, the rules and the pages name only metrics
// that exist, and that the dashboard or the rules use most of those.
func TestNamedMetricsExist(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	testenv.Must(t, err)
	files := []string{"deploy/grafana/cachesidecar.json", "deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml", "README.md"}
	for _, page := range pages {
		files = append(files, strings.TrimPrefix(filepath.ToSlash(page), "../../"))
	}
	names, used := known(), map[string]bool{}
	for _, file := range files {
		for _, m := range regexp.MustCompile(`\bcachesidecar_[a-z0-9_]+\b`).FindAllString(read(t, file), -1) {
			if !names[m] && !strings.HasPrefix(m, "cachesidecar_user") {
				t.Errorf("%s names %s, which does not exist", file, m)
			}
			if strings.HasPrefix(file, "deploy/") {
				used[m] = true
			}
		}
	}
	if len(used) < 55 {
		t.Errorf("the dashboard and the rules use %d metrics, want 55 or more", len(used))
	}
}

// TestAlertsAreDocumented checks that each alert has a section in ALERTS.md, to which it
// leads, a test that fires it, a severity and texts; and that each section has an alert.
func TestAlertsAreDocumented(t *testing.T) {
	rules, tests, page := read(t, "deploy/prometheus/alerts.yml"), read(t, "deploy/prometheus/alerts_test.yml"), read(t, "docs/ALERTS.md")
	blocks := strings.Split(rules, "      - alert: ")[1:]
	if len(blocks) < 30 {
		t.Fatalf("%d alerts", len(blocks))
	}
	var names []string
	for _, block := range blocks {
		name, _, _ := strings.Cut(block, "\n")
		names = append(names, name)
		for _, want := range []string{"severity: ", "summary: ", "description: ", "docs/ALERTS.md#" + strings.ToLower(name) + "\n"} {
			if !strings.Contains(block, want) {
				t.Errorf("%s has no %q", name, want)
			}
		}
		if !strings.Contains(tests, "- name: "+name+" fires\n") {
			t.Errorf("no test in alerts_test.yml fires %s", name)
		}
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(page, -1) {
		sections = append(sections, m[1])
	}
	if !slices.Equal(sections, names) {
		t.Errorf("sections of ALERTS.md: %q\nalerts: %q", sections, names)
	}
}

// selector matches a metric with its labels.
var selector = regexp.MustCompile(`\bcachesidecar_([a-z0-9_]+)\{([^}]*)\}`)

// TestNamedLabelsExist checks that the dashboard, the rules and their tests select by labels
// that a metric has, and by values that the label has, where those are fixed.
func TestNamedLabelsExist(t *testing.T) {
	families := map[string][]row{}
	visit(reflect.TypeFor[page](), newPlan(reflect.TypeFor[page](), nil), "", nil, families)
	for _, h := range histograms {
		families[h.name+"_bucket"] = []row{{labels: h.labels + ", `le`"}}
	}
	values := map[string][]string{ // of labels whose values are keys of maps
		"state": strings.Fields("in out drained missing left refused unknown"), "result": nil, "op": nil, "tier": nil,
	}
	found := 0
	for _, file := range []string{
		"deploy/grafana/cachesidecar.json", "deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml", "docs/METRICS.md",
	} {
		text := strings.ReplaceAll(read(t, file), `\`, "") // of JSON, and of Markdown
		for _, m := range selector.FindAllStringSubmatch(text, -1) {
			rows := families[m[1]]
			for _, pair := range regexp.MustCompile(`(\w+)(=~|!=|=)"([^"]*)"`).FindAllStringSubmatch(m[2], -1) {
				label, value := pair[1], pair[3]
				if slices.Contains([]string{"job", "instance"}, label) {
					continue
				}
				found++
				var all string
				for _, r := range rows {
					all += r.labels + ","
				}
				if !strings.Contains(all, "`"+label+"`") && !strings.Contains(all, "`"+label+"=") {
					t.Errorf("%s: %s has no label %s", file, m[0], label)
					continue
				}
				for _, v := range strings.Split(value, "|") {
					fixed := strings.Contains(all, "`"+label+"=")
					if fixed && !strings.Contains(all, "`"+label+"="+v+"`") || values[label] != nil && !slices.Contains(values[label], v) {
						t.Errorf("%s: %s: the label %s has no value %q", file, m[0], label, v)
					}
				}
			}
		}
	}
	if found < 150 {
		t.Errorf("%d selections by label, want 150 or more", found)
	}
}
