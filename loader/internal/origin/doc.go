// Package origin has what several kinds of origin share: how they open, the limits of
// their calls, and a scanner of answers in a text protocol.
//
// It starts no goroutine and does no I/O. It knows no kind of origin.
package origin
