package namespaces

import (
	"context"
	"strconv"
	"strings"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Secrets are what no error may show: a server may repeat what it was sent, and
// a command may say anything.
type Secrets []string

// hide leaves the secrets out of an error's text.
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

// Source is a source whose errors show none of them.
func (s Secrets) Source(from loader.Source) loader.Source {
	return loader.SourceFunc(func(ctx context.Context, key []byte) (loader.Value, error) {
		v, err := from.Load(ctx, key)
		return v, s.hide(err)
	})
}

// Hidden is an error with another text.
type Hidden struct {
	error
	Text string
}

func (h Hidden) Error() string { return h.Text }
func (h Hidden) Unwrap() error { return h.error }

// lister is a lister whose errors show none of the secrets.
func (s Secrets) lister(from loader.Lister) loader.Lister { return hidingLister{from, s} }

type hidingLister struct {
	from loader.Lister
	hide Secrets
}

func (h hidingLister) Keys(ctx context.Context, each func(key []byte) error) error {
	return h.hide.hide(h.from.Keys(ctx, each))
}

// writer is a writer whose errors show none of them.
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
