package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestNothingMovesTheCursor checks that no page and no document contains a stranger's
// characters that move a cursor, end a line or change the direction of text. The document
// still decodes to the same values.
func TestNothingMovesTheCursor(t *testing.T) {
	const evil = "a\x1b[2J\u009b31m\u202e\t\v\n\x7fz"
	var stats cachesidecar.Stats
	var all cachesidecar.ClusterStats
	var list []cachesidecar.Member
	var event client.Event
	var verified cachesidecar.Verified
	var drained cachesidecar.Drained
	var changes cachesidecar.Changes
	var ping pinged
	for _, v := range []any{&stats, &all, &list, &event, &verified, &drained, &changes, &ping} {
		testenv.FillTexts(reflect.ValueOf(v).Elem(), evil)
	}
	stats.L1.Limit, stats.LeaseTokens.Issued = 1, 1
	var out bytes.Buffer
	pages := map[string]func() error{
		"stats":           func() error { out.WriteString(statsText(&stats, nil)); return nil },
		"stats --cluster": func() error { out.WriteString(clusterText(&all)); return nil },
		"verify":          func() error { out.WriteString(verifiedText(&verified)); return nil },
		"members":         func() error { out.WriteString(membersTable(list).String()); return nil },
		"watch":           func() error { return writeEvent(&out, event, false) },
		"changes":         func() error { out.WriteString(feedsText(stats.Changes)); return nil },
		"drain":           func() error { out.WriteString(drainedText(drained, cachesidecar.DrainOptions{Stop: true})); return nil },
		"reload":          func() error { out.WriteString(changesText(changes)); return nil },
		"ping":            func() error { out.WriteString(pingsText(ping)); return nil },
	}
	for _, kind := range []client.Kind{client.Changed, client.Flushed, client.Raised} {
		e := event
		e.Kind = kind
		pages["watch "+kind.String()] = func() error { return writeEvent(&out, e, false) }
	}
	for name, page := range pages {
		out.Reset()
		testenv.Must(t, page())
		if text := out.String(); logs.Lines(text) != text || strings.Contains(text, "\nz") || out.Len() == 0 {
			t.Errorf("%s: %q", name, text)
		}
	}
	for name, v := range map[string]any{"stats": stats, "stats --cluster": all, "members": list} {
		out.Reset()
		testenv.Must(t, writeJSON(&out, v, "  "))
		back := reflect.New(reflect.TypeOf(v))
		if err := json.Unmarshal(out.Bytes(), back.Interface()); err != nil || !reflect.DeepEqual(back.Elem().Interface(), v) {
			t.Errorf("%s: %v: the document means something else", name, err)
		}
		if text := out.String(); logs.Lines(text) != text {
			t.Errorf("%s as JSON: %q", name, text)
		}
	}
	if stats.Node != evil || list[0].Node != evil {
		t.Error("what was shown has been changed")
	}
}
