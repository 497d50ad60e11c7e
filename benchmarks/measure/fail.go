package measure

import (
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// A measurement gives all of its figures, or it ends: whatever fails in it ends it as a whole. So its functions return
// no errors. They panic with a failure, which Run recovers, and which closes on its way what was open. Goroutines
// return errors.

// failure is why a measurement has ended.
type failure struct{ error }

// Run runs a measurement.
func (b *Bench) Run(ctx context.Context, p record.Parameters, measure func(*Bench, context.Context, record.Parameters)) (err error) {
	return catch(func() {
		defer b.scope()()
		measure(b, ctx, p)
	})
}

// catch returns the failure of a function.
func catch(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.error
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

// check ends the measurement if there is an error.
func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// fail ends the measurement.
func fail(format string, args ...any) { check(fmt.Errorf(format, args...)) }

// must returns a value, unless there is an error.
func must[T any](v T, err error) T {
	check(err)
	return v
}

// within runs a part of the measurement, whose failures say in which.
func within(part string, f func()) {
	if err := catch(f); err != nil {
		fail("%s: %w", part, err)
	}
}

// scope returns a function that closes what is opened from now on, the last first.
func (b *Bench) scope() (end func()) {
	from := len(b.open)
	return func() {
		for len(b.open) > from {
			last := len(b.open) - 1
			end := b.open[last]
			b.open = b.open[:last]
			end()
		}
	}
}

// closes has the scope close something.
func (b *Bench) closes(end func()) { b.open = append(b.open, end) }
