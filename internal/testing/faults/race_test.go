//go:build race

package faults

// slowness is how much slower the machine seems under the race detector.
const slowness = 3
