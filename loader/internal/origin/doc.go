// Package origin has what several kinds of origin share: how they open, the limits of
// their calls, whether an idle connection still serves, and a scanner of answers in a text
// protocol.
//
// It starts no goroutine. It knows no kind of origin.
package origin
