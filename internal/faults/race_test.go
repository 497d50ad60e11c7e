//go:build race

package faults

const (
	raceDetector = true
	slowness     = 3 // the machine seems so much slower
)
