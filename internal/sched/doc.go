// Package sched has the tricks with Go's scheduler, which make requests wait less beside a flood of others. Each
// stands on what the runtime does today, and says what that is: measure all of them again with each release of Go.
//
//	TimeSlice       a busy reader yields its thread's processor now and then
//	WakePoller      a busy reader makes the runtime look for other connections' bytes
//	VaryProcessors  two of Go's processors more than the machine has, while readers are busy
//	Yield           the system call for it
//	LetOthersRun    the callers that are ready join a write
//	Nap             a sleep of less than a millisecond
//
// Input is the moments at which a caller is busy; there is no output but time. A goroutine that WakePoller or
// NoteBusy starts ends by itself.
//
// The package does not decide who is busy or whose turn it is (packages rpc/server and quota).
package sched
