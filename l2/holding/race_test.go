//go:build race

package holding

const usualRuns = 3 // one goroutine, and ten times as slow
