package quota

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"
)

// searchEvery is the least time between two searches for the largest user.
const searchEvery = 10 * time.Millisecond

// reclaim makes the largest user give memory back: the largest process of the largest
// tenant, and of its connections the largest first, until less than 7/8 of the budget is
// used. A frame that is not complete is dropped, and answered BUSY. A connection whose
// answers have waited for a second is closed. The memory of requests that wait comes back
// by itself. If the largest user has nothing else to give, the next one above its share
// gives.
func (b *Budget) reclaim() {
	now := time.Now().UnixNano()
	if last := b.search.Load(); now-last < int64(searchEvery) || !b.search.CompareAndSwap(last, now) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	fair := b.free(ForFrames)
	over := b.root.Used() - fair
	fair /= max(1, b.root.holders[memory].Load())
	for _, tenant := range greedy(maps.Values(b.root.named), fair) {
		of := fair / max(1, tenant.holders[memory].Load())
		for _, process := range greedy(maps.Values(tenant.named), of) {
			if b.giveLocked(process, over) {
				return
			}
		}
	}
}

// giveLocked makes the connections of a process give over bytes back, and says whether
// any connection does.
func (b *Budget) giveLocked(process *Account, over int64) (gives bool) {
	for _, a := range greedy(maps.Keys(process.conns), 0) {
		if over <= 0 {
			break
		}
		if a.giver == nil {
			continue
		}
		if n := a.giver.GiveMemory(); n > 0 {
			b.taken.Add(1)
			over -= n
			gives = true
		}
	}
	return gives
}

// greedy returns the accounts that use more than a number of bytes, the largest first.
func greedy(list iter.Seq[*Account], than int64) (found []*Account) {
	held := map[*Account]int64{} // read once, so that the order is consistent
	for a := range list {
		if n := a.Used(); n > than {
			held[a] = n
			found = append(found, a)
		}
	}
	slices.SortFunc(found, func(x, y *Account) int { return cmp.Compare(held[y], held[x]) })
	return found
}

// greediest returns the account below that holds most of a kind, or nil. The lock is held.
func (a *Account) greediest(r Resource) (most *Account) {
	for _, n := range a.named {
		if has := n.has[r].Load(); has > 0 && (most == nil || has > most.has[r].Load()) {
			most = n
		}
	}
	return most
}
