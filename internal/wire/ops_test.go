package wire

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestRowsOfAllOps: the row of each op of apps says what its caller needs; without that it is refused to all.
func TestRowsOfAllOps(t *testing.T) {
	for op := range OpCount {
		switch f := ops[op]; {
		case (op > 0 && op < opsOfApps || op.Peer()) != op.Known():
			t.Errorf("op %d is known: %v", op, op.Known())
		case (f.need != NeedUnsaid) != (op.Known() && !op.Peer()):
			t.Errorf("%s needs %d", op, f.need)
		case (f.with != 0) != (f.then != NeedUnsaid), f.with&^f.options != 0, f.is&writesIf != 0 && f.with == 0:
			t.Errorf("%s: options %x, needs %d with %x", op, f.options, f.then, f.with)
		case f.is&oneKey != 0 && f.is&manyKeys != 0, f.is&anywhere != 0 && f.is&reads == 0:
			t.Errorf("%s is %x", op, f.is)
		}
	}
}

// TestFeatures: an op that not every sidecar serves is served by one whose HELLO names it, all others by every one.
func TestFeatures(t *testing.T) {
	if !slices.Equal(Features, []string{"shared"}) {
		t.Errorf("HELLO names the ops %v", Features)
	}
	for _, names := range [][]string{nil, {"other"}, {"other", "shared"}} {
		w := &Welcome{Features: names}
		if w.Serves(OpShared) != slices.Contains(names, "shared") || !w.Serves(OpHits) {
			t.Errorf("with the features %v SHARED is served: %v, HITS: %v", names, w.Serves(OpShared), w.Serves(OpHits))
		}
	}
}

// TestWhatOpsAre turns the table over: the ops of each bit, by name. A bit that is lost or gained in a row changes
// what a client repeats, what is refused once its caller has given it up, and what counts, in silence.
func TestWhatOpsAre(t *testing.T) {
	writes := func(with Options) func(Op) bool {
		return func(o Op) bool { return (&Request{Op: o, Options: with}).Writes() }
	}
	for name, tc := range map[string]struct {
		is   func(Op) bool
		want string
	}{
		"again":    {Op.Repeatable, "PING GET MGET LEASE STATS MEMBERS RING"},
		"watched":  {Op.Watched, "GET MGET SET DELETE TOUCH INCR LEASE FILL FLUSH METAGET"},
		"anywhere": {Op.Lookup, "GET MGET LEASE"},
		"reads":    {Op.Reads, "GET MGET LEASE METAGET"},
		"local":    {Op.OfApps, "HELLO WATCH DRAIN RELOAD KEYS HOT SLOW LEAVING SHARED HITS"},
		"writes":   {writes(0), "SET DELETE TOUCH INCR FILL"},
		"abandons": {writes(Abandon), ""},
		"touches":  {writes(Touch), "SET DELETE TOUCH INCR FILL METAGET"},
		"claims":   {writes(Claim), "SET DELETE TOUCH INCR FILL METAGET"},
		"one key":  {func(o Op) bool { return subjects(o) == 1 }, "GET SET TOUCH INCR LEASE FILL METAGET"},
		"all keys": {func(o Op) bool { return subjects(o) == 2 }, "MGET DELETE"},
	} {
		var got []string
		for op := range OpCount {
			if tc.is(op) {
				got = append(got, op.String())
			}
		}
		if got := strings.Join(got, " "); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// subjects returns how many of a key and a list of two an op is about.
func subjects(o Op) int {
	return (&Request{Op: o, Key: []byte("k"), Keys: [][]byte{[]byte("k"), []byte("l")}}).Subjects()
}

// TestRightsInDocs: the ops of each right, and what an option changes about that, are those of docs/PROTOCOL.md.
func TestRightsInDocs(t *testing.T) {
	doc := protocolDoc(t, "### Rights")
	for right, tc := range map[string]struct {
		needs []Need
		also  string // ops of the line that need this right with an option, or in a part of the configuration
	}{
		"none":                       {needs: []Need{NeedNone}},
		"read, in any one namespace": {needs: []Need{NeedReadAny}},
		"read, in the namespace":     {needs: []Need{NeedRead}},
		"write, in the namespace":    {[]Need{NeedWrite}, "METAGET FLUSH"},
		"admin, in the namespace":    {needs: []Need{NeedFlush, NeedInspect}},
		"admin of the sidecar":       {[]Need{NeedRule}, "FLUSH STATS"},
	} {
		want := slices.Concat(strings.Fields(tc.also))
		for o := OpHello; o < opsOfApps; o++ {
			if slices.Contains(tc.needs, (&Request{Op: o}).Need()) {
				want = append(want, o.String())
			}
		}
		row := doc[right]
		if got := opsIn(row); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: PROTOCOL.md has %v, the table %v", right, got, want)
		}
	}
	for _, tc := range []struct {
		op   Op
		with Options
		want Need
	}{
		{OpMetaGet, Touch, NeedWrite}, {OpMetaGet, Claim, NeedWrite}, {OpMetaGet, NoValue | Unread, NeedRead},
		{OpFlush, All, NeedRule}, {OpFlush, All | Cluster, NeedRule}, {OpFlush, Cluster, NeedFlush},
		{OpStats, Cluster, NeedRule}, {OpWatch, All, NeedReadAny},
		{OpHot, All, NeedInspectAny}, {OpSlow, All, NeedInspectAny},
	} {
		if got := (&Request{Op: tc.op, Options: tc.with}).Need(); got != tc.want {
			t.Errorf("%s with options %d needs %d, want %d", tc.op, tc.with, got, tc.want)
		}
	}
}

// TestOptionsInDocs: each op takes the options that docs/PROTOCOL.md gives it.
func TestOptionsInDocs(t *testing.T) {
	want := map[string]Options{"DELETE": LateWrite} // between sidecars
	for bit, ops := range protocolDoc(t, "### Options") {
		n, err := strconv.ParseUint(bit, 10, 32)
		if err != nil {
			continue // the head
		}
		for _, op := range opsIn(ops) {
			want[op] |= Options(n)
		}
	}
	for op := range OpCount {
		if got, want := ops[op].options, want[op.String()]; got != want {
			t.Errorf("%s takes the options %d, and PROTOCOL.md gives it %d", op, got, want)
		}
	}
}

// protocolDoc returns the first table behind a heading of PROTOCOL.md: by its first column, the others. Rows with the
// same first column are joined.
func protocolDoc(t *testing.T, heading string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(text), heading+"\n")
	rows := map[string]string{}
	for line := range strings.Lines(part) {
		first, rest, is := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		switch {
		case strings.HasPrefix(line, "|"):
			if is {
				rows[first] += rest
			}
		case len(rows) > 0:
			return rows
		}
	}
	t.Fatalf("PROTOCOL.md has no table below %q", heading)
	return nil
}

var opName = regexp.MustCompile(`\b[A-Z]{3,}\b`)

// opsIn returns the ops that a text names, sorted. TTL and MISS are none.
func opsIn(text string) []string {
	known, found := map[string]bool{}, map[string]bool{}
	for op := range OpCount {
		known[op.String()] = op.Known()
	}
	for _, name := range opName.FindAllString(text, -1) {
		if known[name] {
			found[name] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}
