// Package trace reads files of cache requests in the formats of the public
// traces, plain or compressed.
//
//	name ends in   a request is
//	.trace         a big-endian uint32 (cache2k)
//	.lis           a line "start n …": blocks start to start+n-1 (ARC)
//	.csv .txt .tr  a line "time key size", or one key a line; commas or blanks
//
// each also behind .gz, .xz or .zst. It starts no goroutine of its own.
package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
	"github.com/zeebo/xxh3"
)

// Request is one access. Size is in bytes, zero where the trace has none.
type Request struct {
	Key  uint64
	Size uint32
}

// maxBlocks bounds the requests that one line of an ARC trace may stand for.
const maxBlocks = 1 << 20

var compressions = []string{".gz", ".xz", ".zst"}

// Files lists the trace files of a folder, by name.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		text := strings.Contains(e.Name(), "LICENSE") || strings.Contains(e.Name(), "README")
		if !e.IsDir() && !text && reader(kind(e.Name())) != nil {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	sort.Strings(files)
	return files, nil
}

// Name is a trace's short name: the file's, without endings.
func Name(path string) string {
	base := filepath.Base(path)
	for _, ext := range append(compressions, ".trace", ".lis", ".csv", ".txt", ".tr") {
		base = strings.TrimSuffix(base, ext)
	}
	return base
}

func kind(name string) string {
	for _, ext := range compressions {
		name = strings.TrimSuffix(name, ext)
	}
	return filepath.Ext(name)
}

func reader(kind string) func(io.Reader, func(Request) bool) error {
	switch kind {
	case ".trace":
		return readBinary
	case ".lis":
		return readARC
	case ".csv", ".txt", ".tr":
		return readLines
	}
	return nil
}

// Read yields the requests of a file. An error comes last, beside a zero
// Request.
func Read(path string) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Request{}, err)
			return
		}
		defer f.Close()
		r, err := decompress(bufio.NewReaderSize(f, 1<<16), path)
		if err != nil {
			yield(Request{}, fmt.Errorf("%s: %w", path, err))
			return
		}
		read := reader(kind(path))
		if read == nil {
			yield(Request{}, fmt.Errorf("%s: unknown kind of trace; known are .trace, .lis, .csv, .txt and .tr", path))
			return
		}
		stopped := false
		err = read(r, func(q Request) bool {
			stopped = !yield(q, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(Request{}, fmt.Errorf("%s: %w", path, err))
		}
	}
}

func decompress(r io.Reader, path string) (io.Reader, error) {
	switch filepath.Ext(path) {
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return xz.NewReader(r, 0)
	case ".zst":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d, nil
	}
	return r, nil
}

func readBinary(r io.Reader, yield func(Request) bool) error {
	b := bufio.NewReaderSize(r, 1<<16)
	var word [4]byte
	for {
		switch _, err := io.ReadFull(b, word[:]); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if !yield(Request{Key: uint64(binary.BigEndian.Uint32(word[:]))}) {
			return nil
		}
	}
}

func readARC(r io.Reader, yield func(Request) bool) error {
	return lines(r, func(n int, f [][]byte) (bool, error) {
		if len(f) < 2 {
			return false, fmt.Errorf("line %d: want \"start n\"", n)
		}
		start, err1 := strconv.ParseUint(string(f[0]), 10, 63)
		blocks, err2 := strconv.ParseUint(string(f[1]), 10, 63)
		if err := errors.Join(err1, err2); err != nil {
			return false, fmt.Errorf("line %d: %w", n, err)
		}
		if blocks > maxBlocks {
			return false, fmt.Errorf("line %d: %d blocks at once, at most %d are read", n, blocks, maxBlocks)
		}
		for i := range blocks {
			if !yield(Request{Key: start + i}) {
				return false, nil
			}
		}
		return true, nil
	})
}

func readLines(r io.Reader, yield func(Request) bool) error {
	return lines(r, func(n int, f [][]byte) (bool, error) {
		switch len(f) {
		case 1:
			return yield(Request{Key: xxh3.Hash(f[0])}), nil
		case 2:
			return false, fmt.Errorf("line %d: want a key, or \"time key size\"", n)
		}
		size, err := strconv.ParseUint(string(f[2]), 10, 32)
		if err != nil {
			return false, fmt.Errorf("line %d: %w", n, err)
		}
		return yield(Request{Key: xxh3.Hash(f[1]), Size: uint32(size)}), nil
	})
}

// lines calls f with the fields of each line that has any, and with its number.
func lines(r io.Reader, f func(n int, fields [][]byte) (bool, error)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 1<<16), 1<<20)
	for n := 1; s.Scan(); n++ {
		fields := bytes.FieldsFunc(s.Bytes(), func(c rune) bool { return c == ' ' || c == '\t' || c == ',' || c == '\r' })
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		if more, err := f(n, fields); err != nil || !more {
			return err
		}
	}
	return s.Err()
}
