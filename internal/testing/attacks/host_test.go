package attacks

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/keyfilter"
	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

const (
	l1Size = 16 << 20
	l2Size = 128 << 20
	buffer = 128 << 20
	shared = 32 << 20
	tooBig = 2 << 30 // a larger process is killed
)

// stated returns the memory that a sidecar under attack needs, by what is stated.
func stated(a *attack) int64 {
	c := sidecar.Config{
		L1Size: l1Size, L2Size: l2Size, BufferSize: buffer, SharedSize: shared, MaxConnections: cmp.Or(a.conns, 1000),
	}
	if a.tcp {
		c.Memcached = "127.0.0.1:11211"
	}
	need, err := c.Memory()
	filter, filterErr := (&keyfilter.Settings{Keys: listedKeys}).Size()
	if err := errors.Join(err, filterErr); err != nil {
		panic(err) // the settings are above
	}
	const page = 4 << 10 // a cgroup counts whole ones
	return int64(need) + (2*filter+page)/page*page*int64(a.listed)
}

// endpoint is a sidecar as attackers see it.
type endpoint struct {
	Node, Socket, HTTP, Gossip, Peer string
	PID                              int
	Epoch                            uint64
}

// host is a sidecar's process.
type host struct {
	endpoint
	cmd    *exec.Cmd
	log    string
	exited chan struct{}

	cage     *cage // nil: its memory has no limit
	watching sync.WaitGroup
	peak     atomic.Int64 // bytes in use, since it was last reset
	killedAt atomic.Int64 // resident bytes when the watchdog killed it
}

// start executes the command, in a cage if there is one. The process ends with the test keeps.
func start(t, keeps testing.TB, dir, node string, c *cage, prefix []string, flags ...string) *host {
	t.Helper()
	h := &host{exited: make(chan struct{}), log: filepath.Join(dir, node+".log"), cage: c}
	if c != nil {
		prefix = append(c.prefix(), prefix...)
	}
	h.Node, h.Socket, h.HTTP = node, filepath.Join(dir, node+".sock"), testenv.FreeAddress(t)
	words := append(prefix, command(t), "run", "--node", node, "--socket", h.Socket, "--socket-mode", "0666",
		"--http", h.HTTP, "--pprof",
		"--l1-size", strconv.Itoa(l1Size), "--l2-size", strconv.Itoa(l2Size), "--buffer-size", strconv.Itoa(buffer),
		"--shared-size", strconv.Itoa(shared), "--log-format", "json")
	h.cmd = exec.Command(words[0], append(words[1:], flags...)...)
	h.cmd.Env = scrubbed()
	proctest.EndWithParent(h.cmd)
	out, err := os.OpenFile(h.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	testenv.Must(t, err)
	defer out.Close()
	h.cmd.Stdout, h.cmd.Stderr = out, out
	testenv.Must(t, h.cmd.Start())
	h.PID = h.cmd.Process.Pid
	go func() { // ends with the process, which the cleanup kills
		defer close(h.exited)
		_ = h.cmd.Wait()
	}()
	h.watching.Go(h.watch)
	keeps.Cleanup(h.kill)
	return h
}

// kill ends the process, and waits for it.
func (h *host) kill() {
	_ = h.cmd.Process.Kill()
	<-h.exited
	h.watching.Wait()
}

// tail returns the end of its log.
func (h *host) tail() string {
	b, _ := os.ReadFile(h.log)
	return string(b[max(0, len(b)-3000):])
}

// alive reports whether the process is running.
func (h *host) alive() bool {
	select {
	case <-h.exited:
		return false
	default:
		return true
	}
}

// watch follows the process's memory until it ends, and kills it if it grows beyond
// tooBig.
func (h *host) watch() {
	tick := time.NewTicker(15 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-h.exited:
			return
		case <-tick.C:
		}
		now := h.used()
		if now > h.peak.Load() {
			h.peak.Store(now)
		}
		if now > tooBig {
			h.killedAt.Store(now)
			_ = h.cmd.Process.Kill()
		}
	}
}

// used returns the memory that the process's limit counts, in bytes.
func (h *host) used() int64 {
	if h.cage != nil {
		return h.cage.used()
	}
	return h.rss()
}

// rss returns the process's resident memory in bytes, or 0 if it has ended.
func (h *host) rss() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", h.PID))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// get makes an HTTP request to the process.
func (h *host) get(path string) (int, string, error) {
	c := http.Client{Timeout: testenv.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://" + h.HTTP + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// collect makes the process collect its garbage, including pools, which it would do by
// itself within minutes.
func (h *host) collect() error {
	for range 3 {
		if _, _, err := h.get("/debug/pprof/heap?gc=1"); err != nil {
			return err
		}
	}
	return nil
}

// ready waits until the process serves in a cluster of the given number of members, and
// fills its tiers, so that it uses the memory that it is configured for.
func (h *host) ready(t testing.TB, members int) {
	t.Helper()
	var c *conn
	testenv.Succeeds(t, "the sidecar to serve", func() error {
		if !h.alive() {
			b, _ := os.ReadFile(h.log)
			t.Fatalf("%s has ended:\n%s", h.Node, b)
		}
		if status, text, err := h.get("/readyz"); err != nil || status != http.StatusOK {
			return fmt.Errorf("readyz: %d %s %v", status, text, err)
		}
		if c == nil {
			var err error
			if c, err = open(t.Context(), h.Socket, testenv.Patience); err != nil {
				return err
			}
		}
		a, err := c.call(wire.OpMembers, 0)
		if err != nil {
			return err
		}
		in := strings.Count(fmt.Sprint(a.at(0)), "state:in ")
		if list, _ := a.at(0).([]any); in != members && len(list) != 0 {
			return fmt.Errorf("%d members in: %v", in, a)
		}
		a, err = c.call(wire.OpSet, 5000, victims, []byte("ready"), []byte("v"))
		if err == nil && a.status != wire.OK {
			err = errors.New(a.String())
		}
		return err
	})
	defer c.Close()
	h.Epoch = number(c.welcome["epoch"])
	testenv.Must(t, errors.Join(h.fill(c, l2Size*5/4, true), h.fill(c, 4*l1Size, false)))
}

// fill writes or reads size bytes of entries that no test uses.
func (h *host) fill(c *conn, size int, write bool) error {
	const batch, length = 32, 8 << 10
	value := make([]byte, length)
	for n := 0; n < size/length; n += batch {
		var b []byte
		for i := range batch {
			key := fmt.Appendf(nil, "%s %d", h.Node, n+i)
			if write {
				b = append(b, frame(n+i+1000, wire.OpSet, 60_000, "fill", key, value)...)
			} else {
				b = append(b, frame(n+i+1000, wire.OpGet, 60_000, "fill", key)...)
			}
		}
		_ = c.SetDeadline(testenv.Deadline())
		if _, err := c.Write(b); err != nil {
			return err
		}
		for range batch {
			if _, err := c.read(); err != nil {
				return err
			}
		}
	}
	return nil
}

// scrubbed returns the environment without the variables for sidecars and their clients.
func scrubbed() (env []string) {
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CACHESIDECAR_") && !strings.HasPrefix(e, "ATTACKS_") {
			env = append(env, e)
		}
	}
	return env
}

// programs is the folder of the command that built builds.
var programs string

// built builds the command, once.
var built = sync.OnceValues(func() (path string, err error) {
	if programs, err = os.MkdirTemp("", "csattack"); err != nil {
		return "", err
	}
	return testenv.Build(programs)
})

func command(t testing.TB) string {
	t.Helper()
	path, err := built()
	testenv.Must(t, err)
	return path
}

// folder returns a new folder with a short path that other users may enter.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "csa")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	testenv.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// sizeOf returns a file's size, or 0 if it does not exist.
func sizeOf(path string) int64 {
	i, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return i.Size()
}
