package wire

import "testing"

// TestEveryElementIsItsOwn checks that each element of a request survives a round trip,
// for every combination of elements that are set and elements that have their default.
func TestEveryElementIsItsOwn(t *testing.T) {
	type set func(*Request)
	var (
		ns      set = func(r *Request) { r.Namespace = []byte("users") }
		ttl     set = func(r *Request) { r.TTLMS = 0 }
		flags   set = func(r *Request) { r.Flags = 2 }
		mode    set = func(r *Request) { r.Mode = ModeCAS }
		compare set = func(r *Request) { r.Compare = 4 }
		initial set = func(r *Request) { r.Create, r.Initial = true, -5 }
		top     set = func(r *Request) { r.Create, r.Initial = true, -1 } // all bits
		zero    set = func(r *Request) { r.Create = true }
		options set = func(r *Request) {
			o := ops[r.Op].options &^ (Create | StaleOK)
			if r.Op == OpMetaGet {
				o &^= CacheOnly // not beside a TTL
			}
			r.Options |= o
		}
		stale   set = func(r *Request) { r.Options |= StaleOK }
		create  set = func(r *Request) { r.Options |= Create }
		limit   set = func(r *Request) { r.StaleMS = 7 }
		until   set = func(r *Request) { r.UntilNS = 12 }
		lease   set = func(r *Request) { r.LeaseMS = 13 }
		renew   set = func(r *Request) { r.RenewMS = 14 }
		hold    set = func(r *Request) { r.ReplicaLagMS = 6 }
		epoch   set = func(r *Request) { r.Epoch = 8 }
		seq     set = func(r *Request) { r.Seq = 9 }
		wait    set = func(r *Request) { r.WaitMS = 10 }
		timeout set = func(r *Request) { r.TimeoutMS = 11 }
		by      set = func(r *Request) { r.By = 1<<32 | 15 }
	)
	key, value, token := []byte("k"), []byte("v"), []byte("t")
	for _, tc := range []struct {
		least Request
		sets  []set
	}{
		{Request{Op: OpPing}, []set{timeout}},
		{Request{Op: OpGet, Key: key}, []set{timeout, ns, options, stale}},
		{Request{Op: OpMGet, Keys: [][]byte{key}}, []set{timeout, ns, options, stale}},
		{Request{Op: OpSet, Key: key, Value: value}, []set{timeout, ns, ttl, flags, mode, compare, options}},
		{Request{Op: OpSet, Key: key, Value: value, Mode: ModeCAS}, []set{ns, compare, stale, until}},
		{Request{Op: OpSet, Key: key, Value: value, Mode: ModePrepend}, []set{ns, ttl, compare, options, create, until}},
		{Request{Op: OpDelete, Keys: [][]byte{key}}, []set{timeout, ns, options, hold, until, compare}},
		{Request{Op: OpDelete, Keys: [][]byte{key}, Options: Soft}, []set{ns, options, hold, until, compare, limit}},
		{Request{Op: OpTouch, Key: key}, []set{timeout, ns, ttl, options}},
		{Request{Op: OpIncr, Key: key, Delta: -1}, []set{timeout, ns, initial, ttl, until, compare}},
		{Request{Op: OpIncr, Key: key, Delta: -1}, []set{timeout, ns, zero, ttl, until, compare}},
		{Request{Op: OpIncr, Key: key, Delta: -1, Options: Unsigned}, []set{ns, top, ttl, options, until, compare}},
		{Request{Op: OpMetaGet, Key: key}, []set{timeout, ns, options, until, lease, renew}},
		{Request{Op: OpMetaGet, Key: key, Options: Touch}, []set{ns, ttl, options, until, lease, renew}},
		{Request{Op: OpMetaGet, Key: key, Options: Touch | CacheOnly}, []set{ns, options, until, lease, renew}},
		{Request{Op: OpLease, Key: key}, []set{timeout, ns, options, stale}},
		{Request{Op: OpFill, Key: key, Token: token, Value: value}, []set{timeout, ns, ttl, flags, options}},
		{Request{Op: OpFill, Key: key, Token: token, Options: Abandon}, []set{timeout, ns, ttl, flags}},
		{Request{Op: OpFlush}, []set{timeout, ns, options}},
		{Request{Op: OpStats}, []set{timeout, options}},
		{Request{Op: OpRing, Key: key}, []set{timeout, ns}},
		{Request{Op: OpWatch}, []set{timeout, ns, options, epoch, seq, wait}},
		{Request{Op: OpVerify}, []set{timeout, wait}},
	} {
		tc.sets = append(tc.sets, by)
		for some := range 1 << len(tc.sets) {
			want := tc.least
			want.ID, want.TTLMS = 1, TTLDefault
			for i, f := range tc.sets {
				if some>>i&1 != 0 {
					f(&want)
				}
			}
			frame := AppendRequest(nil, &want)[LengthSize:]
			var got Request
			if err := DecodeRequest(frame, &got); err != nil || !sameRequest(&got, &want) {
				t.Errorf("%s %x: %+v, %v; want %+v", want.Op, frame, got, err, want)
			}
			want.App = true // not part of a message
			if with := AppendRequest(nil, &want)[LengthSize:]; string(with) != string(frame) {
				t.Errorf("%s of an app is %x, else %x", want.Op, with, frame)
			}
		}
	}
}
