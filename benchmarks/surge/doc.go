// Package surge puts open-loop load on a sidecar's socket. The load is a rate: each
// request has a moment at which it is due, drawn beforehand, and no request waits for the
// answer to another one. So a slow answer delays no later request, and is not hidden by
// it (no coordinated omission).
//
// Inputs are a socket, a rate and Requests; output is a Result. One goroutine sends and
// receives, with sockets of its own that never block. It is pinned by its caller, who also
// judges: the package compares nothing.
//
// # What becomes of a request
//
// A request is sent when it is due, or not at all. A request that the kernel or its
// connection cannot take at that moment is held back: a client would have to wait with it,
// and the sidecar never sees it. A request that is sent ends in one of these ways:
//
//	served   the answer is useful and came within the timeout
//	busy     the sidecar refused it, with the answer BUSY or by closing its connection
//	late     the answer was useful, but came after the timeout
//	failed   any other answer, or the end of a connection that stays open
//
// The time of an answer runs from the moment at which its request was due. So it includes
// the generator's own delay, the time in the kernel's buffer before the sidecar reads the
// request, and the time until the generator reads the answer: it is an upper bound for
// what the sidecar took.
package surge
