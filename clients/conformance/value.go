package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// The marks of the encodings, in the low 8 bits of flags.
const (
	markBytes   = 0
	markInteger = 2
	markText    = 16
	markMsgpack = 32
)

// value is a key or a value of a call, with its type. Of and Count, a text that is repeated,
// are for the files only: the manifest has the text.
type value struct {
	Text    *string         `json:"text,omitempty"`
	Bin     *string         `json:"bin,omitempty"` // hex
	Int     *string         `json:"int,omitempty"`
	Msgpack json.RawMessage `json:"msgpack,omitempty"`
	Of      string          `json:"of,omitempty"`
	Count   int             `json:"count,omitempty"`
	Error   bool            `json:"error,omitempty"` // of a loader: it fails
}

// spell replaces Of and Count by the text.
func (v *value) spell() {
	if v != nil && v.Of != "" {
		text := strings.Repeat(v.Of, v.Count)
		*v = value{Text: &text}
	}
}

// encode returns the bytes of a value and its mark.
func (v *value) encode() ([]byte, uint32, error) {
	switch {
	case v == nil:
		return nil, 0, nil
	case v.Of != "":
		return []byte(strings.Repeat(v.Of, v.Count)), markText, nil
	case v.Text != nil:
		return []byte(*v.Text), markText, nil
	case v.Bin != nil:
		b, err := hex.DecodeString(*v.Bin)
		return b, markBytes, err
	case v.Int != nil:
		return []byte(*v.Int), markInteger, nil
	case v.Msgpack == nil:
		return nil, 0, fmt.Errorf("a value without a type: give text, bin, int or msgpack")
	}
	x, err := v.structured()
	if err != nil {
		return nil, 0, err
	}
	var b bytes.Buffer
	e := msgpack.NewEncoder(&b)
	e.UseCompactInts(true)
	e.SetSortMapKeys(true)
	err = e.Encode(x)
	return b.Bytes(), markMsgpack, err
}

// bytes is encode for what a file says, which a test has checked.
func (v *value) bytes() []byte {
	b, _, err := v.encode()
	if err != nil {
		panic(err)
	}
	return b
}

// structured returns the Go value of the JSON in msgpack.
func (v *value) structured() (any, error) {
	d := json.NewDecoder(bytes.NewReader(v.Msgpack))
	d.UseNumber()
	var x any
	if err := d.Decode(&x); err != nil {
		return nil, err
	}
	return fromJSON(x)
}

func fromJSON(x any) (any, error) {
	var err error
	switch x := x.(type) {
	case json.Number:
		if strings.ContainsAny(x.String(), ".eE") {
			return x.Float64()
		}
		return x.Int64()
	case []any:
		for i := range x {
			if x[i], err = fromJSON(x[i]); err != nil {
				return nil, err
			}
		}
		return x, nil
	case map[string]any:
		if s, ok := x["$bin"].(string); ok {
			return hex.DecodeString(s)
		}
		if s, ok := x["$time"].(string); ok {
			return time.Parse(time.RFC3339Nano, s)
		}
		if s, ok := x["$int"].(string); ok {
			n, ok := new(big.Int).SetString(s, 10)
			if ok && n.IsUint64() {
				return n.Uint64(), nil
			}
			if !ok || !n.IsInt64() {
				return nil, fmt.Errorf("%q is no number of 64 bits", s)
			}
			return n.Int64(), nil
		}
		for k := range x {
			if x[k], err = fromJSON(x[k]); err != nil {
				return nil, err
			}
		}
	}
	return x, nil
}

// plain returns a text that is equal for equal values, whatever form their numbers have:
// a client of a language with one kind of numbers writes 2.0 as 2.
func plain(x any) string {
	switch x := x.(type) {
	case float32:
		return plain(float64(x))
	case float64:
		if n := big.NewFloat(x); n.IsInt() {
			return n.Text('f', 0)
		}
		return fmt.Sprint(x)
	case int8, int16, int32, int64, uint8, uint16, uint32, uint64, int, uint:
		return fmt.Sprint(x)
	case []byte:
		return fmt.Sprintf("bin %x", x)
	case string:
		return fmt.Sprintf("%q", x)
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano)
	case []any:
		parts := make([]string, len(x))
		for i := range x {
			parts[i] = plain(x[i])
		}
		return "[" + strings.Join(parts, " ") + "]"
	case map[string]any:
		m := map[any]any{}
		for k, v := range x {
			m[k] = v
		}
		return plain(m)
	case map[any]any:
		parts := make([]string, 0, len(x))
		for k, v := range x {
			parts = append(parts, plain(k)+": "+plain(v))
		}
		return "{" + strings.Join(sorted(parts), ", ") + "}"
	}
	return fmt.Sprint(x)
}

// is reports whether bytes with a mark are this value.
func (v *value) is(b []byte, mark uint32) error {
	want, wantMark, err := v.encode()
	if err != nil {
		return err
	}
	if mark &= 0xff; mark != wantMark {
		return fmt.Errorf("the mark is %d, want %d; the bytes are %x", mark, wantMark, b)
	}
	if bytes.Equal(b, want) {
		return nil
	}
	if mark == markMsgpack {
		x, err := v.structured()
		if err != nil {
			return err
		}
		got, err := decodeMsgpack(b)
		if err == nil && plain(x) == plain(got) {
			return nil
		}
		return fmt.Errorf("%x is %s, want %s (%v)", b, plain(got), plain(x), err)
	}
	return fmt.Errorf("the bytes are %x, want %x", b, want)
}

func decodeMsgpack(b []byte) (any, error) {
	d := msgpack.NewDecoder(bytes.NewReader(b))
	d.UseLooseInterfaceDecoding(true)
	d.SetMapDecoder(func(d *msgpack.Decoder) (any, error) { return d.DecodeUntypedMap() })
	x, err := d.DecodeInterface()
	if err == nil && d.Buffered().(*bytes.Reader).Len() > 0 {
		err = fmt.Errorf("bytes follow the value")
	}
	return x, err
}
