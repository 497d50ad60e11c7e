package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
)

// callError turns an error of a call into one of the public errors.
func callError(err error) error {
	switch {
	case errors.Is(err, rpc.ErrFull):
		return fmt.Errorf("%w: %w", cachesidecar.ErrBusy, err)
	case errors.Is(err, rpc.ErrNotSent):
		return fmt.Errorf("%w: %w", cachesidecar.ErrUnavailable, err)
	case errors.Is(err, rpc.ErrNoAnswer), errors.Is(err, rpc.ErrClosed):
		return fmt.Errorf("%w: %w", cachesidecar.ErrTimeout, err)
	}
	return calls.ContextErr(err)
}

// withReason adds the reason why ctx has ended to a cause of the context's own.
func withReason(ctx context.Context, err error) error {
	if why := ctx.Err(); why != nil && !errors.Is(err, why) && errors.Is(err, context.Cause(ctx)) {
		return fmt.Errorf("%w: %w", why, err)
	}
	return err
}

// connectError turns the error of a call that has no connection into one of the public
// errors: its time was over while another call connected.
func connectError(err error) error {
	if errors.Is(err, rpc.ErrDown) && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", cachesidecar.ErrUnavailable, err)
	}
	return err
}

// refusals are the errors after which a write was surely not executed, and the near cache
// has no other value than the sidecars.
var refusals = []error{
	cachesidecar.ErrUnavailable, cachesidecar.ErrBusy, cachesidecar.ErrBadRequest, cachesidecar.ErrTooLarge,
	cachesidecar.ErrUnauthorized, cachesidecar.ErrUnsupported, cachesidecar.ErrClosed,
}

// changes reports whether a failed write may have been executed, or has found another
// value, or none, than the near cache may have.
func changes(err error) bool {
	return !slices.ContainsFunc(refusals, func(e error) bool { return errors.Is(err, e) })
}
