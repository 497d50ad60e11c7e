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
			numberFlag("stop-after", "end when so many keys in a row failed; 0 is never", 100, 0, math.MaxInt32),
		),
		Action: withArgs(1, 1, p.warm),
	}
}

// Results for a key.
const (
	pending uint8 = iota // not asked for, or not answered
	loaded
	present
	absent
	failed
)

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
	line     int64    // every key up to this line was answered
	inARow   int64    // number of consecutive keys that failed
	failures []string // the first of them
}

// warmResult is the result in warm's JSON.
type warmResult struct {
	Keys       int64   `json:"keys"` // keys asked for
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
	err = w.run(c.Context, list)
	if w.bar != nil {
		_ = w.bar.Clear()
	}
	return p.reportWarm(c, w, err, time.Since(begun))
}

// newBar returns a progress bar on a terminal. A total of -1 means that the total is not known.
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

// warmChunk is the number of keys that are asked for before the next ones are read.
const warmChunk = 1024

// run asks for all keys.
func (w *warmer) run(ctx context.Context, list *keyList) error {
	for {
		keys, err := list.readKeys(ctx, warmChunk)
		if err != nil || len(keys) == 0 {
			return err
		}
		results, err := w.warmKeys(ctx, keys)
		w.advance(keys, results)
		if err != nil {
			return err
		}
	}
}

// warmKeys asks for some keys. An error ends the run; keys that were not asked for because of it are pending.
func (w *warmer) warmKeys(ctx context.Context, keys []listedKey) (results []uint8, err error) {
	results = make([]uint8, len(keys))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(w.concurrency)
	for i, k := range keys {
		g.Go(func() error { // Wait waits for it
			if ctx.Err() != nil {
				return ctx.Err()
			}
			result, why := w.warmKey(ctx, k.key)
			if result == pending {
				return why
			}
			results[i] = result
			return w.tally(k.key, result, why)
		})
	}
	return results, g.Wait()
}

// advance moves the line to the last key that was answered without failure, up to the first
// pending key: the failed keys behind it are worth another try.
func (w *warmer) advance(keys []listedKey, results []uint8) {
	for i, result := range results {
		if result == pending {
			return
		}
		if result != failed {
			w.line = keys[i].line
		}
	}
}

// maxFailures is the number of failed keys that are reported by name.
const maxFailures = 10

// tally counts a key. It returns an error if too many keys in a row have failed.
func (w *warmer) tally(key string, result uint8, why error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count[result]++
	if w.bar != nil {
		_ = w.bar.Add(1)
	}
	if result != failed {
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

// warmKey loads a key if it is not in the cache. An error with the result pending ends the run.
func (w *warmer) warmKey(ctx context.Context, key string) (result uint8, err error) {
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
func (p *program) reportWarm(c *cli.Context, w *warmer, err error, took time.Duration) error {
	for _, f := range w.failures {
		fmt.Fprintln(p.err, f)
	}
	if more := w.count[failed] - int64(len(w.failures)); more > 0 {
		fmt.Fprintf(p.err, "… and %s more\n", table.Count(more))
	}
	r := warmResult{
		Loaded: w.count[loaded], There: w.count[present], Absent: w.count[absent], Failed: w.count[failed],
		DurationMS: math.Round(took.Seconds()*1e6) / 1e3,
	}
	r.Keys = r.Loaded + r.There + r.Absent + r.Failed
	line := fmt.Sprintf("%s keys in %v: %s loaded, %s there already, %s absent, %s failed",
		table.Count(r.Keys), took.Round(10*time.Millisecond),
		table.Count(r.Loaded), table.Count(r.There), table.Count(r.Absent), table.Count(r.Failed))
	out := p.show(c, r, line+"\n")
	switch {
	case err != nil:
		if w.line > 0 {
			tail, of, done := "tail", "", "done"
			if c.Bool("null") {
				tail = "tail -z"
			}
			if c.Args().First() == "-" {
				of = " of stdin" // which may have been the rest of a file
			}
			if r.Failed > 0 {
				done = "done, or failed"
			}
			fmt.Fprintf(p.err, "Every line%s before line %d is %s. With the same flags this goes on there: "+
				"%s -n +%[2]d FILE | cachesidecar warm -\n", of, w.line+1, done, tail)
		}
		return explain(c, err)
	case out != nil:
		return out
	case r.Failed > 0:
		return errStatus1
	}
	return nil
}
