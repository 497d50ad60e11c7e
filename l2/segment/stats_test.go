package segment

import (
	"bytes"
	"reflect"
	"testing"
)

// TestCountersAdd checks that each counter of a shard is added, but for that of the entries taken over, which
// only the shard itself is asked for.
func TestCountersAdd(t *testing.T) {
	var one, sum counters
	n := int64(0)
	fields := reflect.VisibleFields(reflect.TypeOf(one))
	at := func(c *counters, f reflect.StructField) *int64 {
		field := reflect.ValueOf(c).Elem().FieldByIndex(f.Index)
		return (*int64)(field.Addr().UnsafePointer())
	}
	for _, f := range fields {
		if !f.Anonymous {
			n++
			*at(&one, f) = n
		}
	}
	sum.add(&one)
	sum.add(&one)
	for _, f := range fields {
		if !f.Anonymous && f.Name != "taken" && *at(&sum, f) != 2**at(&one, f) {
			t.Errorf("%s of %d and %[2]d is %d", f.Name, *at(&one, f), *at(&sum, f))
		}
	}
}

// TestMovesOfAChain checks that each move of a long value between the queues counts once, as does its end.
func TestMovesOfAChain(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	k := testKey("big")
	mustPut(t, s, "big", Write{Value: make([]byte, 300<<10)})
	want := moves{Admitted: 1, Chains: 1}
	for _, step := range []struct {
		name                        string
		reads                       int
		promoted, reinserted, ended int64
	}{{"new, read once", 1, 0, 1, 0}, {"read often", promoteHits, 1, 1, 0}, {"read once", 1, 1, 2, 0}, {"not read", 0, 1, 2, 1}} {
		for range step.reads {
			s.Get(nil, k, NoLimit, testNow.Boot)
		}
		sh := s.shard(k.Hash)
		sh.evictOne(testNow.Boot, false, sh.holds())
		want.Reinserted, want.SegmentEvictions = step.reinserted, step.ended
		if st := s.Stats(); st.Promoted != step.promoted || st.Evicted != step.ended || st.moves != want {
			t.Errorf("%s: %d promoted, %d evicted, %+v", step.name, st.Promoted, st.Evicted, st.moves)
		}
	}
}

// TestLayoutOfEmbedded checks that the hash of the layout tells two structs apart that embed structs of one
// name and size.
func TestLayoutOfEmbedded(t *testing.T) {
	var first, second bytes.Buffer
	{
		type Counts struct{ Expired, Evicted int64 }
		type outer struct{ Counts }
		describe(&first, reflect.TypeFor[outer]())
	}
	{
		type Counts struct{ Evicted, Expired int64 }
		type outer struct{ Counts }
		describe(&second, reflect.TypeFor[outer]())
	}
	if first.String() == second.String() {
		t.Errorf("two structs are described by\n%s", first.String())
	}
}
