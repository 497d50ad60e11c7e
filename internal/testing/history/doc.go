// Package history judges what apps were told, by the promise of docs/CONSISTENCY.md. Only tests and
// checkhistory import it.
//
// Inputs are Rules and operations with their times and outcomes. Outputs are Verdicts: what
// is wrong with an answer, and what had ended the value. A Checker judges reads while they
// happen, in memory that does not grow with the history. Check judges a whole history, counters
// included, and Decode reads one from lines of JSON.
//
// It is pure: it reads no clock, starts no goroutine and locks nothing. It imports nothing of what it
// judges. It does not judge whether fresh reads are linearizable (package linear).
package history
