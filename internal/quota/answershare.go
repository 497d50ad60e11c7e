package quota

import (
	"fmt"
	"sync/atomic"
)

// AnswerShare is the memory that the answers of one connection use. A nil Account has no bound.
type AnswerShare struct {
	Account *Account
	used    atomic.Int64 // bytes charged to the account for answers
}

// Take charges n bytes. One connection may have a quarter of the budget, and beyond bytes
// more for short answers and the buffers of a reader that waits.
func (share *AnswerShare) Take(n, beyond int64) error {
	if share.Account == nil {
		return nil
	}
	b, has := share.Account.budget, share.used.Add(n)-n
	if has > 0 && has+n-beyond > b.max/4 {
		share.used.Add(-n)
		b.refused[ForAnswers].Add(1)
		return fmt.Errorf("%w: answers of %s wait on this connection, which may have a quarter of buffer_size: "+
			"read them, or ask for less at a time", ErrBusy, mib(has))
	}
	err := share.Account.Take(ForAnswers, n)
	if err != nil {
		share.used.Add(-n)
	}
	return err
}

// Force charges n bytes without a check.
func (share *AnswerShare) Force(n int64) {
	share.Account.Force(ForAnswers, n)
	share.used.Add(n)
}

// Give gives n bytes back.
func (share *AnswerShare) Give(n int64) {
	share.used.Add(-n)
	share.Account.Give(ForAnswers, n)
}

// Used returns how many bytes the answers use.
func (share *AnswerShare) Used() int64 { return share.used.Load() }
