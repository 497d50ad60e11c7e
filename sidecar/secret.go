package sidecar

import (
	"context"
	"strconv"
	"strings"

	"github.com/cachesidecar/cachesidecar/loader"
)

// secrets are what no error may show: a server may repeat what it was sent, and
// a command may say anything.
type secrets []string

// hide leaves the secrets out of an error's text.
func (s secrets) hide(err error) error {
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
	return hidden{err, text}
}

// source is a source whose errors show none of them.
func (s secrets) source(from loader.Source) loader.Source {
	return loader.SourceFunc(func(ctx context.Context, key []byte) (loader.Value, error) {
		v, err := from.Load(ctx, key)
		return v, s.hide(err)
	})
}

// hidden is an error with another text.
type hidden struct {
	error
	text string
}

func (h hidden) Error() string { return h.text }
func (h hidden) Unwrap() error { return h.error }

// lister is a lister whose errors show none of the secrets.
func (s secrets) lister(from loader.Lister) loader.Lister { return hidingLister{from, s} }

type hidingLister struct {
	from loader.Lister
	hide secrets
}

func (h hidingLister) Keys(ctx context.Context, each func(key []byte) error) error {
	return h.hide.hide(h.from.Keys(ctx, each))
}

// writer is a writer whose errors show none of them.
func (s secrets) writer(to loader.Writer) loader.Writer { return hidingWriter{to, s} }

type hidingWriter struct {
	to   loader.Writer
	hide secrets
}

func (h hidingWriter) Store(ctx context.Context, key []byte, v loader.Value) error {
	return h.hide.hide(h.to.Store(ctx, key, v))
}

func (h hidingWriter) Delete(ctx context.Context, key []byte) error {
	return h.hide.hide(h.to.Delete(ctx, key))
}
