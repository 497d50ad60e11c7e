//go:build race

package l1

const raceDetector = true
