package attacks

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

const (
	pace      = 2 * time.Millisecond  // between the victim's small requests
	seldom    = 50 * time.Millisecond // between its other requests
	victims   = "victims"             // its namespace
	bigValue  = 1 << 20
	victimKey = 200 // the number of its keys
)

// tally is the victim's results in one part of a run.
type tally struct {
	small   []time.Duration // of each SET and GET
	large   []time.Duration // of each SET of a megabyte with its GET
	wrong   int             // values that it had not written
	missing int             // requests without the required answer
	why     map[string]int  // the reasons of both
}

// quantile returns the value at a part q of all, or 0 if there are none.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*q))]
}

// add adds another part of a run.
func (t *tally) add(u *tally) {
	t.small, t.large = append(t.small, u.small...), append(t.large, u.large...)
	t.wrong, t.missing = t.wrong+u.wrong, t.missing+u.missing
	for w, n := range u.why {
		if t.why == nil {
			t.why = map[string]int{}
		}
		t.why[w] += n
	}
}

// cut returns the beginning of a reason.
func cut(s string) string { return s[:min(len(s), 120)] }

// victim is a well-behaved app: small reads and writes at a pace, and now and then a
// request of a kind that an attack may concern.
type victim struct {
	of   target
	wait time.Duration // how long it waits for an answer
	also []also

	small, others *conn
	wrote         map[string][]byte

	mu    sync.Mutex
	now   *tally
	asked [2]int        // finished rounds of each of its two loops
	ended chan struct{} // closed when a round ends
}

// also is a kind of request that the victim makes seldom. It returns an error if the
// answer was wrong.
type also func(ctx context.Context, v *victim, n int) error

// wrong is the error for a value that the victim did not write.
type wrong struct{ what string }

func (w wrong) Error() string { return w.what }

// part begins another part of the run, and returns the previous one. That may be read
// only after the run, because its last requests may still be running.
func (v *victim) part() *tally {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.now
	v.now = &tally{why: map[string]int{}}
	return before
}

// done waits until the requests under way have been answered, so that the test's next
// step does not influence their time.
func (v *victim) done(ctx context.Context) {
	v.mu.Lock()
	before := v.asked
	v.mu.Unlock()
	for {
		v.mu.Lock()
		now := v.asked
		if v.ended == nil {
			v.ended = make(chan struct{})
		}
		ended := v.ended
		v.mu.Unlock()
		if now[0] > before[0] && now[1] > before[1] {
			return
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return
		}
	}
}

// round counts a round of a loop.
func (v *victim) round(loop int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked[loop]++
	if v.ended != nil {
		close(v.ended)
		v.ended = nil
	}
}

// begin returns the part that a new request belongs to, and the time.
func (v *victim) begin() (*tally, time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now, time.Now()
}

// took records how long a request has taken.
func (v *victim) took(list *[]time.Duration, began time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	*list = append(*list, time.Since(began))
}

// judge counts an error in a part.
func (v *victim) judge(part *tally, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch err.(type) {
	case nil:
	case wrong:
		part.wrong++
		part.why[cut(err.Error())]++
	default:
		part.missing++
		part.why[cut(err.Error())]++
	}
}

// run goes on until ctx ends, and returns after the last answer, so that a request that
// the attack blocks is not missed.
func (v *victim) run(ctx context.Context) {
	v.wrote = map[string][]byte{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			part, began := v.begin()
			err := v.one(n)
			v.took(&part.small, began)
			v.judge(part, err)
			v.round(0)
			rest(ctx, pace)
		}
	})
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			for _, also := range v.also {
				part, _ := v.begin()
				v.judge(part, also(context.WithoutCancel(ctx), v, n))
			}
			v.round(1)
			rest(ctx, seldom)
		}
	})
	wg.Wait()
	for _, c := range []*conn{v.small, v.others} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// one makes one small request. Every fourth is a SET, and a key is written before it is
// read.
func (v *victim) one(n int) (err error) {
	if v.small == nil {
		if v.small, err = open(context.Background(), v.of.Hosts[0].Socket, v.wait); err != nil {
			return err
		}
	}
	key := "victim" + strconv.Itoa(mathrand.IntN(victimKey))
	want, known := v.wrote[key]
	var a answer
	if known && n%4 != 0 {
		a, err = v.small.call(wire.OpGet, int(v.wait.Milliseconds()), victims, []byte(key))
		if got := content(a.at(0)); err == nil && a.status == wire.OK && got != string(want) {
			return wrong{fmt.Sprintf("%s: %q, want %q", key, got, want)}
		}
	} else {
		value := strconv.AppendInt(nil, int64(n), 10)
		delete(v.wrote, key)
		a, err = v.small.call(wire.OpSet, int(v.wait.Milliseconds()), victims, []byte(key), value)
		if err == nil && a.status == wire.OK {
			v.wrote[key] = value
		}
	}
	if err == nil && a.status != wire.OK {
		delete(v.wrote, key)
		return fmt.Errorf("%v", a)
	}
	if err != nil {
		_ = v.small.Close()
		v.small = nil
	}
	return err
}

// other returns the connection for the seldom requests.
func (v *victim) other(ctx context.Context) (*conn, error) {
	if v.others != nil {
		return v.others, nil
	}
	c, err := open(ctx, v.of.Hosts[0].Socket, v.wait)
	v.others = c
	return c, err
}

// ask makes a call that must be answered with one status. A failure closes the
// connection.
func (v *victim) ask(ctx context.Context, want wire.Status, op wire.Op, rest ...any) (answer, error) {
	c, err := v.other(ctx)
	if err != nil {
		return answer{}, err
	}
	a, err := c.call(op, int(v.wait.Milliseconds()), rest...)
	if err == nil && a.status == want {
		return a, nil
	}
	if err == nil {
		err = fmt.Errorf("%v: %v", op, a)
	}
	_ = c.Close()
	v.others = nil
	return a, err
}

// large writes a megabyte and reads it.
func large(ctx context.Context, v *victim, _ int) error {
	value := make([]byte, bigValue)
	_, _ = rand.Read(value)
	part, began := v.begin()
	_, err := v.ask(ctx, wire.OK, wire.OpSet, victims, []byte("big"), value)
	var a answer
	if err == nil {
		// With Fresh the read waits for a slow owner for v.wait instead of 250 ms.
		a, err = v.ask(ctx, wire.OK, wire.OpGet, victims, []byte("big"), wire.Fresh)
	}
	if err == nil && content(a.at(0)) != string(value) {
		err = wrong{"another large value"}
	}
	v.took(&part.large, began)
	return err
}

// connects opens a connection of its own.
func connects(ctx context.Context, v *victim, _ int) error {
	c, err := open(ctx, v.of.Hosts[0].Socket, v.wait)
	if err == nil {
		_ = c.Close()
	}
	return err
}

// probes asks whether the host is alive, as a supervisor does.
func probes(ctx context.Context, v *victim, _ int) error {
	return says(ctx, v, v.of.Hosts[0].HTTP, "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 200")
}

// speaks opens a connection to memcached's endpoint.
func speaks(ctx context.Context, v *victim, _ int) error {
	return says(ctx, v, v.of.Origin, "version\r\n", "VERSION")
}

// says opens a connection, on which the first request must get an answer.
func says(ctx context.Context, v *victim, address, request, want string) error {
	c, err := dial(ctx, "tcp", address, v.wait)
	if err != nil {
		return err
	}
	defer c.Close()
	got := make([]byte, len(want))
	if _, err = io.WriteString(c, request); err == nil {
		_, err = io.ReadFull(c, got)
	}
	if err == nil && string(got) != want {
		err = fmt.Errorf("%q is answered %q", request, got)
	}
	return err
}

// loads takes a token, and fills with it.
func loads(ctx context.Context, v *victim, n int) error {
	key := fmt.Appendf(nil, "load%d-%d", n, mathrand.Uint64())
	a, err := v.ask(ctx, wire.Lease, wire.OpLease, victims, key)
	if err == nil {
		_, err = v.ask(ctx, wire.OK, wire.OpFill, victims, key, a.at(0), []byte("loaded"))
	}
	return err
}

// watches asks for its position in the log, and then for the changes since.
func watches(ctx context.Context, v *victim, _ int) error {
	a, err := v.ask(ctx, wire.OK, wire.OpWatch, nil, 0)
	if err == nil {
		m, _ := a.at(0).(map[string]any)
		_, err = v.ask(ctx, wire.OK, wire.OpWatch, nil, 0, m["epoch"], m["seq"], 20)
	}
	return err
}

// names writes in a new namespace that soon disappears.
func names(ctx context.Context, v *victim, n int) error {
	_, err := v.ask(ctx, wire.OK, wire.OpSet, fmt.Sprintf("app%d", n%40), []byte("k"), []byte("v"), 1000)
	return err
}
