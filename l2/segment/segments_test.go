package segment

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestClassesHaveTheirBounds checks that an entry whose TTL is the bound of a class lies in that class, however its
// deadline was rounded, and that one of a longer TTL lies in the next.
func TestClassesHaveTheirBounds(t *testing.T) {
	for class, bound := range classTTL[:len(classTTL)-1] {
		for _, part := range []time.Duration{0, 1, time.Millisecond / 2, time.Millisecond - 1} {
			now := testNow.Boot + part
			if got := classOf(kv.After(now, bound), now); got != class {
				t.Errorf("%v, %v after a ms: class %d, want %d", bound, part, got, class)
			}
			if got := classOf(kv.After(now, bound+time.Millisecond), now); got != class+1 {
				t.Errorf("%v and a ms, %v after a ms: class %d, want %d", bound, part, got, class+1)
			}
		}
	}
	for d, want := range map[kv.Deadline]int{never: classes - 1, kv.MaxDeadline: classes - 2, 1: 0} {
		if got := classOf(d, testNow.Boot); got != want {
			t.Errorf("deadline %d: class %d, want %d", d, got, want)
		}
	}
}
