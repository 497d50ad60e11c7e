//go:build !race

// Package race says whether the race detector watches the program. Only tests import it.
package race

// Enabled is true in a build with -race.
const Enabled = false
