package telemetry

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// plan says how the values of one struct type become metrics. It follows the tags that
// cachesidecar.Stats describes. A plan is made once; a scrape only reads values.
type plan struct {
	labels []int // the fields that are labels of all series below
	series []series
	parts  []part
}

// series is a field that is a metric. The field of a map is one series for each key.
type series struct {
	field     int
	name      string // of the metric, without MetricPrefix
	labels    []string
	values    []string // of the labels that the tag names; the key of a map comes last
	json      string
	divisor   float64
	omitempty bool
	desc      *prometheus.Desc
	kind      prometheus.ValueType
}

// part is a field with metrics of its own: a struct, or a list of structs.
type part struct {
	field  int
	plan   *plan
	ifSet  int // the field of the part that decides; -1: none
	negate bool
}

// newPlan makes the plan of a type. labels are the names of the labels from above.
func newPlan(t reflect.Type, labels []string) *plan {
	p := new(plan)
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("label"); name != "" {
			p.labels, labels = append(p.labels, i), append(slices.Clip(labels), name)
		}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		of := f.Type
		if of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		switch tag := f.Tag.Get("metric"); {
		case tag != "":
			p.series = append(p.series, newSeries(i, f, tag, labels))
		case of.Kind() == reflect.Struct:
			if sub := newPlan(of, labels); len(sub.series)+len(sub.parts) > 0 {
				p.parts = append(p.parts, newPart(i, f, of, sub))
			}
		}
	}
	return p
}

func newPart(i int, f reflect.StructField, of reflect.Type, sub *plan) part {
	q := part{field: i, plan: sub, ifSet: -1}
	if tag := f.Tag.Get("if"); tag != "" {
		name, negate := strings.CutPrefix(tag, "!")
		decides, ok := of.FieldByName(name)
		if !ok {
			panic(fmt.Sprintf("telemetry: the tag of %s names no field of %s", f.Name, of))
		}
		q.ifSet, q.negate = decides.Index[0], negate
	}
	return q
}

// newSeries parses a tag: name{label=value,...},omitempty.
func newSeries(i int, f reflect.StructField, tag string, labels []string) series {
	s := series{field: i, divisor: 1, kind: prometheus.GaugeValue}
	tag, s.omitempty = strings.CutSuffix(tag, ",omitempty")
	name, pairs, _ := strings.Cut(strings.TrimSuffix(tag, "}"), "{")
	s.name, s.labels = name, slices.Clone(labels)
	if pairs != "" {
		for pair := range strings.SplitSeq(pairs, ",") {
			label, value, _ := strings.Cut(pair, "=")
			s.labels = append(s.labels, label)
			if value != "*" {
				s.values = append(s.values, value)
			}
		}
	}
	if strings.HasSuffix(name, "_total") {
		s.kind = prometheus.CounterValue
	}
	s.json, _, _ = strings.Cut(f.Tag.Get("json"), ",")
	switch {
	case strings.HasSuffix(s.json, "_ms"):
		s.divisor = 1e3
	case strings.HasSuffix(s.json, "_us"):
		s.divisor = 1e6
	}
	help := helpOf[name]
	if help == "" {
		panic("telemetry: the metric " + name + " has no help text")
	}
	s.desc = prometheus.NewDesc(MetricPrefix+name, help, s.labels, nil)
	return s
}

// collect emits the series of a struct. labels are the values of the labels from above.
func (p *plan) collect(v reflect.Value, labels []string, ch chan<- prometheus.Metric) {
	for _, i := range p.labels {
		labels = append(slices.Clip(labels), v.Field(i).String())
	}
	for i := range p.series {
		p.series[i].collect(v.Field(p.series[i].field), labels, ch)
	}
	for i := range p.parts {
		q := &p.parts[i]
		if f := v.Field(q.field); f.Kind() == reflect.Slice {
			for j := range f.Len() {
				q.collect(f.Index(j), labels, ch)
			}
		} else {
			q.collect(f, labels, ch)
		}
	}
}

func (q *part) collect(v reflect.Value, labels []string, ch chan<- prometheus.Metric) {
	if q.ifSet < 0 || v.Field(q.ifSet).IsZero() == q.negate {
		q.plan.collect(v, labels, ch)
	}
}

func (ser *series) collect(v reflect.Value, labels []string, ch chan<- prometheus.Metric) {
	values := append(slices.Clip(labels), ser.values...)
	if v.Kind() == reflect.Map {
		for key, n := range v.Seq2() {
			ser.emit(n, append(slices.Clip(values), key.String()), ch)
		}
		return
	}
	if !ser.omitempty || !v.IsZero() {
		ser.emit(v, values, ch)
	}
}

func (ser *series) emit(v reflect.Value, labels []string, ch chan<- prometheus.Metric) {
	n := 0.0
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			n = 1
		}
	case reflect.Float64:
		n = v.Float()
	default:
		n = float64(v.Int())
	}
	ch <- prometheus.MustNewConstMetric(ser.desc, ser.kind, n/ser.divisor, labels...)
}
