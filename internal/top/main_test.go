package top

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
