package server

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestAnswersToAWhimsicalReader checks that each request is answered once and whole, or
// BUSY, whichever goroutine writes and however the peer reads, on the socket and over
// TLS.
func TestAnswersToAWhimsicalReader(t *testing.T) {
	testenv.Takes(t, time.Second/2)
	testenv.ReadsClock(t, 3*time.Millisecond, "the reader of a real socket makes random pauses; nothing is measured")
	for _, over := range []string{"socket", "TLS"} {
		t.Run(over, func(t *testing.T) {
			const requests = 400
			rnd := rand.New(rand.NewPCG(1, 2))
			budget := quota.NewBudget(8 << 20)
			_, dialBack, _ := serve(t, newEcho(), Limits{})
			near, far := ends(t, over)
			h := newEcho()
			h.to, h.patience = newTestClient(t, dialBack, rpc.ClientConfig{MaxCalls: requests}), time.Minute
			c := connOf(far, newShared(Limits{Budget: budget}), "uid 0")
			c.handler = &echoHandler{echo: h}
			ended := make(chan error, 1)
			go func() { ended <- c.serve() }()
			lengths := map[uint64]int{}
			var all []byte
			for id := range uint64(requests) {
				n := rnd.IntN(1 << (4 + rnd.IntN(15)))
				lengths[id+1] = n
				key := fmt.Sprintf("big %d", n)
				if rnd.IntN(2) == 0 {
					key = "ask " + key
				}
				all = append(all, getFrame(id+1, key)...)
			}
			sent := make(chan error, 1)
			go func() { _, err := near.Write(all); sent <- err }()
			_ = near.SetDeadline(testenv.Deadline())
			r := whimsical{near, rand.New(rand.NewPCG(5, 6))}
			busy := 0
			for range requests {
				p, err := tryReadReply(r)
				if err != nil {
					t.Fatal(err, <-ended)
				}
				want, there := lengths[p.ID]
				delete(lengths, p.ID)
				switch {
				case !there:
					t.Fatalf("an answer to %d, which was answered or is none", p.ID)
				case p.Status == wire.Busy:
					busy++
				case p.Status != wire.OK || len(p.Value) != want:
					t.Fatalf("request %d of %d bytes: %s %s, %d bytes", p.ID, want, p.Status, p.Message, len(p.Value))
				}
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			_ = near.Close()
			<-ended
			t.Logf("%d BUSY", busy)
			if n := budget.Stats().Total(); n != 0 {
				t.Errorf("%d bytes are held at the end", n)
			}
		})
	}
}

// whimsical reads pieces of random length, with random pauses.
type whimsical struct {
	io.Reader
	rnd *rand.Rand
}

func (w whimsical) Read(b []byte) (int, error) {
	if w.rnd.IntN(20) == 0 {
		time.Sleep(time.Duration(w.rnd.IntN(3000)) * time.Microsecond)
	}
	return w.Reader.Read(b[:min(len(b), 1+w.rnd.IntN(1<<(1+w.rnd.IntN(17))))])
}
