package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestKeyGenerate(t *testing.T) {
	printed := command(t, "", "key", "generate")
	other := command(t, "", "key", "generate")
	f, err := peer.ParseKeyFile([]byte(printed.out))
	if err != nil || printed.status != exitDone || printed.err != "" || len(f.Keys) != 1 || printed.out == other.out {
		t.Fatalf("%v: %v", printed, err)
	}
	if line := command(t, "", "key", "generate", "--key-only"); line.status != exitDone || strings.Count(line.out, "\n") != 1 {
		t.Errorf("%v", line)
	} else if two, err := peer.ParseKeyFile([]byte(printed.out + line.out)); err != nil || len(two.Keys) != 2 || two.Seed != f.Seed {
		t.Errorf("with one more key: %+v, %v", two, err)
	}
	path := filepath.Join(tempDir(t), "cluster.key")
	if o := command(t, "", "key", "generate", "--out", path); o != (outcome{exitDone, "", ""}) {
		t.Fatalf("%v", o)
	}
	text, err := os.ReadFile(path)
	testenv.Must(t, err)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if o := command(t, "", "key", "generate", "--out", path); o.status != exitMiss || o.out != "" || !strings.Contains(o.err, path+" exists, and may be the key of running hosts") {
		t.Errorf("over a file: %v", o)
	}
	if again, err := os.ReadFile(path); err != nil || string(again) != string(text) {
		t.Errorf("the file has changed: %v", err)
	}
	command(t, "", "key", "generate", "--out", filepath.Join(path, "no")).fails(t, "below a file", exitMiss, "give the path of a file that can be made")
	testenv.Must(t, os.Chmod(path, 0o644))
	for _, args := range [][]string{{"run", "--cluster-key-file", path}, {"run", "--cluster-key-file", path, "--bind", "127.0.0.1:0"}} {
		command(t, "", args...).fails(t, "a file that all may read", exitUsage, "it contains a secret and has mode 0644, which lets other users read or change it: chmod 0640 it, or 0600")
	}
}

// told waits until the log contains a text n times.
func (p *process) told(text string, n int) {
	p.t.Helper()
	p.waitFor(text, p.log, func(log string) bool { return strings.Count(log, text) >= n })
}

// TestLengthyHangup checks that SIGHUP reloads the keys and never ends a sidecar, with or
// without a key file and whatever the file contains.
func TestLengthyHangup(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	const taken, refused = `"msg":"cluster keys and certificates are read"`, `"msg":"the configuration is refused`
	plain := runSidecar(t)
	path := filepath.Join(tempDir(t), "cluster.key")
	old := peer.NewKeyFile()
	write := func(text string) {
		t.Helper()
		testenv.Must(t, errors.Join(os.WriteFile(path+"-", []byte(text), 0o600), os.Rename(path+"-", path)))
	}
	write(old)
	ports, err := freePorts(1)
	testenv.Must(t, err)
	p := runSidecar(t, "--cluster-key-file", path, "--http", loopback(ports[0]))
	metrics := func(want string) {
		t.Helper()
		r, err := http.Get("http://" + loopback(ports[0]) + "/metrics")
		testenv.Must(t, err)
		defer r.Body.Close()
		if b, err := io.ReadAll(r.Body); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("the metrics do not say %q: %v", want, err)
		}
	}
	f, err := peer.ParseKeyFile([]byte(old))
	testenv.Must(t, err)
	first := f.Keys[0].Fingerprint()
	metrics(`cachesidecar_keys{first="` + first + `"} 1`)
	write(old + peer.NewKeyLine())
	p.signal(syscall.SIGHUP)
	p.told(taken, 1)
	metrics(`cachesidecar_keys{first="` + first + `"} 2`)
	write(peer.NewKeyFile()) // with another seed
	for n := range 3 {
		p.signal(syscall.SIGHUP)
		p.told(refused, n+1)
	}
	p.told("the seed is another one", 3)
	testenv.Must(t, os.Remove(path))
	p.signal(syscall.SIGHUP)
	p.told("no such file", 1)
	metrics(`cachesidecar_keys{first="` + first + `"} 2`)
	write(old) // taken by the watch
	p.told(taken, 2)
	metrics(`cachesidecar_key_reloads_total{result="taken"} 2`)
	for n := range 5 {
		plain.signal(syscall.SIGHUP)
		plain.told("SIGHUP: ", n+1)
	}
	for _, p := range []*process{plain, p} {
		if o := p.at("set", "a", "b"); o.status != exitDone {
			t.Errorf("after SIGHUP: %v", o)
		}
		p.terminate()
		for _, secret := range strings.Fields(old) {
			if len(secret) >= 16 && strings.Contains(p.log.String(), secret) {
				t.Error("the log shows a secret")
			}
		}
	}
}
