package client

import (
	"context"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Keys lists the keys of the client's namespace that this host owns, in no order, and
// after an error ends with it. The caller needs the right admin there. A key that exists
// throughout is listed once. A key that is written or deleted meanwhile may be listed. The
// sidecar looks at a bounded number of entries for each request, so a list of few keys
// among many takes many requests.
func (c *Client) Keys(ctx context.Context, o cachesidecar.KeysOptions) iter.Seq2[cachesidecar.KeyInfo, error] {
	return func(yield func(cachesidecar.KeyInfo, error) bool) {
		var cursor []byte
		for {
			q := wire.Request{Op: wire.OpKeys, Token: cursor, Limit: limit(o.Page)}
			if o.Prefix != "" {
				q.Key = []byte(o.Prefix)
			}
			page, err := callBody[wire.KeysPage](ctx, c, &q)
			if err != nil {
				yield(cachesidecar.KeyInfo{}, err)
				return
			}
			for _, k := range page.Keys {
				info := cachesidecar.KeyInfo{
					Key: string(k.Key), Size: int64(k.Size), Memory: int64(k.Memory), TTLMS: int64(k.TTLMS),
					Version: k.Version,
				}
				if !yield(info, nil) {
					return
				}
			}
			if cursor = page.Cursor; cursor == nil {
				return
			}
		}
	}
}

// Hot returns the keys that this host has read most in the last minute. The caller needs
// the right admin in their namespaces. Reads of near caches are not among them.
func (c *Client) Hot(ctx context.Context, o cachesidecar.HotOptions) (cachesidecar.HotKeys, error) {
	q := inspectRequest(wire.OpHot, o.Namespace, o.N)
	a, err := callBody[wire.Hot](ctx, c, &q)
	hot := cachesidecar.HotKeys{
		WindowMS: int64(a.WindowMS), Reads: int64(a.Reads), Keys: make([]cachesidecar.HotKey, 0, len(a.Keys)),
	}
	for _, k := range a.Keys {
		hot.Keys = append(hot.Keys, cachesidecar.HotKey{
			Namespace: k.Namespace, Key: string(k.Key), Reads: int64(k.Reads), Share: k.Share,
		})
	}
	return hot, err
}

// limit returns a number for a request. The sidecar refuses what is out of bounds.
func limit(n int) uint32 { return uint32(min(uint(n), math.MaxUint32)) }

// inspectRequest returns a request for what the host does in a namespace; in all if it is "".
func inspectRequest(op wire.Op, namespace string, n int) wire.Request {
	q := wire.Request{Op: op, Limit: limit(n), Options: wire.All}
	if namespace != "" {
		q.Namespace, q.Options = []byte(namespace), 0
	}
	return q
}

// Slow returns the slowest requests and loads of the host in the last minutes. The caller
// needs the right admin in their namespaces.
func (c *Client) Slow(ctx context.Context, o cachesidecar.SlowOptions) (cachesidecar.SlowCalls, error) {
	q := inspectRequest(wire.OpSlow, o.Namespace, o.N)
	a, err := callBody[wire.Slow](ctx, c, &q)
	return cachesidecar.SlowCalls{
		ThresholdMS: int64(a.ThresholdMS), WindowMS: int64(a.WindowMS),
		Requests: slowCalls(a.Requests), Loads: slowCalls(a.Loads),
	}, err
}

func slowCalls(list []wire.SlowCall) []cachesidecar.SlowCall {
	calls := make([]cachesidecar.SlowCall, 0, len(list))
	for _, c := range list {
		call := cachesidecar.SlowCall{
			Began: time.UnixMilli(int64(c.BeganMS)), TookUS: int64(c.TookUS), Op: c.Op, Namespace: c.Namespace,
			Key: string(c.Key), Keys: int64(c.Keys), Result: c.Result,
			Parts: make([]cachesidecar.SlowPart, 0, len(c.Parts)),
		}
		if c.Key != nil {
			call.Hash = fmt.Sprintf("%016x", c.Hash)
		}
		for _, p := range c.Parts {
			call.Parts = append(call.Parts, cachesidecar.SlowPart{What: p.What, Node: p.Node, TookUS: int64(p.TookUS)})
		}
		calls = append(calls, call)
	}
	return calls
}
