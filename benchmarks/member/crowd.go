package member

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// CrowdOrder asks for one key with many concurrent callers.
type CrowdOrder struct {
	Key     string `json:"key"`
	Callers int    `json:"callers"`
	// Haste is the timeout of one extra caller, which begins HasteAfter later; zero: no
	// extra caller.
	Haste time.Duration `json:"haste_ns,omitempty"`
}

// CrowdAnswer is what the callers got.
type CrowdAnswer struct {
	Answered int64         `json:"answered"`
	Errors   int64         `json:"errors"`
	Left     time.Duration `json:"left_ns"` // how long the extra caller waited
}

// HasteAfter is the delay of the extra caller, so that the others have begun.
const HasteAfter = 5 * time.Millisecond

// ServeCrowds executes orders until the end of in.
func ServeCrowds(ctx context.Context, node Node, in io.Reader, out io.Writer) error {
	return serve(in, out, func(o CrowdOrder) CrowdAnswer { return crowd(ctx, node, o) })
}

func crowd(ctx context.Context, node Node, o CrowdOrder) (a CrowdAnswer) {
	var wg sync.WaitGroup
	var answered atomic.Int64
	for range o.Callers {
		wg.Go(func() {
			if _, err := node.Get(ctx, o.Key); err == nil {
				answered.Add(1)
			}
		})
	}
	if o.Haste > 0 {
		time.Sleep(HasteAfter)
		ctx, cancel := context.WithTimeout(ctx, o.Haste)
		begun := time.Now()
		_, _ = node.Get(ctx, o.Key)
		a.Left = time.Since(begun)
		cancel()
	}
	wg.Wait()
	a.Answered = answered.Load()
	a.Errors = int64(o.Callers) - a.Answered
	return a
}

// Load gets a key's value from an origin, whose URL has {key}.
func Load(ctx context.Context, c *http.Client, origin, key string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.Replace(origin, "{key}", key, 1), nil)
	if err != nil {
		return nil, err
	}
	r, err := c.Do(q)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the origin answers %s", r.Status)
	}
	return io.ReadAll(r.Body)
}
