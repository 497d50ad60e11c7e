package segment

import (
	"bytes"
	"context"
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
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestKeptLargePages checks that Run has the memory that is kept in large pages, if the system knows how, and
// that neither the entries nor the memory in use change.
func TestKeptLargePages(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, err := New(Config{Size: 6 * MinSize, Shards: 128, Versions: kv.NewHLC(1), Keep: &Keep{}})
		testenv.Must(t, err)
		defer s.Close()
		s.SetNamespace(0, testSeed, 0, Limits{})
		dir, fresh := s.shards[64].index.dir, s.pages.get()
		s.pages.put(dir[0]) // amid other pages
		dir[0] = fresh
		value := bytes.Repeat([]byte("v"), 5000)
		for i := range 5000 {
			mustPut(t, s, fmt.Sprint("key", i), Write{Value: value})
		}
		for i := 1000; i < 1300; i++ {
			s.Delete(testKey(fmt.Sprint("key", i)), testNow)
		}
		s.pool.charge(s.pool.budget) // what is free goes back to the system
		s.pool.charge(-s.pool.budget)

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx, &testClock{start: time.Now()}) }()
		time.Sleep(10 * reclaimEvery)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}

		holes := 0
		hole := func(at, n int) {
			data, err := unix.Seek(int(s.Memory().Fd()), int64(at), unix.SEEK_DATA)
			if err == nil && data < int64(at+n) {
				t.Errorf("byte %d takes memory", data)
			}
		}
		for _, id := range s.pool.cold {
			if id < 800 { // it was in use
				holes++
			}
			hole(keptStart+int(id)*s.cfg.SegmentSize, s.cfg.SegmentSize)
		}
		for _, id := range append(s.pages.free, s.pages.next) {
			hole(keptStart+len(s.arena)+int(id)*pageSize, pageSize)
		}
		if holes == 0 || len(s.pages.free) == 0 {
			t.Error("nothing was free amid the rest")
		}
		if large, can := largePages(t, s.memory.bytes), makesLargePages(t); large > largeAtOnce != can {
			t.Errorf("there are %d large pages, and the system makes such: %v", large, can)
		}
		for i := range 5000 {
			got, _, ok := s.Get(nil, testKey(fmt.Sprint("key", i)), NoLimit, testNow.Boot)
			if want := i < 1000 || i >= 1300; ok != want || want && !bytes.Equal(got, value) {
				t.Errorf("key%d: %v, %d bytes", i, ok, len(got))
			}
		}
	})
}

// largePages returns how many large pages a mapping has.
func largePages(t *testing.T, mapping []byte) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	testenv.Must(t, err)
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
	testenv.Must(t, err)
	for i := range b {
		b[i] = 1
	}
	err = unix.Madvise(b, unix.MADV_COLLAPSE)
	_ = unix.Munmap(b)
	return err == nil && os.Getpagesize() == 4096
}
