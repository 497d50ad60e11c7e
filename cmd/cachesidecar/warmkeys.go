package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/table"
)

// Results for a key.
const (
	pending uint8 = iota // not asked for, or not answered
	loaded
	present
	absent
	failed
)

// warmChunk is the number of keys that are asked for before the next ones are read. The
// position is saved between chunks.
const warmChunk = 1024

// keyList reads keys, one per line or up to a zero byte. It skips empty keys.
type keyList struct {
	io.Closer
	name  string
	lines *bufio.Scanner
	read  int64 // number of keys read
	last  string
}

// maxKeyLine is the longest line that is read as a key, in bytes. The sidecar refuses
// keys above 1,024 bytes one by one. A file with a line above maxKeyLine is not a list of
// keys.
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
		for ok := true; ok && err == nil; {
			_, ok, err = l.one()
		}
		if err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			f.Close()
			return nil, 0, err
		}
		total = l.read
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

// one returns the next key; ok is false at the end.
func (l *keyList) one() (key string, ok bool, err error) {
	for l.lines.Scan() {
		if b := l.lines.Bytes(); len(b) > 0 {
			l.read++
			l.last = string(b)
			return l.last, true, nil
		}
	}
	err = l.lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		return "", false, fmt.Errorf("%s: what follows key %s is longer than %d bytes: is it a list of keys?",
			l.name, table.Count(l.read), maxKeyLine)
	}
	if err != nil {
		err = fmt.Errorf("cannot read the keys: %w", err)
	}
	return "", false, err
}

// next returns up to n keys, and no key at the end.
func (l *keyList) next(ctx context.Context, n int) ([]string, error) {
	return waitFor(ctx, func() (keys []string, err error) {
		for len(keys) < n {
			key, ok, err := l.one()
			if err != nil || !ok {
				return keys, err
			}
			keys = append(keys, key)
		}
		return keys, nil
	})
}

// position is how far a run came. A file keeps it between two runs.
type position struct {
	Namespace string `json:"namespace"`
	Keys      int64  `json:"keys"`        // done, from the list's beginning
	Last      []byte `json:"last_base64"` // the last of them, to recognize the list

	path    string // "": not saved
	savedAt time.Time
}

// readPosition reads the position of an earlier run. It also checks that this run can
// write it.
func readPosition(path, ns string) (*position, error) {
	at := &position{Namespace: ns, path: path}
	if path == "" {
		return at, nil
	}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return at, at.save()
	case err != nil:
		return nil, fmt.Errorf("--resume: %w", err)
	}
	var was position
	if err := json.Unmarshal(b, &was); err != nil || was.Keys < 0 {
		return nil, usagef("--resume %s: warm has not written this file: give another, or remove it", path)
	}
	if was.Namespace != ns {
		return nil, usagef("--resume %s: the file is about namespace %q, and this is %q: "+
			"give another, or remove it to begin anew", path, was.Namespace, ns)
	}
	was.path = path
	return &was, was.save()
}

// seek skips the keys that are done.
func (at *position) seek(ctx context.Context, l *keyList) error {
	for l.read < at.Keys {
		keys, err := l.next(ctx, int(min(warmChunk, at.Keys-l.read)))
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
	}
	if l.read < at.Keys || l.last != string(at.Last) {
		return usagef("--resume %s: the file is about another list: key %s there is %q: "+
			"give another, or remove it to begin anew", at.path, table.Count(at.Keys), at.Last)
	}
	return nil
}

// move moves the position behind the last key that was answered without failure, up to
// the first pending key. Failed keys behind it are asked for again. first is the index of
// keys[0] in the list, from zero.
func (at *position) move(first int64, keys []string, results []uint8) {
	for i, b := range results {
		if b == pending {
			return
		}
		if b != failed {
			at.Keys, at.Last = first+int64(i)+1, []byte(keys[i])
		}
	}
}

// saveSometimes saves the position, at most once a second.
func (at *position) saveSometimes() error {
	if time.Since(at.savedAt) < time.Second {
		return nil
	}
	return at.save()
}

// save saves the position. The file is replaced atomically: after an error it has its
// old content.
func (at *position) save() error {
	if at.path == "" {
		return nil
	}
	at.savedAt = time.Now()
	b, err := json.Marshal(at)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(at.path), ".cachesidecar-resume")
	if err != nil {
		return fmt.Errorf("--resume: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), at.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("--resume: %w", err)
	}
	return nil
}
