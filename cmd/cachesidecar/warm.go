package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/table"
)

func warmCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:      "warm",
		Usage:     "load keys from the namespace's origin, as a list names them",
		ArgsUsage: "FILE|-",
		Description: "FILE has one key in each line; - is stdin. Exit status 1 if a key failed; a key that\n" +
			"the origin does not have is a success.",
		Flags: clientFlags(nsFlag, jsonFlag,
			boolFlag("null", "keys end with a zero byte, not with a line"),
			numberFlag("concurrency", "ask for so many keys at once", 32, 1, 1024),
			&cli.Float64Flag{Name: "rate", Usage: "load at most `N` keys a second", DefaultText: "no limit"},
			fileFlag("resume", "note in `FILE` how far it came, and go on from there"),
			numberFlag("stop-after", "end when so many keys in a row failed; 0 is never", 100, 0, math.MaxInt32),
		),
		Action: withArgs(1, 1, p.warm),
	}
}

// warmer loads keys.
type warmer struct {
	cl          *client.Client
	concurrency int
	stopAfter   int64
	patience    time.Duration // how long to try one key while the sidecar is too busy
	loads       *rate.Limiter // of keys that are not in the cache
	bar         *progressbar.ProgressBar

	mu       sync.Mutex
	count    [failed + 1]int64
	inARow   int64    // number of consecutive keys that failed
	failures []string // the first of them
}

// warmResult is the result in warm's JSON.
type warmResult struct {
	Keys       int64   `json:"keys"`        // keys asked for
	PassedOver int64   `json:"passed_over"` // keys that an earlier run has done
	Loaded     int64   `json:"loaded"`
	There      int64   `json:"there"`
	Absent     int64   `json:"absent"`
	Failed     int64   `json:"failed"`
	DurationMS float64 `json:"duration_ms"`
}

func (p *program) warm(c *cli.Context) error {
	limit := rate.Inf
	if c.IsSet("rate") {
		if limit = rate.Limit(c.Float64("rate")); !(limit >= 0.001 && limit <= 1e9) {
			return usagef("--rate %v: give 0.001 to 1e9 keys a second", c.Float64("rate"))
		}
	}
	list, total, err := openKeys(p.in, c.Args().First(), c.Bool("null"), isTerminal(p.err))
	if err != nil {
		return err
	}
	defer list.Close()
	at, err := readPosition(c.String("resume"), c.String("ns"))
	if err != nil {
		return err
	}
	cl, err := connect(c.Context, c)
	if err != nil {
		return err
	}
	defer cl.Close()
	w := &warmer{
		cl: cl, patience: c.Duration("timeout"),
		concurrency: c.Int("concurrency"), stopAfter: int64(c.Int("stop-after")),
		loads: rate.NewLimiter(limit, int(max(1, min(limit/10, 1e6)))),
	}
	if err := w.hasOrigin(c.Context, c.String("ns")); err != nil {
		return explain(c, err)
	}
	if isTerminal(p.err) {
		w.bar = newBar(p.err, total)
	}
	begun := time.Now()
	passed := at.Keys
	err = w.run(c.Context, list, at)
	if w.bar != nil {
		_ = w.bar.Clear()
	}
	took := time.Since(begun)
	return p.reportWarm(c, w, err, at, passed, took)
}

// newBar returns a progress bar on a terminal. A total of -1 means that the total is not
// known.
func newBar(to io.Writer, total int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(to), progressbar.OptionSetWidth(30), progressbar.OptionShowCount(),
		progressbar.OptionShowIts(), progressbar.OptionSetItsString("keys"),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetSpinnerChangeInterval(0)) // else it starts a goroutine
}

// hasOrigin returns an error if the namespace has no origin to load from.
func (w *warmer) hasOrigin(ctx context.Context, ns string) error {
	st, err := w.cl.Stats(ctx)
	if err != nil {
		return err
	}
	for _, n := range st.Namespaces {
		if n.Name == ns && n.Loads.Origin != "" {
			return nil
		}
	}
	return fmt.Errorf("namespace %q has no origin on this host, so there is nothing to load its keys from: "+
		"name one in the configuration file, or another namespace with --ns", ns)
}

// run asks for all keys from a position on, and moves the position.
func (w *warmer) run(ctx context.Context, list *keyList, at *position) error {
	if err := at.seek(ctx, list); err != nil {
		return err
	}
	if w.bar != nil {
		_ = w.bar.Set64(at.Keys)
	}
	for {
		keys, err := list.next(ctx, warmChunk)
		if err != nil || len(keys) == 0 {
			return errors.Join(err, at.save())
		}
		results, err := w.chunk(ctx, keys)
		at.move(list.read-int64(len(keys)), keys, results)
		if err != nil {
			return errors.Join(err, at.save())
		}
		if err := at.saveSometimes(); err != nil {
			return err
		}
	}
}

// chunk asks for some keys. An error ends the run; keys that were not asked for because
// of it are pending.
func (w *warmer) chunk(ctx context.Context, keys []string) (results []uint8, err error) {
	results = make([]uint8, len(keys))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(w.concurrency)
	for i, key := range keys {
		g.Go(func() error { // Wait waits for it
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b, why := w.key(ctx, key)
			if b == pending {
				return why
			}
			results[i] = b
			return w.tally(key, b, why)
		})
	}
	return results, g.Wait()
}

// tally counts a key. It returns an error if too many keys in a row have failed.
func (w *warmer) tally(key string, b uint8, why error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count[b]++
	if w.bar != nil {
		_ = w.bar.Add(1)
	}
	if b != failed {
		w.inARow = 0
		return nil
	}
	if len(w.failures) < maxFailures {
		w.failures = append(w.failures, fmt.Sprintf("%q: %v", key, why))
	}
	if w.inARow++; w.inARow == w.stopAfter {
		return fmt.Errorf("%d keys in a row failed (--stop-after), the last because: %w", w.inARow, why)
	}
	return nil
}

// maxFailures is the number of failed keys that are reported by name.
const maxFailures = 10

// key loads a key if it is not in the cache. An error with the result pending ends the
// run.
func (w *warmer) key(ctx context.Context, key string) (result uint8, err error) {
	result = present
	err = w.get(ctx, key, cachesidecar.GetOptions{NoLoad: true})
	if errors.Is(err, cachesidecar.ErrNotFound) && !errors.Is(err, cachesidecar.ErrAbsent) {
		if err := w.loads.Wait(ctx); err != nil {
			return pending, err
		}
		result = loaded
		err = w.get(ctx, key, cachesidecar.GetOptions{})
	}
	switch {
	case err == nil:
		return result, nil
	case errors.Is(err, cachesidecar.ErrAbsent):
		return absent, nil
	case ctx.Err() != nil, errors.Is(err, cachesidecar.ErrUnavailable) && !errors.Is(err, cachesidecar.ErrNoOwner):
		return pending, err
	}
	return failed, err
}

// get repeats a read while the sidecar is too busy. It is too busy if the origin's limits
// are reached, whose purpose is to make clients wait.
func (w *warmer) get(ctx context.Context, key string, o cachesidecar.GetOptions) error {
	for begun := time.Now(); ; {
		_, err := w.cl.Get(ctx, key, o)
		if !errors.Is(err, cachesidecar.ErrBusy) || time.Since(begun) > w.patience {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond+rand.N(200*time.Millisecond)); err != nil {
			return err
		}
	}
}

// reportWarm reports the results, and how to continue if the run has ended early.
func (p *program) reportWarm(
	c *cli.Context, w *warmer, err error, at *position, passed int64, took time.Duration,
) error {
	for _, f := range w.failures {
		fmt.Fprintln(p.err, f)
	}
	if more := w.count[failed] - int64(len(w.failures)); more > 0 {
		fmt.Fprintf(p.err, "… and %s more\n", table.Count(more))
	}
	r := warmResult{
		PassedOver: passed,
		Loaded:     w.count[loaded], There: w.count[present], Absent: w.count[absent], Failed: w.count[failed],
		DurationMS: math.Round(took.Seconds()*1e6) / 1e3,
	}
	r.Keys = r.Loaded + r.There + r.Absent + r.Failed
	line := fmt.Sprintf("%s keys in %v: %s loaded, %s there already, %s absent, %s failed",
		table.Count(r.Keys), took.Round(10*time.Millisecond),
		table.Count(r.Loaded), table.Count(r.There), table.Count(r.Absent), table.Count(r.Failed))
	if passed > 0 {
		line += fmt.Sprintf("; %s passed over", table.Count(passed))
	}
	out := p.show(c, r, line+"\n")
	switch {
	case err != nil:
		if at.path != "" {
			fmt.Fprintf(p.err, "The same command goes on behind key %s.\n", table.Count(at.Keys))
		} else {
			fmt.Fprintln(p.err, "The same command passes quickly over what is there already; "+
				"with --resume FILE it would go on where it ended.")
		}
		return explain(c, err)
	case out != nil:
		return out
	case r.Failed > 0:
		return errStatus1
	}
	return nil
}
