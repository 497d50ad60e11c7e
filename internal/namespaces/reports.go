package namespaces

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/cachesidecar/cachesidecar/loader"
)

// reports turns the errors of an origin into errors for apps: these say which origin has
// failed and how. The address of the origin, its user, and its own words go to the log
// only; the secrets do not even go there.
type reports struct {
	namespace, kind string
	log             *slog.Logger
	hide            Secrets
}

// source returns a source whose errors may be shown to apps.
func (r reports) source(from loader.Source) loader.Source {
	return loader.SourceFunc(func(ctx context.Context, key []byte) (loader.Value, error) {
		v, err := from.Load(ctx, key)
		return v, r.report("a load failed", err)
	})
}

// report logs an error and returns one that may be shown to apps. Errors about the key, and
// errors that are no failures, have texts of this project only: they are returned as they
// are.
func (r reports) report(what string, err error) error {
	err = r.hide.hide(err)
	for _, fine := range []error{nil, loader.ErrAbsent, loader.ErrBusy, loader.ErrBadKey} {
		if errors.Is(err, fine) {
			return err
		}
	}
	text := OriginName(r.namespace, r.kind) + ": "
	if errors.Is(err, context.Canceled) {
		return Hidden{err, text + "was given up"}
	}
	r.log.Warn(what, "namespace", r.namespace, "origin", r.kind, "error", err)
	return Hidden{err, text + manner(err) + "; the sidecar's log has more"}
}

// OriginName returns the name of an origin, as apps are told it.
func OriginName(namespace, kind string) string { return fmt.Sprintf("origin %q (%s)", namespace, kind) }

// manner returns how an origin has failed.
func manner(err error) string {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, loader.ErrTooLarge):
		return "the value is larger than max_value"
	case errors.Is(err, loader.ErrPermanent):
		return "refused the request, or what is configured does not fit it"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "did not answer in its time"
	case errors.As(err, &op) && op.Op == "dial":
		return "could not be reached"
	}
	return "failed, or gave an answer that cannot be read"
}

// reportingWriter is a writer whose errors may be shown to apps.
type reportingWriter struct {
	loader.Writer
	reports
}

func (w reportingWriter) Store(ctx context.Context, key []byte, v loader.Value) error {
	return w.report("a write to an origin failed", w.Writer.Store(ctx, key, v))
}

func (w reportingWriter) Delete(ctx context.Context, key []byte) error {
	return w.report("a deletion at an origin failed", w.Writer.Delete(ctx, key))
}
