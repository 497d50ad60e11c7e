package faults

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

var (
	long = flag.Bool("faults.long", false, "more rounds, longer faults, and the scenarios that take minutes")
	soak = flag.Duration("faults.for", 0, "how long hosts are killed, paused, cut and restarted at random, as root; no time is not at all")
	keep = flag.Bool("faults.keep", false, "keep the folders with the sidecars' logs")
)

// These environment variables make this binary another program than the tests.
const (
	asSidecar = "FAULTS_SIDECAR" // a sidecar, with a spec in JSON
	asKeeper  = "FAULTS_HOLDER"  // the keeper of a network namespace, until stdin ends
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(asSidecar); spec != "" {
		os.Exit(runSidecar(spec))
	}
	if os.Getenv(asKeeper) != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	flag.Parse()
	// The scenarios mostly wait, so more of them may run at once than there are cores.
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given && slowness == 1 {
		_ = flag.Set("test.parallel", "3")
	}
	status := m.Run()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// spec is a sidecar's configuration, as its process gets it.
type spec struct {
	Node, Socket, Bind, Advertise string
	Join                          []string
	MaxStaleness                  time.Duration
	Insecure                      bool
	Voters                        []string // if any, the policy is consistent
	Namespaces                    string   // in the configuration file's format
	Keys                          string   // the cluster key file; SIGHUP reloads it
	TLS                           sidecar.TLSFiles
	Feed                          *postgres.FeedConfig
	MaxLag                        time.Duration // of Feed
}

// runSidecar does what the command's run does.
func runSidecar(text string) int {
	var sp spec
	err := json.Unmarshal([]byte(text), &sp)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err = sp.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (sp *spec) run(ctx context.Context) error {
	policy := ""
	if len(sp.Voters) > 0 {
		policy = cluster.Consistent
	}
	var inFile map[string]struct {
		sidecar.Namespace `yaml:",inline"`
		Origin            *struct {
			Postgres postgres.Config `yaml:"postgres"`
		} `yaml:"origin"`
	}
	if err := yaml.Unmarshal([]byte(sp.Namespaces), &inFile); err != nil {
		return err
	}
	namespaces := map[string]sidecar.Namespace{}
	for name, ns := range inFile {
		if ns.Origin != nil {
			ns.Namespace.Origin = &ns.Origin.Postgres
		}
		namespaces[name] = ns.Namespace
	}
	feeds := map[string]sidecar.Feed{}
	if sp.Feed != nil {
		feeds["rows"] = sidecar.Feed{Source: *sp.Feed, MaxLag: sp.MaxLag}
	}
	s, err := sidecar.New(sidecar.Config{
		Feeds:           feeds,
		PartitionPolicy: policy, Voters: sp.Voters, Namespaces: namespaces,
		Node: sp.Node, Socket: sp.Socket, L1Size: 4 << 20, L2Size: 32 << 20,
		Bind: sp.Bind, Advertise: sp.Advertise, Join: sp.Join, Insecure: sp.Insecure, ClusterKeyFile: sp.Keys, TLS: sp.TLS, MaxStaleness: sp.MaxStaleness,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: shortTime})),
	})
	if err != nil {
		return err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() { // ends with the process
		for range hangup {
			if err := s.Reload(); err != nil {
				fmt.Fprintln(os.Stderr, "reload:", err)
			}
		}
	}()
	if err = s.Run(ctx); errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

func shortTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().Format("05.000"))
	}
	return a
}

// scenario marks a test of processes. It may run in parallel, and takes about the given
// time.
func scenario(t *testing.T, about time.Duration) {
	t.Helper()
	testenv.Takes(t, about)
	t.Parallel()
}

// lasting marks a test that runs only with -faults.long.
func lasting(t *testing.T, about time.Duration) {
	t.Helper()
	if !*long {
		t.Skipf("skipped without -faults.long: it takes about %v", about)
	}
	t.Parallel()
}

// scrubbed returns the environment without the variables for sidecars and their clients.
func scrubbed() (env []string) {
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CACHESIDECAR_") && !strings.HasPrefix(e, "FAULTS_") {
			env = append(env, e)
		}
	}
	return env
}
