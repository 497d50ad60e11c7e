package hosts

import (
	"testing"
	"time"
)

// A slot that somebody else moves, or makes again, while no host follows it: what was written until then does
// not come. Hosts know up to where it came, also those whose machine was started after that.

// move has somebody make the slot again, or move it, or promote a standby that has it. No stream is open.
func (f *rowFeed) move(how int) (moved bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open || f.slots == 0 {
		return false
	}
	switch f.forgotten = f.end(); how {
	case 0:
		f.slots++
	case 1:
		f.timeline++
	}
	return true
}

// young starts a host anew whose process was killed, on a machine that was started just now.
func (v *vnode) young() {
	v.clock = &virtualClock{origin: time.Now(), up: time.Second}
	v.start()
}

// moved has the slot move while the feed is down. The host that follows may be started anew meanwhile.
func (l *laggard) moved(young bool, down time.Duration) {
	l.feed.set(true, false)
	time.Sleep(time.Second)
	v := l.leads()
	if young = young && v != nil && !l.keeps; young {
		v.kill()
	}
	time.Sleep(down / 2)
	if l.feed.move(l.rnd.IntN(3)) {
		l.counts.moved++
	}
	if young {
		v.young()
		l.counts.young++
	}
	time.Sleep(down / 2)
	l.feed.set(false, false)
}

// slotMovedWhile has a row change and the slot move while the feed is down, longer than hosts are in time.
func slotMovedWhile(t *testing.T, young bool, bad func(string, ...any)) {
	withFeed(t, 1, false, bad, nil, func(l *laggard) {
		owner, leader := l.ownerOf("row0"), l.leader()
		if leader == owner {
			t.Fatal("give another seed: the leader owns the row")
		}
		l.read(owner.s, owner.name, "row0", false)
		l.feed.set(true, false)
		time.Sleep(time.Second)
		if young {
			leader.kill()
		}
		time.Sleep(l.maxLag)
		l.feed.commit("row0", "0.0", "0.1", 0)
		if !l.feed.move(0) {
			t.Fatal("the slot is in use")
		}
		if young {
			leader.young()
			l.agreed(30 * time.Second)
			time.Sleep(10 * time.Second)
			if l.leader() != leader {
				t.Fatal("give another seed: the host that was started anew does not lead")
			}
		}
		l.feed.set(false, false)
		time.Sleep(l.maxLag + l.bound + time.Second)
		if _, late, _ := owner.s.engine.Node.FeedLag("rows"); late {
			t.Error("the owner is late")
		}
		l.read(owner.s, owner.name, "row0", false)
	})
}

func slotMoved(t *testing.T, bad func(string, ...any))        { slotMovedWhile(t, false, bad) }
func slotMovedAtYoung(t *testing.T, bad func(string, ...any)) { slotMovedWhile(t, true, bad) }

// TestVirtualSlotMoved checks that no host serves what has changed while nobody followed and somebody moved
// the slot.
func TestVirtualSlotMoved(t *testing.T) { slotMoved(t, t.Errorf) }

// TestVirtualSlotMovedAtYoung checks the same if the host that follows next runs on a machine that was started
// after the last certificate.
func TestVirtualSlotMovedAtYoung(t *testing.T) { slotMovedAtYoung(t, t.Errorf) }
