package configfile

import (
	"flag"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { testenv.Main(m) }
