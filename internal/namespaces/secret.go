package namespaces

import (
	"context"
	"strconv"
	"strings"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Secrets are texts that no error may show. A server may repeat what it was sent, and a
// command may say anything.
type Secrets []string

// Hide removes the secrets from an error's text.
func (s Secrets) Hide(err error) error { return s.hide(err) }

// hide removes the secrets from an error's text.
func (s Secrets) hide(err error) error {
	if err == nil {
		return nil
	}
	text := s.hideText(err.Error())
	if text == err.Error() {
		return err
	}
	return Hidden{err, text}
}

// hideText removes the secrets from a text.
func (s Secrets) hideText(text string) string {
	for _, secret := range s {
		if secret == "" {
			continue
		}
		text = strings.ReplaceAll(text, secret, "(secret)")
		text = strings.ReplaceAll(text, strings.Trim(strconv.Quote(secret), `"`), "(secret)")
	}
	return text
}

// Source returns a source whose errors do not show the secrets.
func (s Secrets) Source(from loader.Source) loader.Source {
	return loader.SourceFunc(func(ctx context.Context, key []byte) (loader.Value, error) {
		v, err := from.Load(ctx, key)
		return v, s.hide(err)
	})
}

// Hidden is an error whose text has been replaced.
type Hidden struct {
	error
	Text string
}

func (h Hidden) Error() string { return h.Text }
func (h Hidden) Unwrap() error { return h.error }

// hidingLister is a lister whose errors do not show the secrets.
type hidingLister struct {
	from loader.Lister
	hide Secrets
}

func (h hidingLister) Keys(ctx context.Context, each func(key []byte) error) error {
	return h.hide.hide(h.from.Keys(ctx, each))
}
