package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// audited returns a host whose namespace compares every hit with its origin, and its log.
func audited(t *testing.T, o *onehost.Origin, change func(*namespaces.Settings)) (*onehost.Host, *bytes.Buffer) {
	var log bytes.Buffer
	h := onehost.New(t, onehost.Config{
		Log: slog.New(slog.NewTextHandler(&log, nil)),
		Namespaces: onehost.One(func(s *namespaces.Settings) {
			s.Origin, s.Audit, s.Policy.Beta = o.ReadOnly(), 1, 0
			if change != nil {
				change(s)
			}
		}),
	})
	h.Run()
	time.Sleep(20 * time.Millisecond) // until the audit's rate allows one
	return h, &log
}

// auditOf returns the counts of a host's audit.
func auditOf(h *onehost.Host) cachesidecar.AuditStats {
	return h.Namespaces.Lookup([]byte(namespaces.Default)).AuditStats()
}

// settled is more than a comparison takes that has to look again.
const settled = cluster.DefaultBound + time.Second

// TestAudit checks how a hit counts whose value is the origin's or not, is announced or not, and
// that reads get what is cached.
func TestAudit(t *testing.T) {
	cases := map[string]struct {
		then func(h *onehost.Host, o *onehost.Origin) // after the value was cached
		soon func(h *onehost.Host, o *onehost.Origin) // after the first look
		want cachesidecar.AuditStats
	}{
		"same":    {want: cachesidecar.AuditStats{Same: 1}},
		"changed": {then: put("two"), want: cachesidecar.AuditStats{Differed: 1, UpTo10s: 1}},
		"removed": {then: put(""), want: cachesidecar.AuditStats{Differed: 1, UpTo10s: 1}},
		"changed long after": {
			then: func(h *onehost.Host, o *onehost.Origin) { time.Sleep(9 * time.Minute); put("two")(h, o) },
			want: cachesidecar.AuditStats{Differed: 1, UpTo10m: 1},
		},
		"announced": {then: put("two"), soon: func(h *onehost.Host, _ *onehost.Origin) { h.Delete("k", 0) }, want: cachesidecar.AuditStats{Settled: 1}},
		"announced softly": {
			then: put("two"), soon: func(h *onehost.Host, _ *onehost.Origin) { h.Delete("k", wire.Soft) }, want: cachesidecar.AuditStats{Settled: 1},
		},
		"a lag of the origin": {then: put("two"), soon: put("one"), want: cachesidecar.AuditStats{Settled: 1}},
		"the origin fails":    {then: fail, want: cachesidecar.AuditStats{Failed: 1}},
		"it fails later":      {then: put("two"), soon: fail, want: cachesidecar.AuditStats{Failed: 1}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				o := onehost.NewOrigin(0)
				o.Put("k", []byte("one"))
				h, _ := audited(t, o, nil)
				onehost.Is(t, "the load", h.Get("k", 0), wire.OK, "one")
				time.Sleep(1500 * time.Millisecond)
				if tc.then != nil {
					tc.then(h, o)
				}
				onehost.Is(t, "the hit", h.Get("k", 0), wire.OK, "one")
				time.Sleep(cluster.DefaultBound / 2)
				if tc.soon != nil {
					tc.soon(h, o)
				}
				time.Sleep(settled)
				tc.want.Configured = true
				if got := auditOf(h); got != tc.want {
					t.Errorf("%+v, want %+v", got, tc.want)
				}
			})
		})
	}
}

// put returns a function that changes the row of k without an announcement; "": it removes it.
func put(value string) func(*onehost.Host, *onehost.Origin) {
	return func(_ *onehost.Host, o *onehost.Origin) {
		if value == "" {
			o.Put("k", nil)
			return
		}
		o.Put("k", []byte(value))
	}
}

func fail(_ *onehost.Host, o *onehost.Origin) { o.Fail(errors.New("down")) }

// TestAuditOfAbsent checks that "the origin has no such key" is compared too.
func TestAuditOfAbsent(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(0)
		h, _ := audited(t, o, func(s *namespaces.Settings) { s.Policy.NegativeTTL = time.Hour })
		for range 2 {
			onehost.Absent(t, "without a row", h.Get("k", 0))
			time.Sleep(20 * time.Millisecond)
		}
		if a := auditOf(h); a.Same != 1 {
			t.Errorf("%+v, want one that is the same", a)
		}
		o.Put("k", []byte("one"))
		onehost.Absent(t, "as it was", h.Get("k", 0))
		time.Sleep(settled)
		if a := auditOf(h); a.Differed != 1 {
			t.Errorf("%+v, want one that differs", a)
		}
	})
}

// TestAuditLog checks that the log names one key a minute, and no value.
func TestAuditLog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(0)
		h, log := audited(t, o, nil)
		for i := range 20 {
			key := fmt.Sprint("key", i)
			o.Put(key, []byte("SECRET1"))
			h.Get(key, 0)
			o.Put(key, []byte("SECRET2"))
		}
		for i := range 20 {
			h.Get(fmt.Sprint("key", i), 0)
			time.Sleep(7 * time.Second)
		}
		if a := auditOf(h); a.Differed != 20 {
			t.Errorf("%+v, want 20 that differ", a)
		}
		text := log.String()
		if n := strings.Count(text, "differs from the origin's"); n != 3 || strings.Contains(text, "SECRET") {
			t.Errorf("%d lines in 140 s, want 3:\n%s", n, text)
		}
		if !strings.Contains(text, "namespace=default key=key0 cached_for=") {
			t.Errorf("the log does not name the first key:\n%s", text)
		}
	})
}

// TestAuditSparesTheOrigin checks the bounds of what an audit asks of the origin: its rate, a part
// of limits.rate, and nothing while the origin is busy.
func TestAuditSparesTheOrigin(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*namespaces.Settings)
		busy   bool
		takes  time.Duration // a half of a call
		most   int64         // in ten seconds
	}{
		"its own rate":       {nil, false, 0, 10 * namespaces.AuditRate},
		"a tenth of a rate":  {func(s *namespaces.Settings) { s.Guard.Rate = 50 }, false, 0, 50},
		"one at a time":      {nil, false, 50 * time.Millisecond, 100},
		"the origin is busy": {func(s *namespaces.Settings) { s.Guard.Concurrency, s.Guard.Timeout = 2, 30*time.Second }, true, 20 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				o := onehost.NewOrigin(0)
				h, _ := audited(t, o, tc.change)
				o.Put("k", []byte("one"))
				h.Get("k", 0)
				if o.Takes(tc.takes); tc.busy {
					go h.Get("another", 0)
					time.Sleep(time.Second)
					o.Takes(0) // from now on
				}
				for range 10_000 {
					onehost.Is(t, "a hit", h.Get("k", 0), wire.OK, "one")
					time.Sleep(time.Millisecond)
				}
				a := auditOf(h)
				if a.Same > tc.most+1 || a.Same < tc.most*9/10 || a.Skipped != 10_000-a.Same-a.UnderWay {
					t.Errorf("%+v, want %d compared and the rest skipped", a, tc.most)
				}
			})
		})
	}
}

// TestAuditUnderWay checks the bound of the comparisons that wait to look again.
func TestAuditUnderWay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(0)
		h, _ := audited(t, o, func(s *namespaces.Settings) { s.ReplicaLag = 10 * time.Minute })
		time.Sleep(10 * time.Minute) // what is loaded before is not kept
		o.Put("k", []byte("one"))
		h.Get("k", 0)
		o.Put("k", []byte("two"))
		for range 200 {
			onehost.Is(t, "a hit", h.Get("k", 0), wire.OK, "one")
			time.Sleep(20 * time.Millisecond)
		}
		if a := auditOf(h); a.UnderWay != namespaces.AuditCalls || a.Skipped != 200-namespaces.AuditCalls {
			t.Errorf("%+v, want %d under way and the rest skipped", a, namespaces.AuditCalls)
		}
		time.Sleep(11 * time.Minute)
		if a := auditOf(h); a.UnderWay != 0 || a.Differed != namespaces.AuditCalls {
			t.Errorf("%+v, want %d that differ", a, namespaces.AuditCalls)
		}
	})
}

// TestAuditShare checks that about the share of the hits is chosen that is configured, also of
// those that apps report, and none without a share.
func TestAuditShare(t *testing.T) {
	for _, share := range []float64{0, 0.01} {
		bubble.Test(t, func(t *testing.T) {
			o := onehost.NewOrigin(0)
			h, _ := audited(t, o, func(s *namespaces.Settings) { s.Audit = share })
			o.Put("k", []byte("one"))
			h.Get("k", 0)
			const hits = 20_000
			for range hits {
				h.Get("k", 0)
				time.Sleep(100 * time.Microsecond)
			}
			want := int64(share * hits)
			if n := auditOf(h); n.Same+n.Skipped < want/2 || n.Same+n.Skipped > 2*want {
				t.Errorf("share %v: %+v of %d hits", share, n, hits)
			}
		})
	}
}

// TestAuditOfReports checks that hits in apps, which these report, are compared too.
func TestAuditOfReports(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(0)
		h, _ := audited(t, o, nil)
		o.Put("k", []byte("one"))
		h.Get("k", 0)
		pins := namespaces.Pins{Table: h.Namespaces}
		defer pins.Release()
		q := wire.Request{Op: wire.OpHits, Namespace: []byte(namespaces.Default), Keys: [][]byte{[]byte("k")}, Hits: wire.Hits{Shared: 16}}
		h.Local.Reported(&q, &pins, h.Clock.Read())
		time.Sleep(time.Millisecond)
		if a := auditOf(h); a.Same != 1 {
			t.Errorf("%+v, want one that is the same", a)
		}
	})
}
