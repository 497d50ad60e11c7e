//go:build !race

package faults

const slowness = 1
