package origin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// What the configuration says wrongly is refused. What a server says of it now is a state of the
// namespace, since it may be mended there at any time: the server is asked again until it has agreed
// once, and loads, writes and listings try it meanwhile.

// Bounds of the waits between two checks of an origin that has not agreed yet.
const (
	CheckTime  = 5 * time.Second // that a check may take
	checkLeast = time.Second
	checkMost  = 30 * time.Second
)

// Run asks the server whether the settings fit it until it says so, until a load shows that they do, until
// ctx ends, or until the origin is closed.
func (o *Origin) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(o.end, cancel)()
	for n := 0; o.checks != nil; n++ {
		err := o.Check(ctx)
		switch {
		case ctx.Err() != nil || o.end.Err() != nil:
			return
		case err == nil:
			o.agree()
		default:
			_ = o.report(o.checks, err)
		}
		select {
		case <-o.agreed:
			o.checks.succeeded() // also after a failure that was noted later than a load's success
			return
		case <-time.After(checkLeast + loader.Backoff(n, checkLeast, checkMost-checkLeast, rand.Float64())):
		case <-ctx.Done():
			return
		}
	}
}

// agree notes that the server has shown that the settings fit it.
func (o *Origin) agree() { o.agreeing.Do(func() { close(o.agreed) }) }

// loaded notes the result of a load, which shows as much as a check does if that is a load, too.
func (o *Origin) loaded(err error) {
	if len(o.checkers) == 0 && (err == nil || errors.Is(err, loader.ErrAbsent)) {
		o.agree()
	}
}

// Agrees waits until the server has shown that the settings fit it, or until the origin is closed. It
// returns false if ctx ends before.
func (o *Origin) Agrees(ctx context.Context) bool {
	select {
	case <-o.agreed:
	case <-o.end.Done():
	case <-ctx.Done():
		return false
	}
	return true
}

// Check asks the server whether the settings fit it, if that costs it nothing.
func (o *Origin) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, CheckTime)
	defer cancel()
	for _, c := range o.checkers {
		if err := c.Check(ctx); err != nil {
			return o.hide.Hide(err)
		}
	}
	if o.opened.Probe {
		return o.probe(ctx)
	}
	return nil
}

// AskOnce asks the server once, whatever that costs. The server's answer that it has no such key is a
// success. The limits of the namespace do not count.
func (o *Origin) AskOnce(ctx context.Context) error {
	if len(o.checkers) > 0 || o.opened.Probe {
		return o.Check(ctx)
	}
	return o.probe(ctx)
}

// probes are keys for a question to an origin that has nothing to check. The first one that the
// namespace lets pass is asked for. If it lets none pass, nothing is asked: an invented key that the
// namespace refuses reaches no origin.
var probes = []string{"cachesidecar-check", "check", "a", "A", "0", "1", "00000000-0000-0000-0000-000000000000"}

// CanAsk reports whether AskOnce asks anything.
func (o *Origin) CanAsk() bool { return len(o.checkers) > 0 || o.probeKey() >= 0 }

// probeKey returns the place in probes of the first key that the namespace lets pass, or -1.
func (o *Origin) probeKey() int {
	return slices.IndexFunc(probes, func(key string) bool { return o.Keys.Check([]byte(key)) == nil })
}

func (o *Origin) probe(ctx context.Context) error {
	i := o.probeKey()
	if i < 0 {
		return nil
	}
	_, err := o.opened.Load(ctx, []byte(probes[i]))
	err = o.hide.Hide(err)
	refused := errors.Is(err, loader.ErrPermanent)
	switch {
	case loader.Answered(err) && (o.opened.Probe || !refused): // a refusal of this key alone may be its type's
		return nil
	case refused:
		return fmt.Errorf("%w (it was asked for the key %q)", err, probes[i])
	}
	return err
}
