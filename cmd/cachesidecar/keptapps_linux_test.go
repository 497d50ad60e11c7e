package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestLengthyKeptRestarts restarts a sidecar that keeps its memory, while apps use it over the socket,
// through the shared memory, and over memcached's protocol. No call fails, and each read returns what its app
// has written last.
func TestLengthyKeptRestarts(t *testing.T) {
	testenv.Takes(t, 30*time.Second)
	testenv.ReadsClock(t, time.Minute, "a client waits at most as long for the next process")
	const restarts = 150
	k := newSystemdStore(t)
	k.keeps("unix", k.socket)
	text := k.keeps("tcp", "127.0.0.1:0").Addr().String()
	flags := []string{"--keep-memory", "--l2-size", "64MiB", "--memcached", text}
	p := k.start(flags...)
	ctx, stop := context.WithCancel(t.Context())
	var apps, begun sync.WaitGroup
	defer apps.Wait()
	defer stop()
	var calls, shared atomic.Int64
	run := func(name string, set func(value string) error, get func() (string, error)) {
		begun.Add(1)
		apps.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				value := fmt.Sprint(n)
				if err := set(value); err != nil {
					t.Errorf("%s: set %d: %v", name, n, err)
				}
				if n == 0 {
					begun.Done()
				}
				for i := 0; i < 20 && ctx.Err() == nil; i++ {
					if got, err := get(); err != nil || got != value {
						t.Errorf("%s: get: %q, %v, want %q", name, got, err, value)
					}
				}
				calls.Add(1)
				time.Sleep(time.Millisecond) // a rate that leaves the processor to the sidecar
			}
		})
	}
	for _, memory := range []bool{false, true} {
		c, err := client.Dial(ctx, client.Config{Socket: k.socket, NoSharedMemory: !memory, RequestTimeout: time.Minute})
		testenv.Must(t, err)
		t.Cleanup(func() { c.Close() })
		key := fmt.Sprint("memory ", memory)
		run(key, func(value string) error {
			_, err := c.Set(context.Background(), key, []byte(value), cachesidecar.SetOptions{})
			return err
		}, func() (string, error) {
			it, err := c.Get(context.Background(), key, cachesidecar.GetOptions{})
			if it.Source == "shared" {
				shared.Add(1)
			}
			return string(it.Value), err
		})
	}
	mc := &textApp{address: text}
	run("memcached", mc.set, mc.get)
	begun.Wait()
	testenv.Succeeds(t, "a hit in the shared memory", func() error {
		if shared.Load() == 0 {
			return fmt.Errorf("%d rounds of calls", calls.Load())
		}
		return nil
	})
	for restart := range restarts {
		k.ends(p)
		p = k.start(flags...)
		if got := takenOver(p); got.Cold != "" || got.Entries < 3 {
			t.Fatalf("restart %d: %+v", restart, got)
		}
	}
	stop()
	apps.Wait()
	if calls.Load() < int64(restarts) || shared.Load() == 0 {
		t.Errorf("%d rounds of calls, %d hits in the shared memory", calls.Load(), shared.Load())
	}
	k.ends(p)
}

// textApp is an app that speaks memcached's protocol. It connects anew once its connection has ended.
type textApp struct {
	address string
	nc      net.Conn
	r       *bufio.Reader
}

func (a *textApp) set(value string) error {
	line, err := a.ask(fmt.Sprintf("set k 0 0 %d\r\n%s\r\n", len(value), value))
	if err == nil && line != "STORED" {
		err = errors.New(line)
	}
	return err
}

func (a *textApp) get() (string, error) {
	line, err := a.ask("get k\r\n")
	if err != nil || !strings.HasPrefix(line, "VALUE ") {
		return line, err
	}
	value, err := a.r.ReadString('\n')
	if err == nil {
		_, err = a.r.ReadString('\n') // END
	}
	return strings.TrimSpace(value), err
}

// ask sends a command, once more on another connection if there is no answer: a sidecar that ends closes the
// connections that have no request under way.
func (a *textApp) ask(command string) (line string, err error) {
	for range 2 {
		if a.nc == nil {
			if a.nc, err = net.Dial("tcp", a.address); err != nil {
				return "", err
			}
			a.r = bufio.NewReader(a.nc)
		}
		_ = a.nc.SetDeadline(testenv.Deadline())
		if _, err = io.WriteString(a.nc, command); err == nil {
			if line, err = a.r.ReadString('\n'); err == nil {
				return strings.TrimSpace(line), nil
			}
		}
		_ = a.nc.Close()
		a.nc = nil
	}
	return "", err
}
