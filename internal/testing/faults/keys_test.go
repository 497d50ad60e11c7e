package faults

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// keyText returns the text of a cluster key file. Each key repeats one of the digits.
func keyText(digits string) string {
	text := "seed: 0123456789abcdef\n"
	for _, d := range digits {
		text += "key: " + strings.Repeat(string(d), 64) + "\n"
	}
	return text
}

// key gives a node its key file.
func (n *node) key(digits string) {
	n.g.t.Helper()
	n.spec.Keys = filepath.Join(n.g.dir, n.spec.Node+".key")
	next := n.spec.Keys + "-"
	testenv.Must(n.g.t, errors.Join(os.WriteFile(next, []byte(keyText(digits)), 0o600), os.Rename(next, n.spec.Keys)))
}

// fewFailed fails the test if requests of apps that began after since failed. One read in a
// thousand may: on a busy machine a sidecar, or an origin, does not answer in time.
func (l *load) fewFailed(since time.Duration) {
	l.g.t.Helper()
	late := 0
	for _, o := range l.failures(since) {
		if o.kind == get && (o.out == degraded || o.out == silent || o.out == failed) {
			late++
			l.g.t.Logf("a read failed: %v", &o)
		} else {
			l.g.t.Errorf("an app's request failed: %v", &o)
		}
	}
	if most := len(l.history) / 1000; late > most {
		l.g.t.Errorf("%d reads failed because they were not answered in time: want %d at most", late, most)
	}
}

// failures returns the requests of apps that began after since and failed. A request whose
// sidecar was down in that time does not count; see node.down.
func (l *load) failures(since time.Duration) (list []op) {
	for _, o := range l.history {
		bad := o.out == degraded || o.out == unavailable || o.out == busy || o.out == failed || o.out == silent ||
			o.out == unknown || o.out == odd
		if bad && !o.gone && o.allowed != patient && o.start >= since && l.stalled(o.start-5*time.Second, o.end) == 0 {
			list = append(list, o)
		}
	}
	return list
}
