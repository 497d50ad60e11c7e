package namespaces

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"regexp"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// reports turns the errors of an origin into errors for apps: these say which origin has
// failed and how. The address of the origin, its user, and its own words go to the log
// only; the secrets do not even go there.
type reports struct {
	namespace, kind, node string
	log                   *slog.Logger
	hide                  Secrets
}

// source returns a source whose errors may be shown to apps.
func (r reports) source(from loader.Source, health *Health) loader.Source {
	return loader.SourceFunc(func(ctx context.Context, key []byte) (loader.Value, error) {
		v, err := from.Load(ctx, key)
		return v, r.report(health, err)
	})
}

// health returns a Health of the origin.
func (r reports) health(words healthWords) *Health {
	return &Health{node: r.node, log: r.log.With("namespace", r.namespace, "origin", r.kind), words: words}
}

// report notes the result of a call, and returns an error that may be shown to apps.
// Errors about the key, and errors that are no failures, have texts of this project only:
// they are returned as they are.
func (r reports) report(of *Health, err error) error {
	err = r.hide.hide(err)
	switch {
	case err == nil, errors.Is(err, loader.ErrAbsent):
		of.succeeded()
		return err
	case errors.Is(err, loader.ErrNoRoom): // without the address
		return Hidden{err, loader.ErrNoRoom.Error()}
	case errors.Is(err, loader.ErrBusy), errors.Is(err, loader.ErrBadKey): // the origin was not asked
		return err
	}
	text := OriginName(r.namespace, r.kind) + ": "
	if errors.Is(err, context.Canceled) {
		return Hidden{err, text + "was given up"}
	}
	why := manner(err) + cause(err)
	return Hidden{err, text + why + of.failed(err, why)}
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

var sqlState = regexp.MustCompile(`^[0-9A-Z]{5}$`)

// cause returns what may be told of an error beyond its manner, after a colon: a number
// or a text of the system, never words of the origin; "" if there is nothing.
func cause(err error) string {
	var (
		errno  syscall.Errno
		lookup *net.DNSError
		state  interface{ SQLState() string } // as of package pgconn
		status interface{ Status() int }      // of HTTP
		exit   *exec.ExitError
	)
	switch {
	case errors.As(err, &errno):
		return ": " + errno.Error()
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return ": no such host"
	case errors.As(err, &state) && sqlState.MatchString(state.SQLState()):
		return ": SQLSTATE " + state.SQLState()
	case errors.As(err, &status):
		return fmt.Sprintf(": status %d", status.Status())
	case errors.As(err, &exit) && exit.Exited():
		return fmt.Sprintf(": exit status %d", exit.ExitCode())
	}
	return ""
}

// reportingWriter is a writer whose errors may be shown to apps.
type reportingWriter struct {
	loader.Writer
	reports
	of *Health
}

func (w reportingWriter) Store(ctx context.Context, key []byte, v loader.Value) error {
	return w.report(w.of, w.Writer.Store(ctx, key, v))
}

func (w reportingWriter) Delete(ctx context.Context, key []byte) error {
	return w.report(w.of, w.Writer.Delete(ctx, key))
}

// followedLister notes the result of each listing, and returns errors that may be shown to
// apps.
type followedLister struct {
	loader.Lister
	of *Health
}

func (l followedLister) Keys(ctx context.Context, each func(key []byte) error) error {
	began := time.Now()
	err := l.Lister.Keys(ctx, each)
	if err == nil {
		l.of.succeeded()
		l.of.log.Debug("the filter of existing keys has all keys", "took", time.Since(began))
		return nil
	}
	why, line := manner(err)+cause(err), ""
	if ctx.Err() == nil {
		line = l.of.failed(err, why)
	}
	return Hidden{err, why + line}
}
