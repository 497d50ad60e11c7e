package wire

import (
	"slices"
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
