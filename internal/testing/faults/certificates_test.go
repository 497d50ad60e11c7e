package faults

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// certify gives a node certificate files: a new certificate of the first authority, and
// all the authorities as accepted ones. The files replace the old ones in one step, by a
// symbolic link, as an orchestrator does it.
func (n *node) certify(until time.Time, accepted ...*peertest.Authority) {
	t := n.g.t
	t.Helper()
	dir, err := os.MkdirTemp(n.g.dir, n.spec.Node+"-")
	testenv.Must(t, err)
	show := accepted[0].Certificate(t, []string{n.spec.Node}, func(c *x509.Certificate) { c.NotAfter = until })
	private, err := x509.MarshalPKCS8PrivateKey(show.PrivateKey)
	testenv.Must(t, err)
	var roots []byte
	for _, a := range accepted {
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Root.Raw})...)
	}
	link := filepath.Join(n.g.dir, n.spec.Node+".tls")
	n.spec.TLS = sidecar.TLSFiles{Cert: filepath.Join(link, "cert"), Key: filepath.Join(link, "key"), CA: filepath.Join(link, "ca")}
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "cert"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: show.Leaf.Raw}), 0o600),
		os.WriteFile(filepath.Join(dir, "key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
		os.WriteFile(filepath.Join(dir, "ca"), roots, 0o600),
		os.Symlink(dir, link+"-"), os.Rename(link+"-", link),
	)
	testenv.Must(t, err)
}

// tomorrow is the end of certificates whose end does not matter.
func tomorrow() time.Time { return testenv.Date().Add(24 * time.Hour) }

// TestLengthyProcessCertificateExpires: if a certificate expires while its host runs, no
// connection ends. New connections fail, and the log names the reason. With a new file
// the hosts go on. An expired file is refused, and no host starts with one.
func TestLengthyProcessCertificateExpires(t *testing.T) {
	scenario(t, 75*time.Second)
	g := newGroup(t, 2*fast, 3)
	a := peertest.NewAuthority(t, "one")
	end := testenv.Date().Add(30 * time.Second * slowness) // the apps are at work long before
	for i, n := range g.nodes {
		n.key("1")
		n.certify(map[bool]time.Time{true: end, false: tomorrow()}[i == 0], a)
	}
	short, third := g.nodes[0], g.nodes[2]
	g.start(g.nodes)
	g.fill(still)
	l := g.work(false)
	begun := l.now()
	time.Sleep(time.Until(end) + 2*time.Second)
	testenv.Succeeds(t, "agreement after its end", func() error { return g.agreed(g.nodes) })
	short.certify(testenv.Date().Add(-time.Minute), a)
	short.signal(syscall.SIGHUP)
	testenv.Succeeds(t, "the file to be refused", func() error { return short.says("expired") })
	testenv.Succeeds(t, "agreement with another file that has ended", func() error { return g.agreed(g.nodes) })
	l.check(nil)
	l.fewFailed(begun)

	third.crash()
	third.start() // the first host cannot greet it
	testenv.Succeeds(t, "the reason in the log", func() error { return third.says("expired") })
	for _, n := range g.nodes[:2] {
		n.certify(tomorrow(), a)
	}
	g.settle("certificates are renewed", time.Now())

	late := g.add(testenv.FreeAddress(t))
	late.spec.Join = g.nodes[0].spec.Join
	late.key("1")
	late.certify(testenv.Date().Add(-time.Minute), a)
	late.launch()
	select {
	case <-late.exited:
	case <-testenv.Expired():
		t.Error("it starts with a certificate that has ended")
	}
	if err := late.says("expired"); err != nil || late.cmd.ProcessState.Success() {
		t.Errorf("%v, %v", err, late.cmd.ProcessState)
	}
}

// says returns an error unless the process's log contains the word.
func (n *node) says(word string) error {
	b, err := os.ReadFile(n.log)
	if err == nil && !bytes.Contains(b, []byte(word)) {
		err = fmt.Errorf("%s does not say %q", n.spec.Node, word)
	}
	return err
}
