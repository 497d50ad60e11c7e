package quota

import (
	"context"
	"sync/atomic"
)

// Held is the memory that one request takes while it waits, and while its answer is made. The
// zero Held has no bound.
type Held struct {
	account *Account
	bytes   atomic.Int64
}

// Begin takes over n bytes that are charged to an account, such as by Conn.Hold.
func (h *Held) Begin(a *Account, n int) {
	h.account = a
	h.bytes.Store(int64(n))
}

// Take charges n more bytes. An error means that there is no memory. Any goroutine may call it.
func (h *Held) Take(n int) error {
	if h == nil {
		return nil
	}
	err := h.account.Take(ForRequests, int64(n))
	if err == nil {
		h.bytes.Add(int64(n))
	}
	return err
}

// Copy waits for a turn to copy n bytes, if they are many. The caller calls leave when they are
// copied.
func (h *Held) Copy(n int) (leave func()) {
	if h == nil || h.account == nil || n < LongCopy {
		return func() {}
	}
	h.account.BeginTurn(CopyTurn)
	return func() { h.account.EndTurn(CopyTurn) }
}

// Give gives back n bytes.
func (h *Held) Give(n int) {
	h.bytes.Add(-int64(n))
	h.account.Give(ForRequests, int64(n))
}

// Free gives back all that is charged.
func (h *Held) Free() { h.account.Give(ForRequests, h.bytes.Swap(0)) }

type heldKey struct{}

// WithHeld returns a context for a request whose memory h is.
func WithHeld(ctx context.Context, h *Held) context.Context {
	return context.WithValue(ctx, heldKey{}, h)
}

// HeldOf returns the memory of a request. It is nil, and has no bound, if there is none.
func HeldOf(ctx context.Context) *Held {
	h, _ := ctx.Value(heldKey{}).(*Held)
	return h
}
