package history

import "time"

// judgeRead judges a read that has found a value, and notes what it shows.
func (c *Checker) judgeRead(r *Running, now moment) Verdict {
	k := c.key(r.Key)
	w := k.values[r.Number]
	v := c.judge(k, w, r)
	v.Op = r.Op
	if w != nil {
		w.read = true
		if !w.op.Origin && w.effective == never {
			w.effective = now
		}
		if w.settled.order > now.order {
			w.settled = now
		}
	}
	return v
}

// judge judges that a read returns a value.
func (c *Checker) judge(k *key, w *change, r *Running) (v Verdict) {
	switch {
	case w == nil && r.Number <= k.dropped:
		return Verdict{Rule: Bound, Stale: c.rules.Bound + c.rules.Slack + 1}
	case w == nil:
		return Verdict{Rule: Unwritten}
	case w.ended != never && w.op.Refused():
		return Verdict{Rule: ReadRefused, By: &w.op}
	}
	for _, list := range [][]*change{k.changes, c.flushes} {
		for _, e := range list {
			if e == w || !c.ends(e, w) || e.effective.order > r.began.order {
				continue
			}
			v.Stale = max(v.Stale, r.Began-e.effective.at)
			if v.Rule == "" {
				if v.Rule = c.due(e, r); v.Rule != "" {
					v.By = &e.op
				}
			}
		}
	}
	if v.Rule == "" && c.expired(k, w, r) {
		v.Rule, v.By = Expired, &w.op
	}
	return v
}

// ends reports whether a change ends a value: it began after the value was there, and was
// settled to be so.
func (c *Checker) ends(e, w *change) bool {
	if w.op.Origin && e.op.Kind != Set {
		return e.began.order > w.replaced.order
	}
	return e.began.order > w.settled.order || c.rules.Late > 0 && e.began.at > w.began.at+c.rules.Late
}

// due returns the rule by which a read must see a change that has taken effect before the
// read began; empty: none.
func (c *Checker) due(e *change, r *Running) Rule {
	past := func(late, margin time.Duration) bool { return margin == 0 || late > margin }
	split := c.rules.excused(Split, r.Began)
	if late := r.Began - e.acked.at; e.acked.order < r.began.order && past(late, c.rules.Slack) {
		switch {
		case e.op.Host != "" && e.op.Host == r.Host:
			return Own
		case e.op.All && !split:
			return AckAll
		}
	}
	switch late := r.Began - e.effective.at; {
	case split:
	case r.Fresh && past(late, c.rules.Slack):
		return Newest
	case past(late, c.rules.Bound+c.rules.Slack):
		return Bound
	}
	return ""
}

// expired reports whether a value had ended by itself when a read began. Deadlines are whole
// milliseconds, rounded up.
func (c *Checker) expired(k *key, w *change, r *Running) bool {
	end, known := time.Duration(0), false
	switch {
	case w.op.Origin:
		// A load that began before the origin had the next value stores this one.
		if known = w.op.TTL > 0 && w.replaced != never; known {
			end = w.replaced.at + c.rules.Load + w.op.TTL
		}
	case w.op.TTL > 0 && w.acked != never:
		end, known = w.acked.at+w.op.TTL+time.Millisecond, true
	}
	for _, t := range k.touches {
		switch {
		case w.op.Origin || t.ended.order < w.began.order,
			c.rules.Late > 0 && t.op.Began+c.rules.Late < w.began.at:
			continue
		case t.ended == never:
			return false
		}
		unheard := t.ended.at // a host that has not heard of it keeps the end from before
		if !r.Fresh && (t.op.Host == "" || t.op.Host != r.Host) {
			unheard += c.rules.Bound
		}
		if known {
			unheard = min(unheard, end)
		}
		end, known = max(unheard, t.ended.at+t.op.TTL+time.Millisecond), w.acked != never
	}
	return known && r.Began > end+c.rules.Slack
}

// Misses tells what can explain that a read found nothing although a value was written: a
// flush, or the value's end. It is for tests that count what they have seen.
func (c *Checker) Misses(r *Running, number int64) (flushed, expired bool) {
	k := c.key(r.Key)
	w := k.values[number]
	if w == nil || w.acked == never {
		return false, false
	}
	for _, f := range c.flushes {
		flushed = flushed || c.ends(f, w) && f.acked.order < r.began.order
	}
	fresh := *r
	fresh.Fresh = true
	return flushed, c.expired(k, w, &fresh)
}

// forget forgets what can change no verdict: the values that have ended for every read that
// is under way or begins later, and the changes before the one that has ended them.
func (c *Checker) forget(k *key) {
	if len(k.changes) < k.forgetAt {
		return
	}
	if e := c.floor(append(k.changes[:len(k.changes):len(k.changes)], c.flushes...)); e != nil {
		kept := k.changes[:0]
		for _, w := range k.changes {
			switch {
			case w == e || w.ended == never || w.began.order > e.began.order,
				w.op.Kind == Set && !w.op.Refused() && !c.ends(e, w):
				kept = append(kept, w)
			case w.op.Kind == Set:
				delete(k.values, w.op.Number)
				k.dropped = max(k.dropped, w.op.Number)
			}
		}
		clear(k.changes[len(kept):])
		k.changes = kept
		k.forgetTouches(e)
	}
	k.forgetAt = 2*len(k.changes) + 16
}

// forgetTouches forgets the touches of values that have ended.
func (k *key) forgetTouches(e *change) {
	oldest := e.began.order
	for _, w := range k.values {
		oldest = min(oldest, w.began.order)
	}
	kept := k.touches[:0]
	for _, t := range k.touches {
		if t.ended.order > oldest {
			kept = append(kept, t)
		}
	}
	clear(k.touches[len(kept):])
	k.touches = kept
}

func (c *Checker) forgetFlushes() {
	if len(c.flushes)%64 != 63 {
		return
	}
	if e := c.floor(c.flushes); e != nil {
		kept := c.flushes[:0]
		for _, f := range c.flushes {
			if f.ended == never || f.began.order >= e.began.order {
				kept = append(kept, f)
			}
		}
		clear(c.flushes[len(kept):])
		c.flushes = kept
	}
}

// floor returns the last change that every read that is under way, or begins later, must see.
func (c *Checker) floor(changes []*change) (floor *change) {
	for _, e := range c.rules.Excuses {
		if e.Reason == Split {
			return nil // a read in the split may still return what was ended long before
		}
	}
	began := c.now
	if c.first != nil {
		began = c.first.began
	}
	for _, e := range changes {
		if e.effective.order < began.order && began.at-e.effective.at > c.rules.Bound+c.rules.Slack &&
			(floor == nil || e.began.order > floor.began.order) {
			floor = e
		}
	}
	return floor
}
