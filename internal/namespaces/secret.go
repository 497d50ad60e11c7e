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

// hide removes the secrets from an error's text.
func (s Secrets) hide(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, secret := range s {
		if secret == "" {
			continue
		}
		text = strings.ReplaceAll(text, secret, "(secret)")
		text = strings.ReplaceAll(text, strings.Trim(strconv.Quote(secret), `"`), "(secret)")
	}
	if text == err.Error() {
		return err
	}
	return Hidden{err, text}
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

// lister returns a lister whose errors do not show the secrets.
func (s Secrets) lister(from loader.Lister) loader.Lister { return hidingLister{from, s} }

type hidingLister struct {
	from loader.Lister
	hide Secrets
}

func (h hidingLister) Keys(ctx context.Context, each func(key []byte) error) error {
	return h.hide.hide(h.from.Keys(ctx, each))
}

// writer returns a writer whose errors do not show the secrets.
func (s Secrets) writer(to loader.Writer) loader.Writer { return hidingWriter{to, s} }

type hidingWriter struct {
	to   loader.Writer
	hide Secrets
}

func (h hidingWriter) Store(ctx context.Context, key []byte, v loader.Value) error {
	return h.hide.hide(h.to.Store(ctx, key, v))
}

func (h hidingWriter) Delete(ctx context.Context, key []byte) error {
	return h.hide.hide(h.to.Delete(ctx, key))
}
