package creds

import (
	"errors"
	"path/filepath"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// read returns the content of a short file. Other users may neither read nor write a
// secret file, and may not write a file that is not secret. A group may read a secret,
// because orchestrators hand out secrets that way.
func read(path string, secret bool) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("give the whole path, from / on, of a file")
	}
	if secret {
		return settings.ReadSecret(path, maxFile)
	}
	return settings.ReadTrusted(path, maxFile)
}
