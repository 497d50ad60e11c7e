package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// TestKeptLargePages checks that Run has the memory that is kept in large pages, if the system knows how, and
// that neither the entries nor the memory in use change.
func TestKeptLargePages(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, err := New(Config{Size: 4 * MinSize, Versions: kv.NewHLC(1), Keep: &Keep{}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.SetNamespace(0, testSeed, 0, Limits{})
		value := bytes.Repeat([]byte("v"), 5000)
		for i := range 3000 {
			mustPut(t, s, fmt.Sprint("key", i), Write{Value: value})
		}
		var before, after unix.Stat_t
		_ = unix.Fstat(int(s.Memory().Fd()), &before)

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx, &testClock{start: time.Now()}) }()
		time.Sleep(10 * reclaimEvery)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}

		_ = unix.Fstat(int(s.Memory().Fd()), &after)
		if used := before.Blocks * 512; used < 5*largePage || after.Blocks > before.Blocks*17/16 {
			t.Errorf("%d blocks are in use, were %d", after.Blocks, before.Blocks)
		}
		if large, can := largePages(t, s.memory.bytes), makesLargePages(t); large > 4 != can {
			t.Errorf("there are %d large pages, and the system makes such: %v", large, can)
		}
		for i := range 3000 {
			if got, _, _ := s.Get(nil, testKey(fmt.Sprint("key", i)), NoLimit, testNow.Boot); !bytes.Equal(got, value) {
				t.Errorf("key%d: %d bytes", i, len(got))
			}
		}
	})
}

// TestInUse checks how much of a large page may be new.
func TestInUse(t *testing.T) {
	for none, want := range map[int]bool{0: true, 31: true, 32: false, 512: false} {
		f, err := newMemory(largePage)
		if err != nil {
			t.Fatal(err)
		}
		b, err := mapMemory(f, largePage)
		if err != nil {
			t.Fatal(err)
		}
		for i := none; i < 512; i++ {
			b[i*4096] = 1
		}
		if got := inUse(b); got != (want && os.Getpagesize() == 4096) {
			t.Errorf("%d pages take no memory: in use %v", none, got)
		}
		if err := errors.Join(unmapMemory(b), f.Close()); err != nil {
			t.Error(err)
		}
	}
}

// largePages returns how many large pages a mapping has.
func largePages(t *testing.T, mapping []byte) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, own, ok := strings.Cut(string(b), fmt.Sprintf("\n%x-", unsafe.SliceData(mapping)))
	if !ok {
		t.Fatal("the mapping is not in smaps")
	}
	own, _, _ = strings.Cut(own, "\nVmFlags")
	var kib int
	_, size, _ := strings.Cut(own, "ShmemPmdMapped:")
	_, _ = fmt.Sscan(size, &kib)
	return kib << 10 / largePage
}

// makesLargePages reports whether the system makes large pages when it is asked.
func makesLargePages(t *testing.T) bool {
	t.Helper()
	b, err := unix.Mmap(-1, 0, 2*largePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] = 1
	}
	err = unix.Madvise(b, unix.MADV_COLLAPSE)
	_ = unix.Munmap(b)
	return err == nil && os.Getpagesize() == 4096
}
