// Package recipe runs docs/RECIPE-PYTHON.md: its blocks are the test's program.
//
// Inputs are the page, PostgreSQL, Python and curl; there is no output but the tests' result.
// The three hosts of the page are three addresses of this machine's loopback network, with a
// folder each. The test starts the processes and ends them. It is no test of the cache's
// promise in general: that is in internal/testing/faults.
package recipe
