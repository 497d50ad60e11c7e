package calls

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestErr checks that every status has its public error, and keeps its message.
func TestErr(t *testing.T) {
	for status, want := range map[wire.Status]error{
		wire.OK: nil, wire.Stale: nil, wire.Lease: nil,
		wire.Miss: cachesidecar.ErrNotFound, wire.Exists: cachesidecar.ErrExists, wire.NotStored: cachesidecar.ErrNotStored,
		wire.BadRequest: cachesidecar.ErrBadRequest, wire.TooLarge: cachesidecar.ErrTooLarge,
		wire.Unauthorized: cachesidecar.ErrUnauthorized, wire.Moved: cachesidecar.ErrUnavailable,
		wire.Unavailable: cachesidecar.ErrNoOwner, wire.Timeout: cachesidecar.ErrTimeout, wire.Busy: cachesidecar.ErrBusy,
		wire.Origin: cachesidecar.ErrOrigin, wire.Unsupported: cachesidecar.ErrUnsupported,
		wire.Internal: cachesidecar.ErrInternal, 99: cachesidecar.ErrInternal,
	} {
		if err := Err(&wire.Reply{Status: status, Message: []byte("do this")}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", status, err, want)
		} else if status >= wire.NotStored && !strings.Contains(err.Error(), "do this") {
			t.Errorf("%s: %v has lost its message", status, err)
		}
	}
	for status := wire.BadRequest; status < wire.StatusCount; status++ {
		if statusErrors[status] == nil {
			t.Errorf("%s has no public error", status)
		}
	}
	var exists *cachesidecar.VersionError
	if err := Err(&wire.Reply{Status: wire.Exists, Version: 7}); !errors.As(err, &exists) || exists.Version != 7 {
		t.Errorf("EXISTS: %v", err)
	}
	for why, want := range map[wire.Why]error{wire.Absent: cachesidecar.ErrAbsent, wire.Degraded: ErrDegraded} {
		err := Err(&wire.Reply{Status: wire.Miss, Why: why})
		if !errors.Is(err, want) || !errors.Is(err, cachesidecar.ErrNotFound) {
			t.Errorf("a miss, %v: %v", why, err)
		}
	}
}

func TestContextErr(t *testing.T) {
	late := ContextErr(context.DeadlineExceeded)
	if !errors.Is(late, cachesidecar.ErrTimeout) || !errors.Is(late, context.DeadlineExceeded) {
		t.Errorf("a deadline: %v", late)
	}
	if err := ContextErr(context.Canceled); err != context.Canceled {
		t.Errorf("a cancelled call: %v", err)
	}
}
