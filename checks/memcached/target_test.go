package memcached

import (
	"flag"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/checks/sidecars"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// targetName is what is tested. Real memcached shows that the tests are right.
var targetName = flag.String("target", "sidecars", "what to test: memcached or sidecars")

func TestMain(m *testing.M) { sidecars.Main(m) }

// Target is servers that speak memcached's protocols.
type Target interface {
	Name() string
	// OneCache is whether a write to one server is seen through the others.
	OneCache() bool
	// Start starts n servers and returns their addresses, each HOST:PORT. They end with the
	// test.
	Start(t testing.TB, n int) []string
	// Restart ends a server, starts it again and returns when it answers.
	Restart(t testing.TB, i int)
}

// newTarget returns what -target names, not started.
func newTarget(t testing.TB) Target {
	t.Helper()
	switch *targetName {
	case "memcached":
		return &realMemcached{}
	case "sidecars":
		return &sidecarTarget{}
	}
	t.Fatalf("-target is %q: want memcached or sidecars", *targetName)
	return nil
}

// oneServer starts the target with one server and returns its address.
func oneServer(t testing.TB) string {
	t.Helper()
	return newTarget(t).Start(t, 1)[0]
}

// realMemcached runs memcached itself: servers that know nothing of each other.
type realMemcached struct {
	addresses []string
	processes []*exec.Cmd
}

func (*realMemcached) Name() string   { return "memcached" }
func (*realMemcached) OneCache() bool { return false }

func (m *realMemcached) Start(t testing.TB, n int) []string {
	t.Helper()
	if _, err := exec.LookPath("memcached"); err != nil {
		testenv.Needs(t, "there is no memcached: install the Debian package memcached")
	}
	m.processes = make([]*exec.Cmd, n)
	t.Cleanup(func() {
		for i := range m.processes {
			m.stop(i)
		}
	})
	for i, port := range sidecars.Ports(t, n) {
		m.addresses = append(m.addresses, "127.0.0.1:"+strconv.Itoa(port))
		m.start(t, i)
	}
	return m.addresses
}

func (m *realMemcached) start(t testing.TB, i int) {
	t.Helper()
	_, port, _ := net.SplitHostPort(m.addresses[i])
	cmd := exec.Command("memcached", "-u", "nobody", "-m", "64", "-U", "0", "-l", "127.0.0.1", "-p", port)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.processes[i] = cmd
	answers(t, m.addresses[i])
}

func (m *realMemcached) stop(i int) {
	if p := m.processes[i]; p != nil {
		_ = p.Process.Kill()
		_ = p.Wait()
		m.processes[i] = nil
	}
}

func (m *realMemcached) Restart(t testing.TB, i int) {
	t.Helper()
	m.stop(i)
	m.start(t, i)
}

// memcachedMax bounds a value as memcached does without options.
const memcachedMax = "1MiB"

// sidecarTarget runs sidecars: one cache, with an address on each host.
type sidecarTarget struct {
	addresses []string
	running   []*sidecars.Sidecar
}

func (*sidecarTarget) Name() string   { return "sidecars" }
func (*sidecarTarget) OneCache() bool { return true }

func (s *sidecarTarget) Start(t testing.TB, n int) []string {
	t.Helper()
	var args [][]string
	for _, port := range sidecars.Ports(t, n) {
		s.addresses = append(s.addresses, "127.0.0.1:"+strconv.Itoa(port))
		args = append(args, []string{
			"--memcached", s.addresses[len(s.addresses)-1], "--max-value", memcachedMax,
		})
	}
	s.running = sidecars.ClusterOf(t, args)
	for _, a := range s.addresses {
		answers(t, a)
	}
	return s.addresses
}

func (s *sidecarTarget) Restart(t testing.TB, i int) {
	t.Helper()
	s.running[i].Stop()
	s.running[i].Start()
	s.running[i].Sees(len(s.running))
	answers(t, s.addresses[i])
}

// answers waits until a server answers.
func answers(t testing.TB, address string) {
	t.Helper()
	testenv.Eventually(t, address+" answers", func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(testenv.Deadline())
		fmt.Fprint(conn, "version\r\n")
		b := make([]byte, 64)
		n, _ := conn.Read(b)
		return strings.HasPrefix(string(b[:n]), "VERSION ")
	})
}
