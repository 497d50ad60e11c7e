package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

//go:embed exchange.json
var exchangeFile []byte

// exchanged is a key that one language writes and all others read.
type exchanged struct {
	Key   string `json:"key"`
	Value value  `json:"value"`
	Flags uint32 `json:"flags"` // the app's own, above the low 8 bits
}

// A key that is written in one language is read in all.
func TestExchange(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r, err := start(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop()
	var values []value
	if err := json.Unmarshal(exchangeFile, &values); err != nil {
		t.Fatal(err)
	}
	python := "/usr/bin/python3" // Debian's, which has msgpack
	if p := os.Getenv("PYTHON"); p != "" {
		python = p
	}
	languages := map[string]func(do string, all []exchanged) error{
		"go":     r.exchange,
		"python": other(r.socket, dir, python, filepath.Join(root, "clients/python/tests/exchange.py")),
		"node":   other(r.socket, dir, "node", filepath.Join(root, "clients/node/build/test/exchange.js")),
	}
	needs(t, "make clients", python, "-c", "import msgpack")
	needs(t, "make clients", "node", "-e", "fs.statSync(process.argv[1])",
		filepath.Join(root, "clients/node/build/test/exchange.js"))
	for writer, write := range languages {
		var all []exchanged
		for i, v := range values {
			all = append(all, exchanged{fmt.Sprintf("exchange:%s:%d", writer, i), v, uint32(0xabcd00|i) << 8})
		}
		if err := write("write", all); err != nil {
			t.Errorf("%s writes: %v", writer, err)
			continue
		}
		for reader, read := range languages {
			if err := read("read", all); err != nil {
				t.Errorf("%s reads what %s has written: %v", reader, writer, err)
			}
		}
	}
}

// needs skips the test if a command fails; in CI nothing may be missing.
func needs(t *testing.T, remedy, name string, args ...string) {
	if err := exec.Command(name, args...).Run(); err != nil {
		testenv.Needs(t, fmt.Sprintf("%s: %v: %s", name, err, remedy))
	}
}

// other returns the exchange of a program that reads its task as JSON.
func other(socket, dir, name, program string) func(string, []exchanged) error {
	return func(do string, all []exchanged) error {
		task, err := json.Marshal(map[string]any{"socket": socket, "do": do, "entries": all})
		if err != nil {
			return err
		}
		cmd := exec.Command(name, program)
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader(task)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
}

func (r *real) exchange(do string, all []exchanged) error {
	for _, e := range all {
		if do == "write" {
			b, flags, err := e.Value.encode()
			if err == nil {
				_, err = r.client.Set(context.Background(), e.Key, b, cachesidecar.SetOptions{Flags: e.Flags | flags})
			}
			if err != nil {
				return fmt.Errorf("%s: %w", e.Key, err)
			}
			continue
		}
		it, err := r.client.Get(context.Background(), e.Key, cachesidecar.GetOptions{})
		if err == nil {
			err = e.Value.is(it.Value, it.Flags)
		}
		if err == nil && it.Flags&^0xff != e.Flags {
			err = fmt.Errorf("the flags are %#x, want %#x", it.Flags&^0xff, e.Flags)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
	}
	return nil
}
