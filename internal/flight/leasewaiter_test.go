package flight

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// A waiter that leaves after it has its answer gets the answer, and one that has left none.
func TestLeaveAfterTheAnswer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLeases(t), &versions{}
		c := Claim{Key: keyOf("a"), Begin: v.begin}
		token := mustClaim(t, l, c)
		var got []Grant
		var errs []error
		waiter := func() *LeaseWaiter {
			w := &LeaseWaiter{Tell: func(g Grant, err error, _ func(func())) { got, errs = append(got, g), append(errs, err) }}
			if _, waits, err := l.Queue(c, w); !waits || err != nil {
				t.Fatalf("waits %v, %v", waits, err)
			}
			return w
		}
		first, second, third := waiter(), waiter(), waiter()
		if !l.Leave(second) || l.Leave(second) {
			t.Error("the second one has not left, or twice")
		}
		l.Abandon(token)
		if l.Leave(first) {
			t.Error("the first one has left with the token")
		}
		synctest.Wait()
		if len(got) != 1 || !got[0].HasToken() {
			t.Fatalf("%+v", got)
		}
		token = got[0].Token
		l.End(func(kv.Hash) bool { return true })
		if l.Leave(third) {
			t.Error("the third one has left after its answer")
		}
		l.Abandon(token) // to none of those that have their answers
		synctest.Wait()
		if len(errs) != 2 || !errors.Is(errs[1], ErrAgain) {
			t.Errorf("%v", errs)
		}
		early := &LeaseWaiter{}
		l.Leave(early)
		token = mustClaim(t, l, c)
		if _, waits, err := l.Queue(c, early); waits || err == nil {
			t.Errorf("one that has left before waits: %v, %v", waits, err)
		}
		l.Abandon(token)
		l.check(t)
	})
}
