//go:build failpoint

package sidecar

import (
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

func init() {
	shown = append(shown, []shownGuard{
		{failpoint.KeptBallot, nil, "TestKeptForOneOwner", keptForOneOwner},
		{failpoint.KeptDelta, nil, "TestKeptInCluster", keptInCluster},
		{failpoint.KeptFills, nil, "TestKeptInCluster", keptInCluster},
		{failpoint.KeptRaised, nil, "TestKeptUntilFlush", func(t *testing.T, bad func(string, ...any)) {
			keptUntilFlush(t, cachesidecar.FlushOptions{Local: true}, bad)
		}},
	}...)
}
