// Package verify judges whether the running cluster keeps the promise of docs/CONSISTENCY.md (VERIFY).
//
// Inputs are the hosts of the cluster, and functions that ask them. Output is the report of VERIFY: what
// hosts have answered, how stale it was, and what was wrong with it.
//
// Live writes and reads itself. Each of its keys is written by one host, one write after the other, so that
// a number says which write a value is of. It keeps of them what a read may still return. The package
// imports nothing of what it judges. Histories of all kinds of operations are judged by
// internal/testing/history, in tests.
package verify
