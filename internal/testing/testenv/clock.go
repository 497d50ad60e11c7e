package testenv

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Patience is how long a test waits for what must come. It bounds a hang: a test that passes
// measures nothing by it.
const Patience = time.Minute

// Deadline is the end of Patience, for what takes a moment: a connection, say.
func Deadline() time.Time { return time.Now().Add(Patience) }

// Expired tells in a select that Patience is over.
func Expired() <-chan time.Time { return time.After(Patience) }

// Context returns the context of the test, which ends after Patience too.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// Background returns a context that ends after Patience, for what is done once the test's own has ended.
func Background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), Patience)
}

// Eventually waits until ok, which it asks again and again, and fails the test after Patience.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	Succeeds(t, what, func() error {
		if !ok() {
			return errors.New("it is not so")
		}
		return nil
	})
}

// Succeeds waits until do, which it calls again and again, returns no error, and fails the
// test with its last error after Patience. The pauses between the calls grow: a long wait
// leaves the machine to others.
func Succeeds(t testing.TB, what string, do func() error) {
	t.Helper()
	end, pause := Deadline(), 2*time.Millisecond
	for err := do(); err != nil; err = do() {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s: %v", Patience, what, err)
		}
		time.Sleep(pause)
		pause = min(pause*5/4, 50*time.Millisecond)
	}
}

// Date is the present as a date, for certificates, versions, names and seeds. No duration is
// measured from it.
func Date() time.Time { return time.Now() }

// ReadsClock says that a test depends on the machine's clock, why, and which duration it
// counts on. Without it no test may read the clock but by this package or in virtual time,
// and "make clocks" lists those that do. It has no effect.
func ReadsClock(t testing.TB, bound time.Duration, why string) {}
