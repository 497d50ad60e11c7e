package sidecar

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
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

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peertest"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

const testSeed = 0x0123456789abcdef

// keyText is a key file with keys of one digit each.
func keyText(seed uint64, digits string) string {
	text := fmt.Sprintf("seed: %016x\n", seed)
	for _, d := range digits {
		text += "key: " + strings.Repeat(string(d), 64) + "\n"
	}
	return text
}

// writeKeys replaces a file in one step.
func writeKeys(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+"-", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"-", path); err != nil {
		t.Fatal(err)
	}
}

// watched is keys whose file is watched, in virtual time.
type watched struct {
	keys
	t       *testing.T
	path    string
	log     lockedBuffer
	renewed atomic.Int64
}

// lockedBuffer is one that a log writes while a test looks.
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

// inWatch begins with a file of one key; what prepares comes before the watch.
func inWatch(t *testing.T, f func(*watched), prepare ...func(*watched)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &watched{t: t, path: filepath.Join(t.TempDir(), "cluster.key")}
		writeKeys(t, w.path, keyText(testSeed, "1"))
		cfg := &Config{Node: "a", ClusterKeyFile: w.path, Clock: kv.NewSystemClock(), Log: slog.New(slog.NewTextHandler(&w.log, nil))}
		w.renew = func() { w.renewed.Add(1) }
		if err := w.open(cfg); err != nil {
			t.Fatal(err)
		}
		for _, p := range prepare {
			p(w)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx) }()
		time.Sleep(lookEvery / 2)
		f(w)
		stop()
		<-done
	})
}

// after waits for some looks, and checks what is held then.
func (w *watched) after(looks int, keys, renewed, taken, refused int) {
	w.t.Helper()
	time.Sleep(time.Duration(looks) * lookEvery)
	synctest.Wait()
	if got := w.set.Load().Keys; got != keys || w.renewed.Load() != int64(renewed) || w.taken.Load() != int64(taken) || w.refused.Load() != int64(refused) {
		w.t.Errorf("%d keys, %d times renewed, %d taken, %d refused; want %d, %d, %d, %d", got, w.renewed.Load(), w.taken.Load(), w.refused.Load(), keys, renewed, taken, refused)
	}
}

// TestKeysWatch: a change counts when two looks have seen the same; what is wrong
// changes nothing, and is told once.
func TestKeysWatch(t *testing.T) {
	inWatch(t, func(w *watched) {
		first := w.peer.Load()
		w.after(5, 1, 0, 0, 0)
		writeKeys(t, w.path, keyText(testSeed, "12"))
		w.after(1, 1, 0, 0, 0)
		w.after(1, 2, 1, 1, 0)
		w.after(5, 2, 1, 1, 0)
		if w.peer.Load() == first || len(w.gossip()) != 2 {
			t.Error("what others are shown is not replaced")
		}
		// A file that is written while it is looked at.
		for i := range 10 {
			writeKeys(t, w.path, keyText(testSeed, "12")+strings.Repeat("#", i))
			w.after(1, 2, 1, 1, 0)
		}
		before := w.peer.Load()
		w.log.Reset()
		writeKeys(t, w.path, keyText(testSeed, "1")+"rubbish")
		w.after(10, 2, 1, 1, 1)
		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		w.after(10, 2, 1, 1, 2)
		writeKeys(t, w.path, keyText(testSeed+1, "12"))
		w.after(10, 2, 1, 1, 3)
		if w.peer.Load() != before || w.seed() != testSeed {
			t.Error("something has changed")
		}
		log := w.log.String()
		for _, want := range []string{"line 3: neither a seed", "no such file", "the seed is another one, and it places every key: put the line back"} {
			if strings.Count(log, want) != 1 || !strings.Contains(log, w.path) {
				t.Errorf("%q is told %d times:\n%s", want, strings.Count(log, want), log)
			}
		}
		w.log.Reset()
		writeKeys(t, w.path, keyText(testSeed, "2"))
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

// TestKeysLink: a link that is put elsewhere is a change, as an orchestrator makes
// them.
func TestKeysLink(t *testing.T) {
	inWatch(t, func(w *watched) {
		for i, digits := range []string{"12", "21", "2"} {
			version := fmt.Sprint(w.path, i)
			writeKeys(t, version, keyText(testSeed, digits))
			if err := os.Symlink(version, w.path+"+"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(w.path+"+", w.path); err != nil {
				t.Fatal(err)
			}
			w.after(2, len(digits), i+1, i+1, 0)
		}
	})
}

// TestKeysReload: what is asked for is done at once.
func TestKeysReload(t *testing.T) {
	inWatch(t, func(w *watched) {
		writeKeys(t, w.path, keyText(testSeed, "12"))
		if err := w.reload(); err != nil {
			t.Error(err)
		}
		w.after(0, 2, 1, 1, 0)
		writeKeys(t, w.path, "")
		if err := w.reload(); err == nil || !strings.Contains(err.Error(), w.path) {
			t.Errorf("an empty file: %v", err)
		}
		w.after(0, 2, 1, 1, 1)
		w.after(5, 2, 1, 1, 1) // the watch has nothing to add
	})
	s, err := New(Config{NoSocket: true, L2Size: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err != nil {
		t.Errorf("without a file: %v", err)
	}
}

// keyedWorld starts n hosts with a key file each, and what else is prepared.
func keyedWorld(t *testing.T, n int, f func(*testing.T, *world), prepare ...func(*vnode)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, 1, n), t.TempDir()
		for _, v := range w.nodes {
			v.keyFile = filepath.Join(dir, v.name)
			writeKeys(t, v.keyFile, keyText(testSeed, "1"))
			for _, p := range prepare {
				p(v)
			}
			v.start()
		}
		w.agreed(15 * time.Second)
		f(t, w)
		for _, v := range w.nodes {
			v.leave()
		}
		time.Sleep(30 * time.Second)
	})
}

// outsider starts one more host, with a key file of its own, or none.
func (w *world) outsider(text string) *vnode {
	v := &vnode{w: w, i: len(w.nodes), name: "other", ip: "10.0.9.9", clock: &virtualClock{origin: w.begun}}
	if text != "" {
		v.keyFile = filepath.Join(w.t.TempDir(), "key")
		writeKeys(w.t, v.keyFile, text)
	}
	w.nodes = append(w.nodes, v)
	v.start()
	return v
}

// members is how many hosts a host knows, itself included.
func (v *vnode) members() int { return int(v.s.engine.Node.Stats().Members) }

// busy writes and reads through all hosts until it is stopped, and fails the test
// where one does not do what it is asked.
func (w *world) busy() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int)
	for _, v := range w.nodes {
		go func() { // ends with cancel
			n := 0
			for ; ctx.Err() == nil; n++ {
				key, value := testKeyOf(n%50), fmt.Appendf(nil, "%s %d", v.name, n)
				if _, err := v.s.Set(context.Background(), "default", key, value, SetOptions{}); err != nil {
					w.fail("%s: %v", v.name, err)
				}
				if _, err := v.s.Get(context.Background(), "default", key); err != nil {
					w.fail("%s: %v", v.name, err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			done <- n
		}()
	}
	n := len(w.nodes)
	return func() {
		cancel()
		for range n {
			if n := <-done; n < 100 {
				w.fail("%d requests", n)
			}
		}
	}
}

// TestVirtualKeyRotation: keys are added, moved up and removed on one host after
// the other, and no read or write fails. In the end the old key is a stranger's.
func TestVirtualKeyRotation(t *testing.T) {
	keyedWorld(t, 3, func(t *testing.T, w *world) {
		stop := w.busy()
		for _, digits := range []string{"12", "21", "2"} {
			for i, v := range w.nodes {
				writeKeys(t, v.keyFile, keyText(testSeed, digits))
				if i == 1 {
					if err := v.s.Reload(); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(3 * lookEvery)
				for _, v := range w.nodes {
					if v.members() != 3 {
						w.fail("keys %s: %s knows %d", digits, v.name, v.members())
					}
				}
			}
			time.Sleep(20 * time.Second) // past a push and pull of gossip
		}
		stop()
		for _, v := range w.nodes {
			if v.s.keys.taken.Load() != 3 || v.s.keys.refused.Load() != 0 {
				t.Errorf("%s: %d changes taken, %d refused", v.name, v.s.keys.taken.Load(), v.s.keys.refused.Load())
			}
		}
		old := w.outsider(keyText(testSeed, "1"))
		time.Sleep(30 * time.Second)
		if old.members() != 1 || w.nodes[0].members() != 3 {
			t.Errorf("a host with the old key knows %d, the others know %d", old.members(), w.nodes[0].members())
		}
	})
}

// TestVirtualCertificates: certificates of files are renewed, and their authority
// changed, on one host after the other, and no read or write fails. In the end a
// host of the old authority is refused, though it has the cluster's key.
func TestVirtualCertificates(t *testing.T) {
	old, next := peertest.NewAuthority(t, "old"), peertest.NewAuthority(t, "next")
	show := func(v *vnode, by *peertest.Authority, roots ...*peertest.Authority) {
		t.Helper()
		v.tls = TLSFiles{Cert: v.keyFile + ".crt", Key: v.keyFile + ".pem", CA: v.keyFile + ".ca"}
		cert := by.Certificate(t, []string{v.name, v.name + ".test"})
		private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		ca := ""
		for _, r := range roots {
			ca += inPEM("CERTIFICATE", r.Root.Raw)
		}
		writeKeys(t, v.tls.Cert, inPEM("CERTIFICATE", cert.Certificate[0]))
		writeKeys(t, v.tls.Key, inPEM("PRIVATE KEY", private))
		writeKeys(t, v.tls.CA, ca)
	}
	keyedWorld(t, 3, func(t *testing.T, w *world) {
		stop := w.busy()
		for _, step := range []func(*vnode){
			func(v *vnode) { show(v, old, old) }, // renewed
			func(v *vnode) { show(v, old, old, next) },
			func(v *vnode) { show(v, next, next, old) },
			func(v *vnode) { show(v, next, next) },
		} {
			for _, v := range w.nodes {
				step(v)
				time.Sleep(3 * lookEvery)
			}
		}
		time.Sleep(10 * time.Second)
		stop()
		for _, v := range w.nodes {
			if v.s.keys.taken.Load() != 4 || v.s.keys.refused.Load() != 0 || v.members() != 3 {
				t.Errorf("%s: %d changes taken, %d refused, %d members", v.name, v.s.keys.taken.Load(), v.s.keys.refused.Load(), v.members())
			}
		}
		v := &vnode{w: w, i: 3, name: "other", ip: "10.0.9.9", clock: &virtualClock{origin: w.begun}}
		v.keyFile = filepath.Join(t.TempDir(), "key")
		writeKeys(t, v.keyFile, keyText(testSeed, "1"))
		show(v, old, old, next)
		w.nodes = append(w.nodes, v)
		v.start()
		time.Sleep(15 * time.Second)
		setAll(w.nodes[0], 50, "theirs")
		for i := range 50 {
			if value, err := v.s.Get(context.Background(), "default", testKeyOf(i)); err == nil {
				t.Fatalf("a host of the old authority reads %q", value.Data)
			}
		}
	}, func(v *vnode) { show(v, old, old) })
}

func inPEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// TestVirtualSeed: the seed places keys, apps hear it, and a host with another one
// is refused and says what to do.
func TestVirtualSeed(t *testing.T) {
	keyedWorld(t, 2, func(t *testing.T, w *world) {
		for _, v := range w.nodes {
			ns := v.s.engine.Names.Lookup([]byte("default"))
			if want := kv.NamespaceSeed(testSeed, "default"); ns.Seed != want || v.s.engine.Hash([]byte("default"), []byte("k")) != kv.HashKey(want, []byte("k")) {
				t.Errorf("%s hashes under another seed", v.name)
			}
		}
		if stored := setAll(w.nodes[0], 50, "v"); stored != 50 {
			t.Errorf("%d of 50 are stored", stored)
		}
		v := w.outsider(keyText(testSeed+1, "1"))
		time.Sleep(15 * time.Second)
		_, err := v.s.Set(context.Background(), "default", []byte("k"), []byte("v"), SetOptions{})
		var we *wire.Error
		words, ready := v.s.readiness()
		for _, got := range []string{words, fmt.Sprint(err)} {
			if ready || !errors.As(err, &we) || we.Status != wire.Unavailable || !strings.Contains(got, "seed in cluster_key_file") || !strings.Contains(got, "restart all hosts") {
				t.Errorf("a host with another seed is ready: %v, %q", ready, got)
			}
			if strings.Contains(got, "0123456789abcd") {
				t.Errorf("the seed is shown: %s", got)
			}
		}
	})
}

// TestVirtualNoKey: a host without the key is nobody to those that have it.
func TestVirtualNoKey(t *testing.T) {
	keyedWorld(t, 2, func(t *testing.T, w *world) {
		v := w.outsider("")
		time.Sleep(30 * time.Second)
		if v.members() != 1 || w.nodes[0].members() != 2 || w.nodes[1].members() != 2 {
			t.Errorf("the stranger knows %d, the others %d and %d", v.members(), w.nodes[0].members(), w.nodes[1].members())
		}
	})
}

// TestSeedToApps: HELLO tells apps the seed, so that they hash as the hosts do.
func TestSeedToApps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	writeKeys(t, path, keyText(testSeed, "1"))
	c := dial(t, start(t, Config{ClusterKeyFile: path}))
	r := c.call(&wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1}}})
	var welcome wire.Welcome
	if err := wire.UnmarshalBody(r.Body, &welcome); err != nil || welcome.Hash.Seed != testSeed {
		t.Errorf("seed %x, %v", welcome.Hash.Seed, err)
	}
}

// A certificate that is not good yet is taken once it is: the clock of the host that
// made it may be ahead of this one's. Until then it is refused once.
func TestCertificateNotGoodYet(t *testing.T) {
	inWatch(t, func(w *watched) {
		w.after(10, 1, 0, 0, 1)
		w.after(30, 1, 1, 1, 1)
	}, func(w *watched) {
		by := peertest.NewAuthority(t, "one")
		dir := t.TempDir()
		w.cfg.TLS = TLSFiles{Cert: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "pem"), CA: filepath.Join(dir, "ca")}
		w.cfg.Clock = &virtualClock{origin: time.Now()}
		good := time.UnixMilli(w.cfg.Clock.Read().Wall).Add(time.Minute)
		cert := by.Certificate(t, []string{"a"}, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = good, good.Add(time.Hour) })
		private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		writeKeys(t, w.cfg.TLS.CA, inPEM("CERTIFICATE", by.Root.Raw))
		writeKeys(t, w.cfg.TLS.Key, inPEM("PRIVATE KEY", private))
		writeKeys(t, w.cfg.TLS.Cert, inPEM("CERTIFICATE", cert.Certificate[0]))
	})
}
