package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// keyList reads keys, one per line or up to a zero byte. It skips empty keys.
type keyList struct {
	io.Closer
	name  string
	lines *bufio.Scanner
	line  int64 // number of lines read, with empty ones
}

// listedKey is a key and its line, from 1.
type listedKey struct {
	line int64
	key  string
}

// maxKeyLine is the longest line that is read as a key, in bytes. The sidecar refuses keys above 1,024 bytes one by
// one. A file with a line above maxKeyLine is not a list of keys.
const maxKeyLine = 64 << 10

func newKeyList(r io.ReadCloser, name string, null bool) *keyList {
	l := &keyList{Closer: r, name: name, lines: bufio.NewScanner(r)}
	l.lines.Buffer(nil, maxKeyLine)
	if null {
		l.lines.Split(splitNull)
	}
	return l
}

// openKeys opens a list of keys; "-" is in. If counted is set and the list can be read
// twice, it first counts the keys; else the total is -1.
func openKeys(in io.Reader, name string, null, counted bool) (l *keyList, total int64, err error) {
	if name == "-" {
		return newKeyList(io.NopCloser(in), "stdin", null), -1, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read the keys: %w", err)
	}
	total = -1
	if st, err := f.Stat(); err == nil && counted && st.Mode().IsRegular() {
		l = newKeyList(f, name, null)
		for ok := true; ok && err == nil; total++ { // from -1: its last round finds the end
			_, ok, err = l.readKey()
		}
		if err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			f.Close()
			return nil, 0, err
		}
	}
	return newKeyList(f, name, null), total, nil
}

// splitNull is bufio.ScanLines for zero bytes.
func splitNull(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// readKey returns the next key; ok is false at the end.
func (l *keyList) readKey() (k listedKey, ok bool, err error) {
	for l.lines.Scan() {
		l.line++
		if key := l.lines.Text(); key != "" {
			return listedKey{l.line, key}, true, nil
		}
	}
	err = l.lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		return k, false, fmt.Errorf("%s: line %d is longer than %d bytes: is it a list of keys?",
			l.name, l.line+1, maxKeyLine)
	}
	if err != nil {
		err = fmt.Errorf("cannot read the keys: %w", err)
	}
	return k, false, err
}

// readKeys returns up to n keys, and no key at the end.
func (l *keyList) readKeys(ctx context.Context, n int) ([]listedKey, error) {
	return waitFor(ctx, func() (keys []listedKey, err error) {
		for len(keys) < n {
			key, ok, err := l.readKey()
			if err != nil || !ok {
				return keys, err
			}
			keys = append(keys, key)
		}
		return keys, nil
	})
}
