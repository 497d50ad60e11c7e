package session

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/quota"
)

// TestAskersAreBounded: the accounts of another host's apps that hold nothing are closed when there are many. One that
// holds something stays, and so does its tenant after the end of the connection.
func TestAskersAreBounded(t *testing.T) {
	b := quota.NewBudget(0)
	b.SetTotal(quota.LeaseTokens, 100)
	var a askers
	first := a.open(quota.App{Process: 1}.Number(), "b", b)
	if err := first.Acquire(quota.LeaseTokens); err != nil {
		t.Fatal(err)
	}
	for n := range 3000 {
		a.open(quota.App{User: n, Process: n + 2}.Number(), "b", b)
	}
	if n := len(a.of); n > maxAskers {
		t.Errorf("%d accounts", n)
	}
	if a.of[quota.App{Process: 1}.Number()] != first {
		t.Error("one that has a token is gone")
	}
	a.close()
	if st := b.Shares()[quota.LeaseTokens]; st.Most != "node b uid 0" || st.MostBy != 1 {
		t.Errorf("after the end: %+v", st)
	}
	if first.Release(quota.LeaseTokens); b.Shares()[quota.LeaseTokens].Used != 0 {
		t.Error("the place is not given back")
	}
}
