package testenv

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/goleak"
)

// Main runs the tests of a package, which are a *testing.M, and ends the process. It fails if goroutines that they
// began are still there after Patience. Unless -parallel says otherwise, twice as many tests
// as there are processors run at once: most of those that may, wait.
func Main(m interface{ Run() int }) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0))) // is a number
	}
	status := m.Run()
	for end := Deadline(); status == 0; {
		err := goleak.Find()
		if err == nil {
			break
		}
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			status = 1
		}
	}
	os.Exit(status)
}

// Unignore lets the processes that the tests start be ended by SIGHUP and SIGINT, which are
// ignored under nohup and in the background of a script, and then in all that starts there.
func Unignore() {
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}
