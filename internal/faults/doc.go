// Package faults holds tests of several sidecars as real processes, through
// what happens to processes and networks: joins, leaves, restarts, kill -9,
// SIGSTOP, cuts, loss. It has no code but tests.
//
// Inputs are flags of the tests; outputs are failures and the measured times
// that are logged. Each sidecar is this test binary, executed again, with a
// socket and a log in a folder of the test's; it dies with the test. Where a
// scenario needs a network to break, each sidecar has a network namespace of
// its own, which dies with the test too.
//
// While a fault lasts, apps go on reading and writing through all sidecars that
// live. What they asked and what they were told is recorded, and checked
// afterwards against the rules in history_test.go.
//
// What is reproducible is tested elsewhere, in virtual time: these tests find
// what a kernel, a scheduler and a network do that no simulation thought of.
package faults
