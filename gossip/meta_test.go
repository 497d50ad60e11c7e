package gossip

import (
	"bytes"
	"encoding/hex"
	"log/slog"
	"strings"
	"testing"
)

var someMeta = Meta{Address: "10.0.0.1:7947", Epoch: 0x0102030405060708, Weight: 8192, MinVersion: 1, MaxVersion: 2, In: true, State: 5}

// goldenMeta is what nodes of this version send; nodes of other versions must read
// it.
const goldenMeta = "97" + "ad31302e302e302e313a37393437" + "cf0102030405060708" + "cd2000" + "01" + "02" + "c3" + "05"

func TestMetaBytes(t *testing.T) {
	b, err := someMeta.encode()
	if got := hex.EncodeToString(b); got != goldenMeta || err != nil {
		t.Errorf("encoded %s, %v; want %s", got, err, goldenMeta)
	}
	if got, err := decodeMeta(b); got != someMeta || err != nil {
		t.Errorf("decoded %+v, %v; want %+v", got, err, someMeta)
	}
	later := append([]byte{0x99}, b[1:]...) // two fields more, one of them nested
	later = append(later, 0x07, 0x92, 0x91, 0xc0, 0xa1, 'x')
	if got, err := decodeMeta(later); got != someMeta || err != nil {
		t.Errorf("of a later version: %+v, %v; want %+v", got, err, someMeta)
	}
}

func TestMetaIsBounded(t *testing.T) {
	m := someMeta
	m.Address = strings.Repeat("x", maxMeta)
	if b, err := m.encode(); err == nil || !strings.Contains(err.Error(), "give a shorter peer address") {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := New(Config{Node: "a", Bind: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler), Meta: m}); err == nil {
		t.Error("New took it")
	}
}

func TestMetaGarbage(t *testing.T) {
	whole, _ := hex.DecodeString(goldenMeta)
	for name, b := range map[string][]byte{
		"nothing":             {},
		"text":                []byte("role=web"),
		"nil":                 {0xc0},
		"a map":               append([]byte{0x87}, whole[1:]...),
		"one field too few":   append([]byte{0x96}, whole[1:]...),
		"no fields":           {0x97},
		"nested arrays":       bytes.Repeat([]byte{0x91}, maxMeta),
		"arrays for fields":   append([]byte{0x97}, bytes.Repeat([]byte{0x97}, maxMeta-1)...),
		"a huge array":        {0xdd, 0xff, 0xff, 0xff, 0xff},
		"a huge string":       {0x97, 0xdb, 0xff, 0xff, 0xff, 0xff},
		"a negative epoch":    {0x97, 0xa0, 0xff, 0x01, 0x01, 0x01, 0xc3, 0x01},
		"a weight too large":  {0x97, 0xa0, 0x01, 0xcf, 1, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x01, 0xc3, 0x01},
		"a number for a bool": {0x97, 0xa0, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01},
		"too long":            append(append([]byte{0x98}, whole[1:]...), make([]byte, maxMeta)...),
	} {
		if m, err := decodeMeta(b); err == nil || m != (Meta{}) {
			t.Errorf("%s: decoded %+v, %v", name, m, err)
		}
	}
	for k := range whole {
		if _, err := decodeMeta(whole[:k]); err == nil {
			t.Errorf("the first %d bytes of %d were enough", k, len(whole))
		}
	}
}

// FuzzMeta: nothing panics or uses much memory. What decodes is the same after it is
// encoded and decoded again.
func FuzzMeta(f *testing.F) {
	whole, _ := hex.DecodeString(goldenMeta)
	f.Add(whole)
	f.Add([]byte{0x97, 0xdb, 0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat([]byte{0x91}, maxMeta))
	f.Add(append([]byte{0xdc, 0x00, 0x07}, whole[1:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			if m != (Meta{}) {
				t.Errorf("an error, and %+v", m)
			}
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatalf("%+v does not encode: %v", m, err)
		}
		if got, err := decodeMeta(again); got != m || err != nil {
			t.Errorf("%+v became %+v, %v", m, got, err)
		}
	})
}
