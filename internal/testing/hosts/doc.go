// Package hosts has the tests of whole sidecars, mostly of several that are one cluster: in this process, on
// loopback or, in virtual time, on a network in memory under faults, with a load whose history is checked
// (TestVirtual…). TestFailpoint… takes the guards of freshness out one by one.
//
// Input is package sidecar, through package testhook. Output is the outcome of the tests: nothing imports the
// package. Each test ends what it has started.
//
// The package does not test one package's own rules (their own tests do), the command (cmd/cachesidecar), or real
// processes and networks (internal/testing/faults).
package hosts
