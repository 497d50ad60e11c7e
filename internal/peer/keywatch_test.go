package peer

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// watched is a KeyWatch of one key file, in virtual time.
type watched struct {
	KeyWatch
	t       *testing.T
	path    string
	log     lockedBuffer
	renewed atomic.Int64
}

// lockedBuffer is a buffer that a log can write while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

func (b *lockedBuffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out.Reset()
}

// inWatch runs f with a KeyWatch whose file has one key. The prepare functions run before
// KeyWatch.Run begins.
func inWatch(t *testing.T, f func(*watched), prepare ...func(*watched)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		w := &watched{t: t, path: filepath.Join(t.TempDir(), "cluster.key")}
		peertest.Replace(t, w.path, peertest.KeyText(peertest.Seed, "1"))
		cfg := KeyWatchConfig{Paths: KeyPaths{ClusterKey: w.path}, Node: "a", Now: time.Now, Log: slog.New(slog.NewTextHandler(&w.log, nil))}
		w.Renew = func() { w.renewed.Add(1) }
		testenv.Must(t, w.Open(cfg))
		for _, p := range prepare {
			p(w)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		time.Sleep(LookEvery / 2)
		f(w)
		stop()
		<-done
	})
}

// after waits for a number of checks, then compares the number of keys and the counts.
func (w *watched) after(looks int, keys, renewed, taken, refused int) {
	w.t.Helper()
	time.Sleep(time.Duration(looks) * LookEvery)
	synctest.Wait()
	if got := w.set.Load().Keys; got != keys || w.renewed.Load() != int64(renewed) || w.taken.Load() != int64(taken) || w.refused.Load() != int64(refused) {
		w.t.Errorf("%d keys, %d times renewed, %d taken, %d refused; want %d, %d, %d, %d", got, w.renewed.Load(), w.taken.Load(), w.refused.Load(), keys, renewed, taken, refused)
	}
}

// TestWatchWithoutFiles checks that a KeyWatch without a cluster key has no credentials and
// no functions that would return them.
func TestWatchWithoutFiles(t *testing.T) {
	var w KeyWatch
	testenv.Must(t, w.Open(KeyWatchConfig{Node: "a"}))
	if credentials := w.Source(); credentials != nil || w.Present() != nil || w.Seed() != 0 {
		t.Errorf("credentials %v, present %v, seed %d", credentials != nil, w.Present(), w.Seed())
	}
	if err := w.Reload(); err != nil {
		t.Error(err)
	}
}

// TestKeysWatch checks that a change is taken after two checks have seen the same
// content. A wrong content changes nothing and is logged once.
func TestKeysWatch(t *testing.T) {
	inWatch(t, func(w *watched) {
		first := w.set.Load()
		w.after(5, 1, 0, 0, 0)
		peertest.Replace(t, w.path, peertest.KeyText(peertest.Seed, "12"))
		w.after(1, 1, 0, 0, 0)
		w.after(1, 2, 1, 1, 0)
		w.after(5, 2, 1, 1, 0)
		credentials := w.Source()
		if credentials() == first || len(credentials().Gossip) != 2 {
			t.Error("what others are shown is not replaced")
		}
		// The file changes between any two checks.
		for i := range 10 {
			peertest.Replace(t, w.path, peertest.KeyText(peertest.Seed, "12")+strings.Repeat("#", i))
			w.after(1, 2, 1, 1, 0)
		}
		before := w.set.Load()
		w.log.Reset()
		peertest.Replace(t, w.path, peertest.KeyText(peertest.Seed, "1")+"rubbish")
		w.after(10, 2, 1, 1, 1)
		testenv.Must(t, os.Remove(w.path))
		w.after(10, 2, 1, 1, 2)
		peertest.Replace(t, w.path, peertest.KeyText(peertest.Seed+1, "12"))
		w.after(10, 2, 1, 1, 3)
		if w.set.Load() != before || w.Seed() != peertest.Seed {
			t.Error("something has changed")
		}
		log := w.log.String()
		for _, want := range []string{"line 3: neither a seed", "no such file", "the seed is another one, and it places every key: put the line back"} {
			if strings.Count(log, want) != 1 || !strings.Contains(log, w.path) {
				t.Errorf("%q is told %d times:\n%s", want, strings.Count(log, want), log)
			}
		}
		w.log.Reset()
		peertest.Replace(t, w.path, peertest.KeyText(peertest.Seed, "2"))
		w.after(2, 1, 2, 2, 3)
		if log := w.log.String(); !strings.Contains(log, "keys=1 first="+w.set.Load().Fingerprint) {
			t.Errorf("the change is told so: %s", log)
		}
		for _, secret := range []string{strings.Repeat("1", 20), strings.Repeat("2", 20), "123456789abcdef"} {
			if strings.Contains(log, secret) {
				t.Errorf("the log has a secret:\n%s", log)
			}
		}
	})
}

// TestKeysLink checks that a symbolic link with a new target counts as a change.
// Orchestrators change files that way.
func TestKeysLink(t *testing.T) {
	inWatch(t, func(w *watched) {
		for i, digits := range []string{"12", "21", "2"} {
			version := fmt.Sprint(w.path, i)
			peertest.Replace(t, version, peertest.KeyText(peertest.Seed, digits))
			testenv.Must(t, os.Symlink(version, w.path+"+"))
			testenv.Must(t, os.Rename(w.path+"+", w.path))
			w.after(2, len(digits), i+1, i+1, 0)
		}
	})
}

// TestKeysReload checks that Reload acts at once.
func TestKeysReload(t *testing.T) {
	inWatch(t, func(w *watched) {
		peertest.Replace(t, w.path, peertest.KeyText(peertest.Seed, "12"))
		if err := w.Reload(); err != nil {
			t.Error(err)
		}
		w.after(0, 2, 1, 1, 0)
		peertest.Replace(t, w.path, "")
		if err := w.Reload(); err == nil || !strings.Contains(err.Error(), w.path) {
			t.Errorf("an empty file: %v", err)
		}
		w.after(0, 2, 1, 1, 1)
		w.after(5, 2, 1, 1, 1) // the watch does not count it again
	})
}

// TestCertificateNotGoodYet checks that a certificate is taken once it becomes valid,
// and is refused once before that. The clock of the host that made it may be ahead of
// this host's clock.
func TestCertificateNotGoodYet(t *testing.T) {
	inWatch(t, func(w *watched) {
		w.after(10, 1, 0, 0, 1)
		w.after(30, 1, 1, 1, 1)
	}, func(w *watched) {
		by := peertest.NewAuthority(t, "one")
		dir := t.TempDir()
		w.Paths.Cert, w.Paths.Key, w.Paths.CA = filepath.Join(dir, "crt"), filepath.Join(dir, "pem"), filepath.Join(dir, "ca")
		good := time.Now().Add(time.Minute)
		cert := by.Certificate(t, []string{"a"}, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = good, good.Add(time.Hour) })
		private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		testenv.Must(t, err)
		peertest.Replace(t, w.Paths.CA, peertest.PEM("CERTIFICATE", by.Root.Raw))
		peertest.Replace(t, w.Paths.Key, peertest.PEM("PRIVATE KEY", private))
		peertest.Replace(t, w.Paths.Cert, peertest.PEM("CERTIFICATE", cert.Certificate[0]))
	})
}
