package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Secrets are texts that no error may show. A server may repeat what it was sent, and a
// command may say anything.
type Secrets []string

// maxText is the most of an error's text that is kept, in bytes: a server may say megabytes.
const maxText = 16 << 10

// Hide removes the secrets from an error's text, and cuts it at 16 KiB.
func (s Secrets) Hide(err error) error {
	if err == nil {
		return nil
	}
	before := err.Error()
	text := s.HideText(before)
	if len(text) > maxText {
		text = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(text[:maxText], ""), len(text))
	}
	if text == before {
		return err
	}
	return Hidden{err, text}
}

// HideText removes the secrets from a text.
func (s Secrets) HideText(text string) string {
	for _, secret := range s {
		if secret == "" {
			continue
		}
		text = strings.ReplaceAll(text, secret, "(secret)")
		text = strings.ReplaceAll(text, strings.Trim(strconv.Quote(secret), `"`), "(secret)")
	}
	return text
}

// Secrets returns what no error of the origin may show.
func (o *Origin) Secrets() Secrets { return o.hide }

// Hidden is an error whose text has been replaced.
type Hidden struct {
	error
	Text string
}

func (hidden Hidden) Error() string { return hidden.Text }
func (hidden Hidden) Unwrap() error { return hidden.error }

// FullName returns the name of an origin, as apps are told it.
func FullName(namespace, kind string) string { return fmt.Sprintf("origin %q (%s)", namespace, kind) }

// Told returns all that apps may be told of an error of an origin, or of the server of a feed: how it has failed, in
// one word and in several, and what cause adds. The error itself is for the log.
func Told(err error) (kind, text string) {
	kind, text = manner(err)
	return kind, text + cause(err)
}

func manner(err error) (kind, text string) {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, loader.ErrFeed):
		return "misfit", "does not fit the settings of the feed"
	case errors.Is(err, loader.ErrGap):
		return "gap", "cannot send some changes any more"
	case errors.Is(err, loader.ErrTooLarge):
		return "too_large", "the value is larger than max_value"
	case errors.Is(err, loader.ErrPermanent):
		return "refused", "refused the request, or what is configured does not fit it"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout", "did not answer in its time"
	case errors.As(err, &op) && op.Op == "dial":
		return "unreachable", "could not be reached"
	}
	return "failed", "failed, or gave an answer that cannot be read"
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
