package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
)

// real is a real sidecar.
type real struct {
	socket string
	cmd    *exec.Cmd
	log    bytes.Buffer
	ended  chan error
	client *client.Client // of the runner, in the conversations' namespace
}

// moduleRoot returns the folder of this module.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cachesidecar/cachesidecar").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m: %w: run this in clients/conformance", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// command returns the path of the command, which it builds into dir unless TEST_COMMAND
// names one.
func command(root, dir string) (string, error) {
	if program := os.Getenv("TEST_COMMAND"); program != "" {
		return program, nil
	}
	program := filepath.Join(dir, "cachesidecar")
	build := exec.Command("go", "build", "-o", program, "./cmd/cachesidecar")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/cachesidecar: %w\n%s", err, out)
	}
	return program, nil
}

// start starts a sidecar that keeps everything in dir.
func start(root, dir string) (*real, error) {
	program, err := command(root, dir)
	if err != nil {
		return nil, err
	}
	r := &real{socket: filepath.Join(dir, "sidecar.sock"), ended: make(chan error, 1)}
	r.cmd = exec.Command(program, "run", "--node", "conformance", "--socket", r.socket, "--http", "off",
		"--bind", "off", "--l1-size", "8MiB", "--l2-size", "64MiB", "--log-level", "warn")
	r.cmd.Dir = dir
	r.cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")} // nothing else configures it
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { r.ended <- r.cmd.Wait() }()
	if err := r.dial(); err != nil {
		r.stop()
		return nil, fmt.Errorf("the sidecar does not serve: %w\n%s", err, r.log.Bytes())
	}
	return r, nil
}

// dial connects the runner's own client.
func (r *real) dial() (err error) {
	for deadline := time.Now().Add(20 * time.Second); ; {
		r.client, err = client.Dial(context.Background(), client.Config{
			Socket: r.socket, Namespace: defaults.Namespace, RequestTimeout: 10 * time.Second, NoSharedMemory: true,
		})
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case err := <-r.ended:
			r.ended <- err
			return fmt.Errorf("it has ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop ends the sidecar.
func (r *real) stop() {
	if r.client != nil {
		_ = r.client.Close()
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(20 * time.Second):
		_ = r.cmd.Process.Kill()
		<-r.ended
	}
}

// put stores what a conversation needs.
func (r *real) put(s stored, prefix string) error {
	key := string(bytesOf(s.Key, prefix))
	if s.Miss {
		err := r.client.Delete(context.Background(), key, cachesidecar.DeleteOptions{})
		if errors.Is(err, cachesidecar.ErrNotFound) {
			err = nil
		}
		return err
	}
	b, flags, err := s.content()
	if err == nil {
		_, err = r.client.Set(context.Background(), key, b, cachesidecar.SetOptions{Flags: flags})
	}
	return err
}

// check compares what the sidecar has with what a conversation leaves.
func (r *real) check(s stored, prefix string) error {
	it, err := r.client.Get(context.Background(), string(bytesOf(s.Key, prefix)), cachesidecar.GetOptions{})
	switch {
	case errors.Is(err, cachesidecar.ErrNotFound):
		if s.Miss {
			return nil
		}
		return errors.New("the sidecar has no value")
	case err != nil:
		return err
	case s.Miss:
		return fmt.Errorf("the sidecar has the value %x", it.Value)
	case s.Value != nil:
		return s.Value.is(it.Value, it.Flags)
	}
	if b, flags, err := s.content(); err != nil || it.Flags != flags || !bytes.Equal(b, it.Value) {
		return fmt.Errorf("the sidecar has %x with flags %d, want %x with %d", it.Value, it.Flags, b, flags)
	}
	return nil
}

func (s *stored) content() ([]byte, uint32, error) {
	if s.Value != nil {
		return s.Value.encode()
	}
	b, err := hex.DecodeString(s.Hex)
	return b, s.Flags, err
}

func bytesOf(key value, prefix string) []byte {
	key = key.prefixed(prefix)
	return key.bytes()
}
