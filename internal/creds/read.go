package creds

import (
	"errors"
	"path/filepath"

	"github.com/cachesidecar/cachesidecar/internal/plainfile"
)

// read returns a short file. What is secret is read by no other users; what is
// not is written by no others. A group may read a secret: it is how an
// orchestrator hands one out.
func read(path string, secret bool) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("give the whole path, from / on, of a file")
	}
	if secret {
		return plainfile.Secret(path, maxFile)
	}
	return plainfile.Trusted(path, maxFile)
}
