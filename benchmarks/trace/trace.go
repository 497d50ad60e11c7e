// Package trace reads files of cache requests in the formats of the public traces, plain
// or compressed.
//
//	name ends in   a request is
//	.trace         a big-endian uint32 (cache2k)
//	.lis           a line "start n …": blocks start to start+n-1 (ARC)
//	.csv .txt .tr  a line of fields between commas or blanks: "key", or
//	               "time key size" (webcachesim), or "time key keysize
//	               valuesize client op ttl" (Twitter)
//
// Each ending may be followed by .gz, .xz or .zst. Lines that begin with # are skipped.
// Every operation counts as a request, reads and others alike: a replay sets what it
// misses. The package starts no goroutine and keeps no request.
package trace

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// Request is one access. Size is the size of the value in bytes, or zero if the trace has
// no sizes.
type Request struct {
	Key  uint64
	Size uint32
}

// formats maps the ending of a file's name to its reader. A reader stops when yield
// returns false.
var formats = map[string]func(r io.Reader, yield func(Request) bool) error{
	".trace": readBinary,
	".lis":   readARC,
	".csv":   readLines,
	".txt":   readLines,
	".tr":    readLines,
}

var compressions = []string{".gz", ".xz", ".zst"}

// split splits a path's base name into the short name, the ending of the format and the
// ending of the compression.
func split(path string) (name, format, compression string) {
	name = filepath.Base(path)
	if ext := filepath.Ext(name); slices.Contains(compressions, ext) {
		name, compression = strings.TrimSuffix(name, ext), ext
	}
	format = filepath.Ext(name)
	return strings.TrimSuffix(name, format), format, compression
}

// Name returns a trace's short name, which is the file's name without endings.
func Name(path string) string {
	name, _, _ := split(path)
	return name
}

// Files lists the trace files of a folder by name, without READMEs and licences. A folder
// without traces is an error.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		text := strings.Contains(e.Name(), "LICENSE") || strings.Contains(e.Name(), "README")
		if _, format, _ := split(e.Name()); !e.IsDir() && !text && formats[format] != nil {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no traces in %s: their names end in .trace, .lis, .csv, .txt or .tr, or in one of these and .gz, .xz or .zst", dir)
	}
	return files, nil
}

// Read yields the requests of a file. An error comes last, with a zero Request.
func Read(path string) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		stopped := false
		err := read(path, func(q Request) bool {
			stopped = !yield(q, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(Request{}, err)
		}
	}
}

func read(path string, yield func(Request) bool) error {
	_, format, compression := split(path)
	parse := formats[format]
	if parse == nil {
		return fmt.Errorf("%s: unknown kind of trace %q: known are .trace, .lis, .csv, .txt and .tr", path, format)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := decompress(bufio.NewReaderSize(f, 1<<16), compression)
	if err != nil {
		return fmt.Errorf("%s: no %s file: %w", path, compression, err)
	}
	defer r.Close()
	if err := parse(r, yield); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func decompress(r io.Reader, compression string) (io.ReadCloser, error) {
	switch compression {
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		x, err := xz.NewReader(r, 0)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case ".zst":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}
