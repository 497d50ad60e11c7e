package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// systemdStore keeps the memory and the listeners of a sidecar between its processes, as systemd does.
type systemdStore struct {
	t         *testing.T
	socket    string
	node      string
	notify    *net.UnixConn
	listeners []*os.File
	memory    *os.File // nil: none is kept
}

func newSystemdStore(t *testing.T) *systemdStore {
	t.Helper()
	dir := tempDir(t)
	k := &systemdStore{t: t, socket: filepath.Join(dir, "s"), node: "host1"}
	var err error
	k.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	testenv.Must(t, err)
	t.Cleanup(func() { k.notify.Close(); k.memory.Close() })
	return k
}

// start starts the next process, and returns once it serves.
func (k *systemdStore) start(flags ...string) *process {
	k.t.Helper()
	args := append([]string{
		"-c", `LISTEN_PID=$$ exec "$0" run --http off "$@"`, binary(), "--socket", k.socket, "--node", k.node,
	}, flags...)
	cmd := exec.Command("sh", args...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+k.notify.LocalAddr().String())
	cmd.ExtraFiles = slices.Clone(k.listeners)
	names := strings.Repeat("cachesidecar.socket:", len(k.listeners))
	if k.memory != nil {
		cmd.ExtraFiles, names = append(cmd.ExtraFiles, k.memory), names+"cachesidecar-memory"
	}
	if len(cmd.ExtraFiles) > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprint("LISTEN_FDS=", len(cmd.ExtraFiles)), "LISTEN_FDNAMES="+strings.TrimSuffix(names, ":"))
	}
	p := launch(k.t, cmd)
	p.socket = k.socket
	for k.hear() != "READY=1" {
	}
	return p
}

// hear takes a message to systemd.
func (k *systemdStore) hear() string {
	k.t.Helper()
	b, oob := make([]byte, 4096), make([]byte, 4096)
	_ = k.notify.SetReadDeadline(testenv.Deadline())
	n, m, _, _, err := k.notify.ReadMsgUnix(b, oob)
	testenv.Must(k.t, err)
	said := string(b[:n])
	switch {
	case strings.HasPrefix(said, "FDSTORE=1\nFDNAME=cachesidecar-memory"):
		list, err := unix.ParseSocketControlMessage(oob[:m])
		if err != nil || len(list) != 1 {
			k.t.Fatalf("%d control messages, %v", len(list), err)
		}
		fds, err := unix.ParseUnixRights(&list[0])
		if err != nil || len(fds) != 1 {
			k.t.Fatalf("%v, %v", fds, err)
		}
		unix.CloseOnExec(fds[0])
		k.memory = os.NewFile(uintptr(fds[0]), "memory")
	case strings.HasPrefix(said, "FDSTOREREMOVE=1\nFDNAME=cachesidecar-memory"):
		k.memory = nil
	}
	return said
}

// keeps keeps a listener. The address is that of the socket, or memcached's.
func (k *systemdStore) keeps(network, address string) net.Listener {
	k.t.Helper()
	ln := keeps(k.t, network, address)
	f, err := ln.(interface{ File() (*os.File, error) }).File()
	testenv.Must(k.t, err)
	k.t.Cleanup(func() { f.Close() })
	k.listeners = append(k.listeners, f)
	return ln
}

// takenOver returns what a process has taken over.
func takenOver(p *process) cachesidecar.KeptStats {
	p.t.Helper()
	var st cachesidecar.Stats
	p.document(&st, "stats")
	if st.L2.Kept == nil {
		return cachesidecar.KeptStats{}
	}
	return *st.L2.Kept
}

// ends ends a process in order, and takes what it tells meanwhile.
func (k *systemdStore) ends(p *process) {
	k.t.Helper()
	ends(p)
	for !strings.HasPrefix(k.hear(), "STOPPING=1\n") {
	}
}

// TestKeepMemory restarts a sidecar whose memory is kept: entries of all kinds are there, and what was
// deleted, flushed or has expired is not.
func TestKeepMemory(t *testing.T) {
	t.Parallel()
	k := newSystemdStore(t)
	config := filepath.Join(filepath.Dir(k.socket), "c.yaml")
	const settings = "keep_memory: true\nl2_size: 64MiB\nnamespaces: {small: {quota: 1MiB}, gone: {default_ttl: 1h}}\n"
	testenv.Must(t, os.WriteFile(config, []byte(settings), 0o600))
	p := k.start("--config", config)
	if got := takenOver(p); got.Entries != 0 || !strings.Contains(got.Cold, "it is the first start of the unit") {
		t.Errorf("the first start: %+v", got)
	}
	long := strings.Repeat("long ", 100_000)
	p.must("set", "plain", "value")
	p.dial().must(setRequest("large", long))
	p.must("set", "timed", "value", "--ttl", "1h")
	p.must("set", "brief", "value", "--ttl", "1ms")
	p.must("set", "deleted", "value")
	p.must("delete", "deleted")
	p.must("set", "flushed", "value", "--ns", "other")
	p.must("flush", "--ns", "other", "--yes")
	for _, ns := range []string{"other", "small", "gone"} {
		p.must("set", "k", "in "+ns, "--ns", ns)
	}
	p.must("incr", "count", "--initial", "5")
	version := p.must("get", "plain", "--json")
	for restart := range 3 {
		k.ends(p)
		if restart == 1 { // a namespace is configured no more
			testenv.Must(t, os.WriteFile(config, []byte(strings.Replace(settings, ", gone: {default_ttl: 1h}", "", 1)), 0o600))
		}
		p = k.start("--config", config)
		got := takenOver(p)
		if got.Cold != "" || got.Entries < 6 || got.DownMS <= 0 || got.DownMS > time.Minute.Milliseconds() {
			t.Fatalf("restart %d: %+v", restart, got)
		}
		if !strings.Contains(p.must("stats"), fmt.Sprintf("kept: %d entries, down for ", got.Entries)) {
			t.Errorf("stats do not say what was kept")
		}
		for key, want := range map[string]string{"plain": "value", "large": long, "timed": "value"} {
			if o := p.at("get", key); o.out != want {
				t.Errorf("restart %d: %s: %.40v", restart, key, o)
			}
		}
		for _, key := range []string{"brief", "deleted"} {
			if o := p.at("get", key); o.status != exitMiss {
				t.Errorf("restart %d: %s: %v", restart, key, o)
			}
		}
		for _, ns := range []string{"other", "small", "gone"} {
			if o := p.at("get", "k", "--ns", ns); o.out != "in "+ns {
				t.Errorf("restart %d: namespace %s: %v", restart, ns, o)
			}
		}
		if o := p.at("get", "flushed", "--ns", "other"); o.status != exitMiss {
			t.Errorf("restart %d: a flushed value: %v", restart, o)
		}
		if now := p.must("get", "plain", "--json"); strings.Split(now, `"ttl_ms"`)[0] != strings.Split(version, `"ttl_ms"`)[0] {
			t.Errorf("restart %d: %s, was %s", restart, now, version)
		}
		if got := strings.TrimSpace(p.must("incr", "count")); got != fmt.Sprint(6+restart) {
			t.Errorf("restart %d: count %s", restart, got)
		}
	}
	k.ends(p)
}

// TestKeepMemoryCold checks when a process does not take over what is kept, and what it says.
func TestKeepMemoryCold(t *testing.T) {
	t.Parallel()
	k := newSystemdStore(t)
	flags := []string{"--keep-memory", "--l2-size", "64MiB"}
	for _, tc := range []struct {
		name string
		end  func(p *process)
		next []string
		want string
	}{
		{"in order", k.ends, flags, ""},
		{"killed", func(p *process) { p.signal(syscall.SIGKILL); p.wait() }, flags, "the process before did not end in order"},
		{"another size", k.ends, []string{"--keep-memory", "--l2-size", "32MiB"}, "l2_size was"},
		{"fewer namespaces", k.ends, []string{"--keep-memory", "--l2-size", "64MiB", "--max-namespaces", "1"}, "max_namespaces is 1"},
		{"--cold", k.ends, append([]string{"--cold"}, flags...), "--cold is given"},
		{"no keep_memory", k.ends, flags[1:], "off"},
	} {
		p := k.start(flags...)
		p.must("set", "k", "v", "--ns", "second")
		memory := k.memory
		tc.end(p)
		p = k.start(tc.next...)
		got, o := takenOver(p), p.at("get", "k", "--ns", "second")
		switch {
		case tc.want == "":
			if got.Cold != "" || got.Entries != 1 || o.out != "v" || k.memory != memory {
				t.Errorf("%s: %+v, %v", tc.name, got, o)
			}
		case o.status != exitMiss || got.Entries != 0 || k.memory == memory:
			t.Errorf("%s: %+v, %v, the memory is kept: %v", tc.name, got, o, k.memory == memory)
		case tc.want == "off":
			if got.Cold != "" || k.memory != nil {
				t.Errorf("%s: %+v", tc.name, got)
			}
		case !strings.Contains(got.Cold, tc.want) || !strings.Contains(p.must("stats"), "kept none from before: "+got.Cold):
			t.Errorf("%s: %+v, want %s", tc.name, got, tc.want)
		}
		k.ends(p)
	}

	p := k.start(flags...)
	first := k.socket
	k.socket += "2"
	q := k.start(flags...) // of a memory that is in use
	if got := takenOver(q); !strings.Contains(got.Cold, "another process uses it") {
		t.Errorf("a second process: %+v", got)
	}
	p.socket = first
	p.must("set", "still", "there")
	k.ends(q)
	k.ends(p)
}

// TestKeepMemoryAfterFailure checks that a process which cannot serve leaves what it was to take over.
func TestKeepMemoryAfterFailure(t *testing.T) {
	t.Parallel()
	k := newSystemdStore(t)
	flags := []string{"--keep-memory", "--l2-size", "64MiB"}
	p := k.start(flags...)
	p.must("set", "k", "v")
	k.ends(p)
	busy := keeps(t, "tcp", "127.0.0.1:0")
	dsn := filepath.Join(filepath.Dir(k.socket), "c.yaml")
	text := "namespaces: {default: {origin: {postgres: {dsn_file: /nonexistent, query: SELECT $1}}}}\n"
	testenv.Must(t, os.WriteFile(dsn, []byte(text), 0o600))
	for _, wrong := range [][]string{{"--http", busy.Addr().String()}, {"--config", dsn}, {"--l2-size", "1"}} {
		args := append([]string{
			"-c", `LISTEN_PID=$$ exec "$0" run --node host1 "$@"`, binary(), "--socket", k.socket,
		}, append(flags, wrong...)...)
		cmd := exec.Command("sh", args...)
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+k.notify.LocalAddr().String(), "LISTEN_FDS=1",
			"LISTEN_FDNAMES=cachesidecar-memory")
		cmd.ExtraFiles = []*os.File{k.memory}
		p := launch(t, cmd)
		if status := p.wait(); status == exitDone {
			t.Fatalf("%v: it ends in order", wrong)
		}
	}
	p = k.start(flags...)
	if o := p.at("get", "k"); o.out != "v" {
		t.Errorf("%v, %+v", o, takenOver(p))
	}
	k.ends(p)
}
