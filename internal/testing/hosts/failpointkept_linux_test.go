//go:build failpoint

package hosts

import (
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

func init() {
	shown = append(shown, []shownGuard{
		{failpoint.KeptBallot, "TestKeptForOneOwner", keptForOneOwner},
		{failpoint.KeptDelta, "TestKeptInCluster", keptInCluster},
		{failpoint.KeptFills, "TestKeptInCluster", keptInCluster},
		{failpoint.KeptRaised, "TestKeptUntilFlush", func(t *testing.T, bad func(string, ...any)) {
			keptUntilFlush(t, cachesidecar.FlushOptions{Local: true}, bad)
		}},
	}...)
}
