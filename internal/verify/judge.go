package verify

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// The rules that an answer may break, as people read them.
const (
	unwritten   = "a value that no app has written"
	ownWrite    = "read your writes" // no read returns a value after its host has acknowledged what ended it
	notFresh    = "fresh"            // nor if the owner is asked for a fresh value
	beyondBound = "the bound"        // nor through any host, more than LiveConfig.Bound after it
)

// moment is a time with its place in the order of all begins and ends. The order decides: times may
// be equal.
type moment struct {
	at    time.Duration
	order int64
}

var never = moment{math.MaxInt64, math.MaxInt64}

// write is a write of a key. It ends the values of those before it, if these were surely stored when it
// began: one of unknown outcome may take effect late, but once.
type write struct {
	number       int64
	began, acked moment
	sure         moment // by when it was surely stored: it was acknowledged, or read
	ended        time.Duration
}

// wrong is a read that has returned what it must not.
type wrong struct {
	rule  string        // the one that is broken; empty: none
	by    *write        // what had ended the value
	stale time.Duration // how long ago, at least, the value had been ended when the read began
}

// judge judges a read that ends now, and has found a number. Later operations never change a verdict:
// what has ended a value, and what shows that the value was stored before, has itself ended before the
// read began.
func (v *Live) judge(k *liveKey, r *reader, fresh bool, number int64, now moment) (found wrong) {
	at := slices.IndexFunc(k.writes, func(w *write) bool { return w.number == number })
	switch {
	case at < 0 && number > 0 && number <= k.forgotten:
		return wrong{rule: beyondBound, stale: v.cfg.Bound + 1}
	case at < 0:
		return wrong{rule: unwritten}
	}
	w := k.writes[at]
	for _, e := range k.writes[at+1:] {
		if w.sure.order > e.began.order || e.sure.order > r.began.order {
			continue
		}
		late := r.began.at - e.sure.at
		found.stale = max(found.stale, late)
		switch {
		case found.rule != "":
		case e.acked.order < r.began.order && r.id == v.cfg.Self:
			found.rule, found.by = ownWrite, e
		case fresh:
			found.rule, found.by = notFresh, e
		case late > v.cfg.Bound:
			found.rule, found.by = beyondBound, e
		}
	}
	if w.sure == never {
		w.sure = now
	}
	return found
}

// forget forgets the values that have ended for every read that is under way or begins later, so that a
// check does not take more memory the longer it lasts.
func (v *Live) forget(k *liveKey) {
	if len(k.writes) < k.forgetAt {
		return
	}
	began := moment{v.cfg.Now(), v.order}
	for _, r := range v.readers {
		if r.began.order < began.order {
			began = r.began
		}
	}
	var last *write // that every such read must see
	for _, e := range k.writes {
		if e.sure.order < began.order && began.at-e.sure.at > v.cfg.Bound {
			last = e
		}
	}
	k.writes = slices.DeleteFunc(k.writes, func(w *write) bool {
		ended := last != nil && w.sure.order < last.began.order
		if ended {
			k.forgotten = max(k.forgotten, w.number)
		}
		return ended
	})
	k.forgetAt = 2*len(k.writes) + 16
}

// reason tells of what had ended the value.
func (w *wrong) reason(k *liveKey, writer kv.Process) string {
	if w.by == nil {
		return ""
	}
	outcome, words := "done", "; see: "
	if w.by.acked == never {
		outcome = "unknown"
	}
	if w.stale > 0 {
		words = fmt.Sprintf("; the value had ended %v before, by: ", w.stale)
	}
	return words + operation("set", k, w.by.number, writer, w.by.began.at, w.by.ended, outcome)
}

// operation returns an operation, as people read it.
func operation(
	kind string, k *liveKey, number int64, host kv.Process, began, ended time.Duration, outcome string,
) string {
	return fmt.Sprintf("%s of %s, number %d, through %v, %.6f s to %.6f s: %s",
		kind, k.name, number, host, began.Seconds(), ended.Seconds(), outcome)
}
