package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// HistoryVersion is the version of the lines that Decode understands. A history is one JSON object
// a line; times are nanoseconds since any moment that the whole history shares.
//
// The first line has the version and the Rules:
//
//	{"history":1,"bound":2000000000}
//
// Each later line is an operation or an Excuse, in any order. The fields are those of Op; op,
// key (but for a flush) and began are needed, and ended if the outcome is known. A field that
// is missing is zero, and the outcome then is done:
//
//	{"op":"set","key":"k","host":"a","number":1,"began":10,"ended":20}
//	{"op":"set","key":"k","host":"a","number":2,"began":30,"outcome":"unknown"}
//	{"op":"read","key":"k","host":"b","number":1,"began":40,"ended":50,"fresh":true}
//	{"excuse":"split","from":60,"to":70}
const HistoryVersion = 1

// maxLine bounds a line.
const maxLine = 1 << 20

// History is a recorded history.
type History struct {
	Rules Rules
	Ops   []Op
	words map[string]string // of Decode: each key and host once
}

// Check judges it.
func (h *History) Check() []Verdict { return Check(h.Rules, h.Ops) }

// header is the first line.
type header struct {
	History int `json:"history"` // the version
	Rules
}

// line is any later line: an operation or an excuse.
type line struct {
	Op
	Excuse
}

// Encode writes a history, one line for each operation.
func (h *History) Encode(w io.Writer) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	err := e.Encode(header{HistoryVersion, h.Rules})
	for i := range h.Rules.Excuses {
		err = errors.Join(err, e.Encode(h.Rules.Excuses[i]))
	}
	for i := range h.Ops {
		err = errors.Join(err, e.Encode(&h.Ops[i]))
	}
	return errors.Join(err, b.Flush())
}

// Decode reads a history. The operations may be in any order.
func Decode(r io.Reader) (*History, error) {
	h := &History{words: map[string]string{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	begun, read := false, h.begin
	for n := 1; lines.Scan(); n++ {
		if err := read(lines.Bytes()); err != nil {
			return nil, fmt.Errorf("line %d: %w: %.200s", n, err, lines.Bytes())
		}
		begun, read = true, h.add
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	h.words = nil
	if !begun {
		return nil, errors.New("there is no line: the first one has the version and the rules")
	}
	return h, nil
}

// begin reads the first line.
func (h *History) begin(data []byte) error {
	var first header
	if err := decode(data, &first); err != nil {
		return err
	}
	if first.History != HistoryVersion {
		return fmt.Errorf("the version is %d, want %d", first.History, HistoryVersion)
	}
	h.Rules = first.Rules
	if r := &h.Rules; min(r.Bound, r.Slack, r.Late, r.Load) < 0 {
		return errors.New("a time is below zero")
	}
	return nil
}

// add reads a later line.
func (h *History) add(data []byte) error {
	l := line{Op{Kind: none}, Excuse{Reason: none}}
	if err := decode(data, &l); err != nil {
		return err
	}
	if l.Reason != none {
		h.Rules.Excuses = append(h.Rules.Excuses, l.Excuse)
		if l.Kind != none || l.Op != (Op{Kind: none}) || l.To < l.From {
			return errors.New("an excuse has a reason, and a time that ends after it begins")
		}
		return nil
	}
	o := l.Op
	if o.unknown() && o.Ended == 0 {
		o.Ended = o.Began
	}
	o.Key, o.Host = h.word(o.Key), h.word(o.Host)
	h.Ops = append(h.Ops, o)
	switch {
	case l.Excuse != (Excuse{Reason: none}):
		return errors.New("from and to are of an excuse")
	case o.Kind == none:
		return errors.New("there is no op, and no excuse")
	case (o.Key == "") != (o.Kind == Flush):
		return errors.New("each op has a key, but for a flush")
	case o.Ended < o.Began:
		return errors.New("it ends before it begins")
	case min(o.Began, o.TTL, o.Timeout, o.Committed) < 0:
		return errors.New("a time is below zero")
	case o.Kind == Touch && o.TTL == 0:
		return errors.New("a touch has a TTL")
	}
	return nil
}

// word returns the one copy of a word.
func (h *History) word(s string) string {
	w, ok := h.words[s]
	if !ok {
		w = s
		h.words[s] = s
	}
	return w
}

// none is a Kind or Reason that no line has given.
const none = 255

func decode(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("something stands behind the object")
	}
	return nil
}

// The words of a line.

func (k Kind) MarshalText() ([]byte, error)    { return []byte(k.String()), nil }
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }
func (r Reason) MarshalText() ([]byte, error)  { return []byte(r.String()), nil }

func (k *Kind) UnmarshalText(text []byte) error    { return parse(k, "op", kinds, text) }
func (o *Outcome) UnmarshalText(text []byte) error { return parse(o, "outcome", outcomes, text) }
func (r *Reason) UnmarshalText(text []byte) error  { return parse(r, "excuse", reasons, text) }

func parse[T ~uint8](into *T, what string, words []string, text []byte) error {
	i := slices.Index(words, string(text))
	if i < 0 {
		return fmt.Errorf("%s %q: give one of %q", what, text, words)
	}
	*into = T(i)
	return nil
}
