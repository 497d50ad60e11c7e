package attacks

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var (
	table = flag.String("attacks.table", "", "the page whose table is written anew; each attack is then timed")
	each  = flag.Duration("attacks.each", 2*time.Second, "how long each attack lasts that is timed")
	only  = flag.String("attacks.only", "", "a pattern of the names of attacks")
)

func TestMain(m *testing.M) {
	if order := os.Getenv(asAttacker); order != "" {
		os.Exit(attackAs(order))
	}
	flag.Parse()
	testenv.Unignore()
	status := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(status)
}
