package server

import "github.com/cachesidecar/cachesidecar/internal/quota"

// turn is the turn that a reader has, at most one at a time: to copy a long value, or to serve on after its time
// slice. It ends when the answers are written, or when the request waits. So no client that takes no answers keeps
// others from theirs.
type turn struct {
	account *quota.Account
	kind    quota.Turn // 0: none
}

// tryAcquire begins a turn in place of the one that the reader has, unless others are to go first.
func (tn *turn) tryAcquire(kind quota.Turn) bool {
	if tn.kind == kind {
		return true
	}
	tn.release()
	if !tn.account.TryTurn(kind) {
		return false
	}
	tn.kind = kind
	return true
}

// acquire waits for a turn.
func (tn *turn) acquire(kind quota.Turn) {
	tn.account.BeginTurn(kind)
	tn.kind = kind
}

// release ends the turn, if there is one.
func (tn *turn) release() {
	if tn.kind != 0 {
		tn.account.EndTurn(tn.kind)
		tn.kind = 0
	}
}
