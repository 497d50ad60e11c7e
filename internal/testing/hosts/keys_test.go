package hosts

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// keyedWorld starts n hosts with a key file each. The prepare functions run before each
// start.
func keyedWorld(t *testing.T, n int, f func(*testing.T, *world), prepare ...func(*vnode)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, 1, n), t.TempDir()
		for _, v := range w.nodes {
			v.keyFile = filepath.Join(dir, v.name)
			peertest.Replace(t, v.keyFile, peertest.KeyText(peertest.Seed, "1"))
			for _, p := range prepare {
				p(v)
			}
			v.start()
		}
		w.agreed(15 * time.Second)
		f(t, w)
		w.leaveAll()
	})
}

// outsider starts one more host, with a key file of its own, or with none if text is
// empty.
func (w *world) outsider(text string) *vnode {
	v := &vnode{w: w, i: len(w.nodes), name: "other", ip: "10.0.9.9", clock: &virtualClock{origin: w.begun}}
	if text != "" {
		v.keyFile = filepath.Join(w.t.TempDir(), "key")
		peertest.Replace(w.t, v.keyFile, text)
	}
	w.nodes = append(w.nodes, v)
	v.start()
	return v
}

// members returns the number of hosts that a host knows, itself included.
func (v *vnode) members() int { return int(v.s.engine.Node.Stats().Members) }

// busy writes and reads through all hosts until stop is called. The test fails if a
// request fails.
func (w *world) busy() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int)
	for _, v := range w.nodes {
		go func() { // ends with cancel
			n := 0
			for ; ctx.Err() == nil; n++ {
				key, value := testKeyOf(n%50), fmt.Appendf(nil, "%s %d", v.name, n)
				if _, err := v.s.Set(context.Background(), "default", string(key), value, cachesidecar.SetOptions{}); err != nil {
					w.fail("%s: %v", v.name, err)
				}
				if _, err := v.s.Get(context.Background(), "default", string(key), cachesidecar.GetOptions{}); err != nil {
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

// TestVirtualKeyRotation checks that no read or write fails while keys are added, moved
// up and removed on one host after the other. In the end a host with the old key is
// refused.
func TestVirtualKeyRotation(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	keyedWorld(t, 3, func(t *testing.T, w *world) {
		stop := w.busy()
		for _, digits := range []string{"12", "21", "2"} {
			for i, v := range w.nodes {
				peertest.Replace(t, v.keyFile, peertest.KeyText(peertest.Seed, digits))
				if i == 1 {
					if err := v.s.Reload(); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(3 * peer.LookEvery)
				for _, v := range w.nodes {
					if v.members() != 3 {
						w.fail("keys %s: %s knows %d", digits, v.name, v.members())
					}
				}
			}
			time.Sleep(20 * time.Second) // longer than gossip's push and pull
		}
		stop()
		for _, v := range w.nodes {
			if taken, refused := v.s.parts.Keys.Changes(); taken != 3 || refused != 0 {
				t.Errorf("%s: %d changes taken, %d refused", v.name, taken, refused)
			}
		}
		old := w.outsider(peertest.KeyText(peertest.Seed, "1"))
		time.Sleep(30 * time.Second)
		if old.members() != 1 || w.nodes[0].members() != 3 {
			t.Errorf("a host with the old key knows %d, the others know %d", old.members(), w.nodes[0].members())
		}
	})
}

// TestVirtualCertificates checks that no read or write fails while certificates in files
// are renewed, and their authority is changed, on one host after the other. In the end a
// host of the old authority is refused, although it has the cluster's key.
func TestVirtualCertificates(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	old, next := peertest.NewAuthority(t, "old"), peertest.NewAuthority(t, "next")
	show := func(v *vnode, by *peertest.Authority, roots ...*peertest.Authority) {
		t.Helper()
		v.tls = TLSFiles{Cert: v.keyFile + ".crt", Key: v.keyFile + ".pem", CA: v.keyFile + ".ca"}
		cert := by.Certificate(t, []string{v.name, v.name + ".test"})
		private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		testenv.Must(t, err)
		ca := ""
		for _, r := range roots {
			ca += peertest.PEM("CERTIFICATE", r.Root.Raw)
		}
		peertest.Replace(t, v.tls.Cert, peertest.PEM("CERTIFICATE", cert.Certificate[0]))
		peertest.Replace(t, v.tls.Key, peertest.PEM("PRIVATE KEY", private))
		peertest.Replace(t, v.tls.CA, ca)
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
				time.Sleep(3 * peer.LookEvery)
			}
		}
		time.Sleep(10 * time.Second)
		stop()
		for _, v := range w.nodes {
			if taken, refused := v.s.parts.Keys.Changes(); taken != 4 || refused != 0 || v.members() != 3 {
				t.Errorf("%s: %d changes taken, %d refused, %d members", v.name, taken, refused, v.members())
			}
		}
		v := &vnode{w: w, i: 3, name: "other", ip: "10.0.9.9", clock: &virtualClock{origin: w.begun}}
		v.keyFile = filepath.Join(t.TempDir(), "key")
		peertest.Replace(t, v.keyFile, peertest.KeyText(peertest.Seed, "1"))
		show(v, old, old, next)
		w.nodes = append(w.nodes, v)
		v.start()
		time.Sleep(15 * time.Second)
		setAll(w.nodes[0], 50, "theirs")
		for i := range 50 {
			if value, err := v.s.Get(context.Background(), "default", string(testKeyOf(i)), cachesidecar.GetOptions{}); err == nil {
				t.Fatalf("a host of the old authority reads %q", value.Value)
			}
		}
	}, func(v *vnode) { show(v, old, old) })
}

// TestVirtualSeed checks that the seed places keys and that apps are told it. A host with
// another seed is refused and reports what to do.
func TestVirtualSeed(t *testing.T) {
	keyedWorld(t, 2, func(t *testing.T, w *world) {
		for _, v := range w.nodes {
			ns := v.s.engine.Namespaces.Lookup([]byte("default"))
			if want := kv.NamespaceSeed(peertest.Seed, "default"); ns.Seed != want || v.s.engine.Namespaces.Hash([]byte("default"), []byte("k")) != kv.HashKey(want, []byte("k")) {
				t.Errorf("%s hashes under another seed", v.name)
			}
		}
		if stored := setAll(w.nodes[0], 50, "v"); stored != 50 {
			t.Errorf("%d of 50 are stored", stored)
		}
		v := w.outsider(peertest.KeyText(peertest.Seed+1, "1"))
		time.Sleep(15 * time.Second)
		_, err := v.s.Set(context.Background(), "default", "k", []byte("v"), cachesidecar.SetOptions{})
		words, ready := v.s.readiness()
		for _, got := range []string{words, fmt.Sprint(err)} {
			if ready || !errors.Is(err, cachesidecar.ErrUnavailable) || !strings.Contains(got, "seed in cluster_key_file") || !strings.Contains(got, "restart all hosts") {
				t.Errorf("a host with another seed is ready: %v, %q", ready, got)
			}
			if strings.Contains(got, "0123456789abcd") {
				t.Errorf("the seed is shown: %s", got)
			}
		}
	})
}

// TestVirtualNoKey checks that hosts with the cluster's key do not accept a host without
// it.
func TestVirtualNoKey(t *testing.T) {
	keyedWorld(t, 2, func(t *testing.T, w *world) {
		v := w.outsider("")
		time.Sleep(30 * time.Second)
		if v.members() != 1 || w.nodes[0].members() != 2 || w.nodes[1].members() != 2 {
			t.Errorf("the stranger knows %d, the others %d and %d", v.members(), w.nodes[0].members(), w.nodes[1].members())
		}
	})
}

// TestSeedToApps checks that HELLO tells apps the seed, so that they hash as the hosts
// do.
func TestSeedToApps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	peertest.Replace(t, path, peertest.KeyText(peertest.Seed, "1"))
	c := dial(t, start(t, Config{ClusterKeyFile: path}))
	r := c.call(&wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1}}})
	var welcome wire.Welcome
	if err := wire.UnmarshalBody(r.Body, &welcome); err != nil || welcome.Hash.Seed != peertest.Seed {
		t.Errorf("seed %x, %v", welcome.Hash.Seed, err)
	}
}

// TestReloadWithoutFiles checks that Reload succeeds without files: there is nothing to
// do.
func TestReloadWithoutFiles(t *testing.T) {
	s, err := New(Config{NoSocket: true, L2Size: 8 << 20})
	testenv.Must(t, err)
	if err := s.Reload(); err != nil {
		t.Errorf("without a file: %v", err)
	}
}
