package shm

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// A reader takes no file but a whole region of its layout.
func TestMapRefuses(t *testing.T) {
	g := newRig(t, MinSize)
	good := bytes.Clone(g.r.mem)
	for want, change := range map[string]func(b []byte) []byte{
		"at least":      func(b []byte) []byte { return b[:MinSize-4096] },
		"header says":   func(b []byte) []byte { return append(b, make([]byte, 4096)...) },
		"not a sidecar": func(b []byte) []byte { b[0]++; return b },
		"has layout 2":  func(b []byte) []byte { b[atLayout] = 2; return b },
		"buckets":       func(b []byte) []byte { order.PutUint64(b[atBuckets:], 1<<40); return b },
		"lines":         func(b []byte) []byte { order.PutUint64(b[atLines:], 1<<60); return b },
		"0 buckets":     func(b []byte) []byte { order.PutUint64(b[atBuckets:], 0); return b },
	} {
		path := filepath.Join(t.TempDir(), "f")
		testenv.Must(t, os.WriteFile(path, change(bytes.Clone(good)), 0o600))
		f, err := os.Open(path)
		testenv.Must(t, err)
		if _, err := Map(f); err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(want, "at least")) {
			t.Errorf("%s: %v", want, err)
		}
		f.Close()
	}
	dir, err := os.Open(t.TempDir())
	testenv.Must(t, err)
	defer dir.Close()
	if _, err := Map(dir); err == nil {
		t.Error("a folder was mapped")
	}
}

// Only the sidecar's user may open the file. What an app gets cannot be written to.
func TestMode(t *testing.T) {
	f := newFile(t, MinSize)
	fi, err := os.Stat(f.Path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	file, err := f.Open()
	testenv.Must(t, err)
	defer file.Close()
	if _, err := file.Write([]byte("x")); err == nil {
		t.Error("an app's descriptor can write")
	}
	if m, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		t.Error("an app's descriptor can be mapped to write", len(m))
	}
}

// A region that a killed process of another layout has left is closed and removed.
func TestEndOthers(t *testing.T) {
	g := newRig(t, MinSize)
	g.publish("a", "one")
	g.Abandon()
	socket := sockets[g.file]
	g.file.mem.word(atLayout).Store(99)
	if n, err := EndOthers(socket); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	g.expect("a", "", start)
	if !g.r.Closed() {
		t.Error("it is not closed")
	}
	if _, err := os.Stat(g.file.Path); !os.IsNotExist(err) {
		t.Error(err)
	}
	if n, err := EndOthers(socket); n != 0 || err != nil {
		t.Error(n, err)
	}
}

// What a killed sidecar has left is removed by the next one of this user, whatever its socket.
// The region of one that lives is not.
func TestEndOthersOfOtherSockets(t *testing.T) {
	lives, left := newRig(t, MinSize), newFile(t, MinSize)
	lives.publish("a", "one")
	if err := unix.Flock(left.fd, unix.LOCK_UN); err != nil { // as at the end of a process
		t.Fatal(err)
	}
	if n, err := EndOthers(filepath.Join(t.TempDir(), "another.sock")); n != 0 || err != nil {
		t.Error(n, err)
	}
	lives.expect("a", "one", start)
	if _, err := os.Stat(lives.file.Path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left.Path); !os.IsNotExist(err) {
		t.Error("it is still there", err)
	}
}

// What is no region of this user is left alone, and does not delay the start.
func TestEndOthersLeavesAlone(t *testing.T) {
	f := newFile(t, MinSize)
	socket := sockets[f]
	other := filepath.Join(t.TempDir(), "precious")
	testenv.Must(t, os.WriteFile(other, bytes.Repeat([]byte{1}, MinSize), 0o600))
	for name, make := range map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink(other, path) },
		"pipe":   func(path string) error { return unix.Mkfifo(path, 0o600) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"another user's": func(path string) error {
			if os.Geteuid() != 0 {
				t.Log("run as root to test a file of another user")
				return os.Symlink(other, path)
			}
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 12345, 12345))
		},
	} {
		testenv.Must(t, os.Remove(f.Path))
		testenv.Must(t, make(f.Path))
		if n, err := EndOthers(socket); n != 0 || err != nil {
			t.Errorf("%s: %d ended, %v", name, n, err)
		}
		if _, err := os.Lstat(f.Path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile(other); err != nil || bytes.Contains(b, []byte{Closed}) {
		t.Error("what the link leads to was written", err)
	}
	if _, err := f.Open(); err == nil {
		t.Error("another file was opened for an app")
	}
}

// Where there is no room there is no region, and no file either.
func TestNoRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("run as root: it mounts a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("cannot mount a tmpfs: run in a mount namespace of your own: ", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	socket := filepath.Join(dir, "s")
	testenv.Must(t, os.WriteFile(socket, nil, 0o600))
	if _, err := Create(socket, 32<<20); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Error(list, err)
	}
}

// readerBound is the bound in TestStoppedReader.
const readerBound = 200 * time.Millisecond

// TestMain runs this program as a reader of the region whose path is in the environment.
func TestMain(m *testing.M) {
	path := os.Getenv("SHM_TEST_REGION")
	if path == "" {
		os.Exit(m.Run())
	}
	if err := readOn(path); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// readOn reads until its stdin ends. Each value carries its key, the time when it was
// published, and a checksum. It prints a line at the first hit, and in the end the number
// of hits, and the age of the oldest.
func readOn(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	r, err := Map(file)
	if err != nil {
		return err
	}
	v, ok := r.Find("users")
	if !ok {
		return errors.New("no namespace")
	}
	clock, hits, oldest := kv.NewSystemClock(), 0, time.Duration(0)
	ended := make(chan struct{})
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		close(ended)
	}()
	for {
		select {
		case <-ended:
			fmt.Println("hits", hits, "oldest", int64(oldest))
			return nil
		default:
		}
		for range 1000 {
			key := fmt.Sprintf("key-%d", rand.IntN(500))
			began := clock.Read().Boot
			f, ok, _ := r.Get(&v, v.Hash([]byte(key)), []byte(key), began)
			if !ok {
				continue
			}
			if hits++; hits == 1 {
				fmt.Println("the first hit")
			}
			if !sound(key, f.Value) {
				return fmt.Errorf("%s: torn: %q", key, f.Value)
			}
			at := time.Duration(binary.LittleEndian.Uint64(f.Value[len(key)+1:]))
			oldest = max(oldest, began-at)
		}
	}
}

// Readers that are stopped in the middle of reads, for longer than the bound, while the
// writer writes at full speed, find only whole values that were current within the bound.
func TestStoppedReader(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	testenv.ReadsClock(t, readerBound*3/2, "a reader that is stopped for longer than the bound of staleness reads nothing old")
	t.Parallel()
	clock := kv.NewSystemClock()
	g := &rig{t: t, Writer: new(Writer), file: newFile(t, MinSize)}
	g.SetNamespace(3, space)
	g.region = g.Attach(g.file, 1, readerBound, all)
	g.Certify(0, clock.Read().Boot)
	program, err := os.Executable()
	testenv.Must(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "SHM_TEST_REGION="+g.file.Path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	testenv.Must(t, err)
	out, err := cmd.StdoutPipe()
	testenv.Must(t, err)
	testenv.Must(t, cmd.Start())
	stop, done := make(chan struct{}), make(chan time.Duration, 1)
	go func() { // ends with stop
		const keys = 500
		var published [keys]time.Duration
		longest := time.Duration(0) // for which a value was current
		for i := 0; ; i++ {
			select {
			case <-stop:
				now := clock.Read().Boot
				for _, at := range published[:min(i, keys)] {
					longest = max(longest, now-at)
				}
				done <- longest
				return
			default:
			}
			now := clock.Read().Boot
			g.Certify(0, now)
			key := fmt.Sprintf("key-%d", i%keys)
			g.Withdraw(g.entry(key, "").Key.Hash)
			if i >= keys {
				longest = max(longest, clock.Read().Boot-published[i%keys])
			}
			published[i%keys] = now
			value := binary.LittleEndian.AppendUint64([]byte(key+"="), uint64(now))
			value = append(value, make([]byte, i%keys)...)
			g.Publish(g.region, g.entry(key, string(summed(value))), yes)
		}
	}()
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Errorf("no hit: %v", err)
	}
	stops := 5
	if testenv.Long() {
		stops = 12
	}
	for range stops {
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
		proctest.Stop(t, cmd.Process)
		time.Sleep(readerBound * 3 / 2)
		_ = cmd.Process.Signal(syscall.SIGCONT)
	}
	_ = in.Close()
	said, _ := lines.ReadString('\n')
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	close(stop)
	longest := <-done
	var hits int
	var oldest time.Duration
	if _, err := fmt.Sscanf(said, "hits %d oldest %d", &hits, &oldest); err != nil || hits == 0 {
		t.Errorf("%q: %v", said, err)
	}
	if oldest > longest+readerBound {
		t.Errorf("a hit was published %v before; values are current for %v at most, and the bound is %v", oldest, longest, readerBound)
	}
	t.Logf("%d hits; the oldest was published %v before, and values were current for %v at most", hits, oldest, longest)
}
