package rpc

import (
	"fmt"
	"sync/atomic"
)

// share is the memory that the answers of one connection use. A nil account has no bound.
type share struct {
	account *Account
	used    atomic.Int64 // bytes charged to the account for answers
}

// take charges n bytes. One connection may have a quarter of the budget, and beyond bytes
// more for short answers and the buffers of a reader that waits.
func (s *share) take(n, beyond int64) error {
	if s.account == nil {
		return nil
	}
	err := s.fits(s.used.Add(n)-n, n-beyond)
	if err == nil {
		err = s.account.Take(ForAnswers, n)
	}
	if err != nil {
		s.used.Add(-n)
	}
	return err
}

// fits returns why a connection that has so many bytes of answers may not have n more, or
// nil.
func (s *share) fits(has, n int64) error {
	if s.account == nil || has <= 0 || has+n <= s.account.budget.max/4 {
		return nil
	}
	s.account.budget.refused[ForAnswers].Add(1)
	return fmt.Errorf("%w: answers of %s wait on this connection, which may have a quarter of buffer_size: "+
		"read them, or ask for less at a time", ErrBusy, mib(has))
}

// force charges n bytes without a check.
func (s *share) force(n int64) {
	s.account.Force(ForAnswers, n)
	s.used.Add(n)
}

// give gives n bytes back.
func (s *share) give(n int64) {
	s.used.Add(-n)
	s.account.Give(ForAnswers, n)
}
