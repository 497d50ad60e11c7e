//go:build !race

package holding

const usualRuns = 8
