//go:build race

package ownership

const usualRuns = 3 // one goroutine, and ten times as slow
