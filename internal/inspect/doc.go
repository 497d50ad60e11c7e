// Package inspect has what an operator asks of a running host: the keys that were read most in
// the last minute, and the slowest requests and loads of the last minutes with where their time
// went.
//
// Inputs are samples of reads: a session notes about one read in SampleRate, at random gaps; and
// calls that have ended, with their duration, and the parts of their time that the layers below
// note in the Trace of a context. Outputs are two lists. A hit is only sampled: just calls that
// have waited are timed. A call below SlowThreshold, or below all others of a namespace that has its share of a
// full list, costs a few comparisons.
//
// A Sketch is Space-Saving (Metwally et al., ICDT 2005): a table of counters; if it is full, a
// new key takes the place of the key that was seen least, and inherits its count as its possible
// error. The window slides by parts: each part has a table of its own, and the oldest part is
// dropped as a whole.
//
// # Bounds
//
// A Sketch keeps windowParts × slots keys: at most 3.6 MiB if all keys have 1,024 bytes, and
// 0.5 MiB if they have 30. Within one part a key with more than 1/slots of the samples
// surely has a counter (one with less may have). The reported count leaves out the possible
// error, so it is never above the number of samples of the key, and is at most 1/slots of
// all samples below it. The samples themselves are random: the count of a key with n samples
// has a standard error of √n.
//
// A SlowList keeps mostSlow calls of one kind for at most SlowAge: less than 200 KiB for both
// kinds. A full list is in equal shares of the namespaces that have some, so that none hides another's: a call
// leaves for one of a namespace with fewer, or for a slower one of its own. A Trace keeps
// maxParts parts; the time of further ones is in no part.
//
// The package starts no goroutine, reads no clock but for the length of a wait, and makes no
// reader wait: a sample that comes while the sketch is in use is dropped. All of it but a Sampler
// may be used concurrently. It does not count reads exactly, keeps no trace of every call, and
// knows nothing of other hosts.
package inspect
