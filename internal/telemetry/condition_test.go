package telemetry

import (
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar"
)

// TestConditionLine checks the line of each state: no state in which something is wrong is "serving"
// alone, and what is over is not wrong any more.
func TestConditionLine(t *testing.T) {
	namespace := func(change func(*cachesidecar.NamespaceStats)) cachesidecar.Stats {
		ns := cachesidecar.NamespaceStats{Name: "users", Loads: cachesidecar.LoadStats{Origin: "http", Breaker: "closed"}}
		change(&ns)
		return cachesidecar.Stats{Namespaces: []cachesidecar.NamespaceStats{{Name: "default"}, ns}}
	}
	failed := func(ageMS, row int64, breaker string) cachesidecar.Stats {
		return namespace(func(ns *cachesidecar.NamespaceStats) {
			ns.Loads.Breaker, ns.Loads.BreakerOpen, ns.Loads.BreakerHalfOpen = breaker, breaker == "open", breaker == "half-open"
			ns.Failures = []cachesidecar.FailureStats{{Calls: "loads", Error: "status 503", AgeMS: ageMS, InARow: row}}
		})
	}
	recent := func(errors, requests int64) cachesidecar.Stats {
		return namespace(func(ns *cachesidecar.NamespaceStats) {
			ns.Recent = cachesidecar.RecentStats{WindowMS: 58_700, Requests: requests, Errors: errors}
		})
	}
	var leases []cachesidecar.LeaseStats
	for _, n := range strings.Split("b c d e f g", " ") {
		leases = append(leases, cachesidecar.LeaseStats{Node: n, AgeMS: -1})
	}
	for _, tc := range []struct {
		name string
		st   cachesidecar.Stats
		want string
	}{
		{"all fine", cachesidecar.Stats{}, "serving"},
		{"alone", cachesidecar.Stats{Cluster: cachesidecar.ClusterState{Alone: true, In: true, Members: 1}}, "serving"},
		{"stopping", cachesidecar.Stats{NotReady: "stopping", Cluster: cachesidecar.ClusterState{Drained: true}}, "not ready: stopping"},
		{"not joined", cachesidecar.Stats{NotReady: "not joined: why", Members: map[string]int64{"refused": 2}},
			"not ready: not joined: why; refused hosts: 2 (`cachesidecar members` says why)"},
		{"missing", cachesidecar.Stats{Members: map[string]int64{"in": 2, "missing": 1, "left": 3}},
			"serving, not well: missing hosts: 1 (`cachesidecar members` names them)"},
		{"left", cachesidecar.Stats{Members: map[string]int64{"in": 2, "left": 3}}, "serving"},
		{"drained", cachesidecar.Stats{Cluster: cachesidecar.ClusterState{Drained: true, In: true, Members: 3}},
			"serving, not well: drained: this host owns nothing, and serves through others (`cachesidecar drain --undo` ends that)"},
		{"no leases", cachesidecar.Stats{Cluster: cachesidecar.ClusterState{Invalidations: cachesidecar.InvalidationStats{Leases: leases}}},
			"serving, not well: no lease on b, c, d, e, f, and 1 more: copies of its entries are not served"},

		{"all requests fail", recent(30, 30), "serving, not well: requests of users failed: 30 of 30 in the last 58s"},
		{"some fail", recent(1_002, 100_000), "serving, not well: requests of users failed: 1,002 of 100,000 in the last 58s"},
		{"few of many fail", recent(1_000, 100_000), "serving"},
		{"two mistakes", recent(2, 2), "serving"},
		{"full", namespace(func(ns *cachesidecar.NamespaceStats) {
			ns.QuotaEvicted, ns.Recent = 7, cachesidecar.RecentStats{WindowMS: 60_000, Evicted: 1_200}
		}), "serving, not well: namespace users is full: 1,200 entries evicted over its quota in the last 1m0s"},
		{"full in the first second", namespace(func(ns *cachesidecar.NamespaceStats) {
			ns.Recent = cachesidecar.RecentStats{WindowMS: 300, Evicted: 1}
		}), "serving, not well: namespace users is full: 1 entries evicted over its quota in the last 1s"},
		{"was full", namespace(func(ns *cachesidecar.NamespaceStats) { ns.QuotaEvicted = 7 }), "serving"},

		{"the origin fails", failed(4000, 1, "closed"), "serving, not well: origin of users (http): loads failed 4s ago: status 503"},
		{"and then no load comes", failed(60_000, 1, "closed"), "serving"},
		{"it is well again", failed(4000, 0, "closed"), "serving"},
		{"breaker open", failed(300_000, 9, "open"),
			"serving, not well: origin of users (http): loads failed 5m0s ago: status 503 (9 in a row, breaker open)"},
		{"breaker half-open", failed(59_999, 9, "half-open"),
			"serving, not well: origin of users (http): loads failed 1m0s ago: status 503 (9 in a row, breaker half-open)"},
		{"and then no load comes", failed(60_000, 9, "half-open"), "serving"},

		{"socket full", cachesidecar.Stats{Connections: cachesidecar.ConnectionStats{Open: 1000, Limit: 1000}},
			"serving, not well: all 1,000 connections of the socket are taken"},
		{"socket full, and of whom", cachesidecar.Stats{Connections: cachesidecar.ConnectionStats{Open: 8, Limit: 8},
			Shares: []cachesidecar.ShareStats{{Name: "connections", Used: 8, Limit: 8, Most: "user 7", MostBy: 6}}},
			"serving, not well: all 8 connections of the socket are taken, 6 by user 7"},
		{"memcached's places full", cachesidecar.Stats{Memcached: cachesidecar.MemcachedStats{Open: 8, Limit: 8}},
			"serving, not well: all 8 connections of memcached's protocol are taken"},
		{"buffers full", cachesidecar.Stats{Connections: cachesidecar.ConnectionStats{
			Buffers: cachesidecar.BufferStats{Limit: 100 << 20, Answers: 95 << 20, Most: "user 7", MostBy: 90 << 20}}},
			"serving, not well: the memory of requests and answers is full: 95 MiB of 100 MiB, 90 MiB by user 7"},
		{"memory full", cachesidecar.Stats{Process: cachesidecar.ProcessStats{ResidentBytes: 608 << 20, MemoryLimit: 640 << 20}},
			"serving, not well: the memory of the process is full: 608 MiB of 640 MiB"},
		{"memory in use", cachesidecar.Stats{Process: cachesidecar.ProcessStats{ResidentBytes: 607 << 20, MemoryLimit: 640 << 20}}, "serving"},
		{"L2 full, as it is meant to be", cachesidecar.Stats{L2: cachesidecar.L2Stats{
			Memory: cachesidecar.L2Memory{Used: 1 << 20, Limit: 1 << 20}, L2Counts: cachesidecar.L2Counts{Evicted: 100}}}, "serving"},
		{"places full", cachesidecar.Stats{Shares: []cachesidecar.ShareStats{{Name: "watch streams", Used: 9, Limit: 9, Most: "user 7", MostBy: 8}}},
			"serving, not well: all 9 places of watch streams are taken, 8 by user 7"},
	} {
		if got := ConditionLine(&tc.st); got != tc.want {
			t.Errorf("%s:\n%s\nwant:\n%s", tc.name, got, tc.want)
		}
	}
}

// TestConditionLineIsBounded checks that a line counts the findings that it does not show.
func TestConditionLineIsBounded(t *testing.T) {
	st := cachesidecar.Stats{}
	for range 200 {
		st.Shares = append(st.Shares, cachesidecar.ShareStats{Name: "x", Used: 1, Limit: 1})
	}
	if got := ConditionLine(&st); strings.Count(got, "all 1 places") != FewFindings || !strings.HasSuffix(got, "; and 196 more") {
		t.Error(got)
	}
}
