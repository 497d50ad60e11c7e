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
func (s *AnswerShare) Take(n, beyond int64) error {
	if s.Account == nil {
		return nil
	}
	b, has := s.Account.budget, s.used.Add(n)-n
	if has > 0 && has+n-beyond > b.max/4 {
		s.used.Add(-n)
		b.refused[ForAnswers].Add(1)
		return fmt.Errorf("%w: answers of %s wait on this connection, which may have a quarter of buffer_size: "+
			"read them, or ask for less at a time", ErrBusy, mib(has))
	}
	err := s.Account.Take(ForAnswers, n)
	if err != nil {
		s.used.Add(-n)
	}
	return err
}

// Force charges n bytes without a check.
func (s *AnswerShare) Force(n int64) {
	s.Account.Force(ForAnswers, n)
	s.used.Add(n)
}

// Give gives n bytes back.
func (s *AnswerShare) Give(n int64) {
	s.used.Add(-n)
	s.Account.Give(ForAnswers, n)
}

// Used returns how many bytes the answers use.
func (s *AnswerShare) Used() int64 { return s.used.Load() }
