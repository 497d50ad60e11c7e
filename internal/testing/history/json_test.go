package history

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// golden is a history with every field, as Encode writes it.
const golden = `{"history":1,"bound":2000000000,"slack":1,"late":2,"load":3,"lossless":true}
{"excuse":"split","from":4,"to":5}
{"excuse":"stall","from":6,"to":7}
{"excuse":"outage","from":8,"to":9}
{"op":"set","key":"k","host":"n0.1","number":1,"began":10,"ended":11,"all":true,"ttl":12,"timeout":13,"note":"a note"}
{"op":"set","outcome":"unavailable","key":"k","number":2,"began":14,"ended":15,"origin":true,"committed":16}
{"op":"read","key":"k","number":1,"began":17,"ended":18,"fresh":true,"gone":true}
{"op":"read","outcome":"absent","key":"k","began":17,"ended":18}
{"op":"delete","outcome":"unknown","key":"k","began":19,"ended":19}
{"op":"touch","key":"k","began":20,"ended":21,"ttl":22}
{"op":"incr","outcome":"not stored","key":"c","number":3,"began":23,"ended":24,"initial":3}
{"op":"flush","host":"n0.1","began":25,"ended":26}
`

func TestGolden(t *testing.T) {
	h, err := Decode(strings.NewReader(golden))
	testenv.Must(t, err)
	want := Rules{Bound: 2 * s, Slack: 1, Late: 2, Load: 3, Lossless: true, Excuses: []Excuse{{Split, 4, 5}, {Stall, 6, 7}, {Outage, 8, 9}}}
	if !reflect.DeepEqual(h.Rules, want) {
		t.Errorf("the rules are %+v, want %+v", h.Rules, want)
	}
	if o := (Op{Set, Done, "k", "n0.1", 1, 10, 11, false, true, 12, 0, false, 0, 13, false, "a note"}); h.Ops[0] != o || len(h.Ops) != 8 {
		t.Errorf("the first of %d is %+v, want %+v", len(h.Ops), h.Ops[0], o)
	}
	var b bytes.Buffer
	if err := h.Encode(&b); err != nil || b.String() != golden {
		t.Errorf("%v, got\n%s\nwant\n%s", err, b.String(), golden)
	}
	for o := range Outcomes {
		if o.String() == "" {
			t.Errorf("outcome %d has no word", o)
		}
	}
}

// An unknown outcome needs no end: no app may have seen it.
func TestDecodeWithoutEnd(t *testing.T) {
	h, err := Decode(strings.NewReader(`{"history":1,"bound":1}` + "\n" + `{"op":"set","key":"k","outcome":"unknown","number":1,"began":7}`))
	if err != nil || h.Ops[0].Ended != 7 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const first = `{"history":1,"bound":1}` + "\n"
	for _, tc := range []struct{ name, lines, want string }{
		{"nothing", "", "there is no line"},
		{"no header", `{"op":"read","key":"k","began":1,"ended":2}`, "line 1: json: unknown field"},
		{"another version", `{"history":2}`, "line 1: the version is 2, want 1"},
		{"a bound below zero", `{"history":1,"bound":-1}`, "line 1: a time is below zero"},
		{"no JSON", first + `x`, "line 2: invalid character"},
		{"an empty line", first + "\n", "line 2: EOF"},
		{"no op", first + `{"key":"k","began":1,"ended":2}`, "line 2: there is no op"},
		{"another op", first + `{"op":"cas","key":"k","began":1,"ended":2}`, `line 2: op "cas": give one of ["read"`},
		{"another outcome", first + `{"op":"read","outcome":"good","key":"k","began":1}`, `line 2: outcome "good": give one of ["done"`},
		{"another excuse", first + `{"excuse":"rain","from":1,"to":2}`, `line 2: excuse "rain": give one of ["split"`},
		{"an unknown field", first + `{"op":"read","keys":"k","began":1,"ended":2}`, `line 2: json: unknown field "keys"`},
		{"no key", first + `{"op":"read","began":1,"ended":2}`, "line 2: each op has a key"},
		{"a key of a flush", first + `{"op":"flush","key":"k","began":1,"ended":2}`, "line 2: each op has a key"},
		{"an end before the begin", first + `{"op":"read","key":"k","began":2,"ended":1}`, "line 2: it ends before it begins"},
		{"a time below zero", first + `{"op":"read","key":"k","began":-1,"ended":1}`, "line 2: a time is below zero"},
		{"a touch without a TTL", first + `{"op":"touch","key":"k","began":1,"ended":2}`, "line 2: a touch has a TTL"},
		{"an excuse that ends before", first + `{"excuse":"split","from":2,"to":1}`, "line 2: an excuse has"},
		{"an excuse with an op", first + `{"excuse":"split","from":1,"to":2,"op":"read","key":"k"}`, "line 2: an excuse has"},
		{"an op with a part of an excuse", first + `{"op":"read","key":"k","began":1,"ended":2,"to":3}`, "line 2: from and to are of an excuse"},
		{"two objects", first + `{"op":"flush","began":1,"ended":2} {}`, "line 2: something stands behind"},
		{"a long line", first + `{"op":"read","note":"` + strings.Repeat("x", maxLine), "token too long"},
	} {
		if _, err := Decode(strings.NewReader(tc.lines)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// FuzzDecode: what is read is judged without a crash, and is read again from what is written.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(`{"history":1}` + "\n" + `{"op":"incr","key":"k","number":-9223372036854775808,"initial":-9223372036854775808,"began":1,"ended":2}`))
	f.Add([]byte(`{"history":1,"late":9223372036854775807}` + "\n" + `{"op":"set","key":"k","ttl":9223372036854775807,"outcome":"old","began":9223372036854775807}` + "\n" + `{"op":"read","key":"k","began":1,"ended":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := Decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		_ = Lines(h.Check())
		_ = h.Rules.Answers(h.Ops, time.Second)
		var b bytes.Buffer
		testenv.Must(t, h.Encode(&b))
		again, err := Decode(&b)
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("%v: read again it is %+v, was %+v", err, again, h)
		}
	})
}
