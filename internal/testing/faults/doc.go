// Package faults tests several sidecars as real processes under faults of processes and
// networks: joins, leaves, restarts, kill -9, SIGSTOP, cuts, loss. It contains only
// tests.
//
// Inputs are flags of the tests. Outputs are failures, and measured times in the log.
// Each sidecar is this test binary, executed again, or the command of this tree or of an
// earlier revision; it has a socket and a log in a folder of the test, and dies with the
// test. If a scenario needs a network to break, each sidecar has a network namespace of
// its own, which dies with the test too.
//
// During a fault, apps continue to read and write through all living sidecars. Their
// requests and answers are recorded, and checked afterwards against the rules in
// history_test.go.
//
// Reproducible behaviour is tested elsewhere, in virtual time. These tests find effects
// of a kernel, a scheduler and a network that no simulation includes.
package faults
