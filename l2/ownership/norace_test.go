//go:build !race

package ownership

const usualRuns = 8
