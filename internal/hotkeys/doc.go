// Package hotkeys tells which keys of this host were read most in the last minute.
//
// Inputs are samples of reads: a session notes about one read in Rate, at random gaps.
// Output is the list of the keys that were read most. The sketch is Space-Saving (Metwally
// et al., ICDT 2005): a table of counters; if it is full, a new key takes the place of the
// key that was seen least, and inherits its count as its possible error. The window slides
// by parts: each part has a table of its own, and the oldest part is dropped as a whole.
//
// # Bounds
//
// A sketch keeps parts × slots keys: at most 3.6 MiB if all keys have 1,024 bytes, and
// 0.5 MiB if they have 30. Within one part a key with more than 1/slots of the samples
// surely has a counter (one with less may have). The reported count leaves out the possible
// error, so it is never above the number of samples of the key, and is at most 1/slots of
// all samples below it. The samples themselves are random: the count of a key with n samples
// has a standard error of √n.
//
// The package reads no clock, starts no goroutine, and makes no reader wait: a sample that
// comes while the sketch is in use is dropped. It does not count reads exactly, and knows
// nothing of other hosts.
package hotkeys
