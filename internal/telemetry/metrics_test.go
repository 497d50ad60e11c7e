package telemetry

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var update = flag.Bool("update", false, "write docs/METRICS.md anew")

const intro = `# Metrics

` + "`http`" + ` serves these metrics at /metrics, for Prometheus. Their names begin with ` + "`" + MetricPrefix + "`" + `,
and those of counters end in ` + "`_total`" + `. Prometheus' client adds metrics of Go (` + "`go_`" + `) and of the
process (` + "`process_`" + `).

A metric of several rows has in the first one its label and the beginning of its fields. Each other row has a
value of that label, which is also the end of its field unless there is another. "Field" is the same value in
the [answer to STATS](#the-answer-to-stats), "to do" what a value means for you. [ALERTS.md](ALERTS.md) has the
alerts, and deploy/ has rules for Prometheus and a dashboard for Grafana.

A metric is missing where it has no meaning: on a host that is alone those of the cluster, except
` + "`members`" + `; those of keys, HTTP and the log if the host has none; ` + "`requests_total`" + ` of what was
not requested; and those of an origin, a key filter, write-through or a warm start of a namespace without one.

## Queries

| what | PromQL |
|---|---|
| hit ratio of a cluster | ` + "`cachesidecar:hit_ratio`" + ` |
| hits by tier, per second | ` + "`sum by (job, tier) (rate(cachesidecar_requests_total{result=\"hit\"}[5m]))`" + ` |
| reads per second by namespace | ` + "`sum by (job, namespace) (rate(cachesidecar_requests_total{op=~\"GET\\|MGET\\|LEASE\\|METAGET\"}[5m]))`" + ` |
| 99th percentile of batches | ` + "`histogram_quantile(0.99, sum by (job, le) (rate(cachesidecar_batch_duration_seconds_bucket[5m])))`" + ` |
| loads per second | ` + "`sum by (job, namespace) (rate(cachesidecar_loads_total{result=~\"loaded\\|absent\\|failed\"}[5m]))`" + ` |
| the oldest lease, as a share of the bound | ` + "`1 - min by (job, instance) (cachesidecar_lease_remaining_seconds) / on (job, instance) cachesidecar_max_staleness_seconds`" + ` |
| partitions without an owner | ` + "`16384 - sum by (job) (cachesidecar_partitions_owned)`" + ` |
| memory of the entries, of its limit | ` + "`cachesidecar_memory_bytes{tier=\"l2\"} / cachesidecar_memory_limit_bytes{tier=\"l2\"}`" + ` |

` + "`cachesidecar:hit_ratio`" + ` is a recording rule of deploy/prometheus/alerts.yml. Write ` + "`|`" + ` for
` + "`\\|`" + `.

## The metrics

| metric | labels | field | meaning | to do |
|---|---|---|---|---|
`

const introStats = `
## The answer to STATS

` + "`cachesidecar stats --json`" + ` prints the fields of the metrics above, and those below. A row that ends in
a point has the beginning of the names that follow. Brackets stand for each element of a list.
With ` + "`--cluster`" + ` the document has ` + "`nodes`" + `, a list of the same for each host, and ` + "`missing`" + `,
a list of hosts that did not answer, with ` + "`node` and `why`" + `.

Each key that is read counts once, on the host whose app has asked: as a hit if the value was in the cache,
here, at its owner or in the app; as loaded if the origin was asked for it; as a miss, as stale or as an error.
The hit ratio is the share of the hits in the sum of all five. Four times a second apps report what they read in
[shared memory](SHARED_MEMORY.md#what-is-counted) and in near caches; the counts believe them.

Sizes are in bytes, fields in ` + "`_ms` and `_us`" + ` milliseconds and microseconds. Counts begin with the
start of the sidecar.

| field | meaning |
|---|---|
`

// histograms have no field in page.
var histograms = []struct{ name, labels, help string }{
	{"batch_duration_seconds", "", batchHelp},
	{"load_duration_seconds", "`namespace`", namespaces.LoadTimeHelp},
}

// TestGoldenMetrics compares docs/METRICS.md with the tags and the help texts. It also
// checks that each help text has a metric.
func TestGoldenMetrics(t *testing.T) {
	families, docs := map[string][]row{}, comments(t)
	visit(reflect.TypeFor[page](), newPlan(reflect.TypeFor[page](), nil), "", docs, families)
	for _, h := range histograms {
		families[h.name] = []row{{labels: h.labels, comment: h.help}}
	}
	var page strings.Builder
	page.WriteString(intro)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if adviceOf[name] == "" {
			t.Errorf("%s has no advice", name)
		}
		writeFamily(&page, name, families[name])
	}
	page.WriteString(introStats)
	writeFields(t, &page, reflect.TypeFor[cachesidecar.Stats](), "", docs)
	for _, texts := range []map[string]string{helpOf, adviceOf} {
		for name := range texts {
			if families[name] == nil {
				t.Errorf("%s has a text, and no field has it", name)
			}
		}
	}
	file := filepath.Join("..", "..", "docs", "METRICS.md")
	if *update {
		testenv.Must(t, os.WriteFile(file, []byte(page.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	testenv.Must(t, err)
	if page.String() != string(want) {
		t.Errorf("%s is not what the tags say: run make golden", file)
	}
}

// row describes a series.
type row struct{ labels, path, comment string }

// visit lists the series of a type by the names of their metrics.
func visit(t reflect.Type, p *plan, path string, docs map[string]string, families map[string][]row) {
	for i := range p.series {
		s, f := &p.series[i], t.Field(p.series[i].field)
		named := len(s.labels) - len(s.values)
		var labels []string
		for j, label := range s.labels {
			if j >= named {
				label += "=" + s.values[j-named]
			}
			labels = append(labels, "`"+label+"`")
		}
		r := row{strings.Join(labels, ", "), "", docs[t.Name()+"."+f.Name]}
		if s.json != "" {
			r.path = path + s.json
		}
		families[s.name] = append(families[s.name], r)
	}
	for _, q := range p.parts {
		f := t.Field(q.field)
		of, below := f.Type, path
		if name := f.Tag.Get("json"); name != "" {
			below += name
			if of.Kind() == reflect.Slice {
				below += "[]"
			}
			below += "."
		}
		if of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		visit(of, q.plan, below, docs, families)
	}
}

// writeFamily writes the rows of a metric: one, or one for all and one for each series. What the labels
// and the fields of all series begin with stands in the first one.
func writeFamily(w io.Writer, name string, rows []row) {
	help, advice := helpOf[name], strings.TrimPrefix(adviceOf[name], "–")
	if len(rows) == 1 {
		r := rows[0]
		writeRow(w, code(name), r.labels, code(r.path), cmp.Or(r.comment, help), advice)
		return
	}
	labels, path := rows[0].labels, rows[0].path
	for _, r := range rows[1:] {
		labels, path = common(labels, r.labels, "="), common(path, r.path, ".")
	}
	writeRow(w, code(name), strings.TrimSuffix(labels, "=")+"`", code(path), help, advice)
	for _, r := range rows {
		label, field := "`"+r.labels[len(labels):], code(r.path[len(path):])
		if field == label {
			field = ""
		}
		writeRow(w, "", label, field, r.comment, "")
	}
}

// writeRow writes a row without the empty cells at its end.
func writeRow(w io.Writer, cells ...string) {
	for len(cells) > 0 && cells[len(cells)-1] == "" {
		cells = cells[:len(cells)-1]
	}
	for _, c := range cells {
		fmt.Fprint(w, strings.TrimSuffix("| "+c, " "), " ")
	}
	fmt.Fprintln(w, "|")
}

// common returns what two texts begin with, up to the last separator.
func common(a, b, separator string) string {
	for i := strings.LastIndex(a, separator); i >= 0; i = strings.LastIndex(a[:i], separator) {
		if begins := a[:i+len(separator)]; strings.HasPrefix(b, begins) {
			return begins
		}
	}
	return ""
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// writeFields writes a row for each field in the answer to STATS that no metric has: of a struct first its
// own, after the beginning of their names, and then those of its parts.
func writeFields(t *testing.T, w io.Writer, in reflect.Type, path string, docs map[string]string) {
	var own, names []string
	for i := range in.NumField() {
		f := in.Field(i)
		if elementOf(f.Type).Kind() == reflect.Struct {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Type.Kind() == reflect.Slice {
			name += "[]"
		}
		if doc := docs[in.Name()+"."+f.Name]; doc == "" {
			t.Errorf("%s.%s has no comment", in, f.Name)
		} else if f.Tag.Get("metric") == "" {
			own, names = append(own, doc), append(names, name)
		}
	}
	if len(own) > 1 && path != "" {
		fmt.Fprintf(w, "| `%s` | |\n", path)
	}
	for i, doc := range own {
		if len(own) == 1 {
			names[i] = path + names[i]
		}
		fmt.Fprintf(w, "| `%s` | %s |\n", names[i], doc)
	}
	for i := range in.NumField() {
		f := in.Field(i)
		if of := elementOf(f.Type); of.Kind() == reflect.Struct {
			below := path
			if name := f.Tag.Get("json"); name != "" { // else it is embedded
				below += name
				if f.Type.Kind() == reflect.Slice {
					below += "[]"
				}
				below += "."
			}
			writeFields(t, w, of, below, docs)
		}
	}
}

// elementOf returns the type of a list's elements, or the type itself.
func elementOf(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Slice {
		return t.Elem()
	}
	return t
}

// quoted is a word in quotes; the page has it as code.
var quoted = regexp.MustCompile(`"(\w+)"`)

// comments returns the comments of the fields of the root package's types, by type and
// field.
func comments(t *testing.T) map[string]string {
	files, err := filepath.Glob(filepath.Join("..", "..", "*stats.go"))
	testenv.Must(t, err)
	docs := map[string]string{}
	for _, name := range append(files, "metrics.go") {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		testenv.Must(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			for _, field := range fieldsOf(spec) {
				docs[spec.Name.Name+"."+field.Names[0].Name] = quoted.ReplaceAllString(strings.Join(strings.Fields(field.Doc.Text()), " "), "`$1`")
			}
			return false
		})
	}
	return docs
}

func fieldsOf(spec *ast.TypeSpec) []*ast.Field {
	s, ok := spec.Type.(*ast.StructType)
	if !ok {
		return nil
	}
	return slices.DeleteFunc(s.Fields.List, func(f *ast.Field) bool { return len(f.Names) == 0 })
}

// TestPlan checks each rule of the tags with a struct that has all of them.
func TestPlan(t *testing.T) {
	helpOf["a"], helpOf["b_total"], helpOf["c_seconds"] = "A.", "B.", "C."
	defer func() { delete(helpOf, "a"); delete(helpOf, "b_total"); delete(helpOf, "c_seconds") }()
	type part struct {
		On    bool
		Value int64 `metric:"b_total{x=1,y=2}"`
	}
	type element struct {
		Name string           `label:"name"`
		Kind string           `label:"kind"`
		N    int64            `metric:"a,omitempty"`
		By   map[string]int64 `metric:"b_total{by=*}"`
		Took int64            `json:"took_us" metric:"c_seconds"`
	}
	type all struct {
		Flag    bool    `metric:"a"`
		Share   float64 `metric:"a"`
		Age     int64   `json:"age_ms" metric:"c_seconds"`
		If, Not part
		On      part `if:"On"`
		Off     part `if:"!On"`
		List    []element
	}
	v := all{
		Flag: true, Share: 0.5, Age: 1500, On: part{true, 3}, Off: part{true, 4},
		List: []element{{"n", "k", 0, map[string]int64{"z": 7}, 2}, {"o", "k", 8, nil, 0}},
	}
	ch := make(chan prometheus.Metric, 100)
	newPlan(reflect.TypeFor[all](), nil).collect(reflect.ValueOf(v), nil, ch)
	close(ch)
	var got []string
	for m := range ch {
		got = append(got, written(t, m))
	}
	want := []string{
		"gauge  1", "gauge  0.5", "gauge  1.5", "counter x=1 y=2 0", "counter x=1 y=2 0", "counter x=1 y=2 3",
		"counter by=z kind=k name=n 7", "gauge kind=k name=n 2e-06", "gauge kind=k name=o 8", "gauge kind=k name=o 0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for name, broken := range map[string]any{
		"no help": struct {
			A int64 `metric:"unheard_of"`
		}{},
		"no field": struct {
			P part `if:"Nothing"`
		}{},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			newPlan(reflect.TypeOf(broken), nil)
		}()
	}
}

// written returns the type, the labels and the value of a metric.
func written(t *testing.T, m prometheus.Metric) string {
	t.Helper()
	var d dto.Metric
	testenv.Must(t, m.Write(&d))
	var labels []string
	for _, l := range d.Label {
		labels = append(labels, l.GetName()+"="+l.GetValue())
	}
	kind := "gauge"
	if d.Counter != nil {
		kind = "counter"
	}
	return fmt.Sprintf("%s %s %v", kind, strings.Join(labels, " "), d.GetCounter().GetValue()+d.GetGauge().GetValue())
}
