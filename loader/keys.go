package loader

import (
	"fmt"
	"regexp"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// Keys decides which keys of a namespace may be requested from its origin, and be written and loaded by
// apps. It is checked first, so that an invented key costs the origin nothing.
type Keys struct {
	pattern *regexp.Regexp
	given   string // the pattern
	maxLen  int
}

// NewKeys returns a Keys. pattern is a regular expression (RE2) that the whole key must
// match; empty: any key. maxLen is the maximum length in bytes; zero: 1,024.
func NewKeys(pattern string, maxLen int) (*Keys, error) {
	if maxLen < 0 || maxLen > kv.MaxKeyLen {
		return nil, settings.Problemf("max_key", "%d: give 1 to %d, or 0 for %[2]d", maxLen, kv.MaxKeyLen)
	}
	k := &Keys{maxLen: maxLen}
	if maxLen == 0 {
		k.maxLen = kv.MaxKeyLen
	}
	if pattern == "" {
		return k, nil
	}
	// The pattern must also compile alone: "a)|(b" would be valid only inside the
	// parentheses.
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, settings.Problemf("key_pattern", "%q: %w", pattern, err)
	}
	k.given = pattern
	k.pattern = regexp.MustCompile(`\A(?:` + pattern + `)\z`)
	return k, nil
}

// Pattern returns the pattern; empty: any key.
func (k *Keys) Pattern() string { return k.given }

// Check returns nil, or an error that wraps ErrBadKey. The error does not contain the
// key, which may be private.
func (k *Keys) Check(key []byte) error {
	switch {
	case len(key) == 0:
		return fmt.Errorf("%w: it is empty", ErrBadKey)
	case len(key) > k.maxLen:
		return fmt.Errorf("%w: %d bytes long, at most %d are allowed", ErrBadKey, len(key), k.maxLen)
	case k.pattern != nil && !k.pattern.Match(key):
		return fmt.Errorf("%w: it does not match the namespace's key_pattern %q", ErrBadKey, k.given)
	}
	return nil
}
