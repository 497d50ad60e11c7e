package trace

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"
)

func text(key string) uint64 { return xxh3.HashString(key) }

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// all reads a whole file.
func all(path string) (list []Request, err error) {
	for q, e := range Read(path) {
		if e != nil {
			err = e
			continue
		}
		list = append(list, q)
	}
	return list, err
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

func zstded(s string) string {
	w, _ := zstd.NewWriter(nil)
	return string(w.EncodeAll([]byte(s), nil))
}

// xzed returns the binary trace 7, 8, 7. The xz library cannot write the format.
func xzed() string {
	b, err := base64.StdEncoding.DecodeString(xzOf787)
	if err != nil {
		panic(err)
	}
	return string(b)
}

const xzOf787 = "/Td6WFoAAATm1rRGAgAhARYAAAB0L+WjAQALAAAABwAAAAgAAAAHAGdY80jEdexqAAEkDKYY2NgftvN9AQAAAAAEWVo="

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		want                []Request
	}{
		{"binary", "a.trace", "\x00\x00\x00\x07\x00\x00\x01\x00", []Request{{Key: 7}, {Key: 256}}},
		{"binary, empty", "a.trace", "", nil},
		{"binary, gzip", "a.trace.gz", gzipped("\x00\x00\x00\x07"), []Request{{Key: 7}}},
		{"binary, xz", "a.trace.xz", xzed(), []Request{{Key: 7}, {Key: 8}, {Key: 7}}},
		{"ARC", "a.lis", "10 3 0 1\n5 1 0 2\n", []Request{{Key: 10}, {Key: 11}, {Key: 12}, {Key: 5}}},
		{"ARC, zstd", "a.lis.zst", zstded("4 2 0 0"), []Request{{Key: 4}, {Key: 5}}},
		{"ARC, no blocks", "a.lis", "10 0 0 1\n", nil},
		{"keys", "a.txt", "x\n\n  y  \r\nx\n", []Request{{Key: text("x")}, {Key: text("y")}, {Key: text("x")}}},
		{"webcachesim", "a.tr", "1 x 100\n2 y 200\n", []Request{{text("x"), 100}, {text("y"), 200}}},
		{"webcachesim, commas and titles", "a.csv", "#time,key,size\n1, x, 100\n", []Request{{text("x"), 100}}},
		{"Twitter", "a.csv.zst", zstded("0,x,16,300,7,get,0\n1,y,16,40,7,set,60\n"), []Request{{text("x"), 300}, {text("y"), 40}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := all(write(t, c.file, c.content))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, error %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestReadBadInput(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		before              int // requests that come before the error
		want                string
	}{
		{"binary, cut off", "a.trace", "\x00\x00\x00\x07\x00", 1, "request 2: 1 bytes of 4"},
		{"ARC, one field", "a.lis", "1 1\n7\n", 1, `line 2: 1 fields: want "start n …"`},
		{"ARC, no number", "a.lis", "x 1\n", 0, `line 1: want "start n …"`},
		{"ARC, negative", "a.lis", "-1 1\n", 0, `"-1": invalid syntax`},
		{"ARC, too many blocks", "a.lis", "1 9999999\n", 0, "9999999 blocks at once: at most 1048576"},
		{"two fields", "a.txt", "x\nx 1\n", 1, "line 2: 2 fields"},
		{"four fields", "a.txt", "1 x 1 1\n", 0, "line 1: 4 fields"},
		{"titles", "a.csv", "time,key,size\n", 0, `size "size": want a number of bytes; put a # before`},
		{"size too large", "a.csv", "1,x,4294967295\n", 0, "size 4294967295: at most"},
		{"line too long", "a.txt", strings.Repeat("x", maxLine+1), 0, "line 1: bufio.Scanner: token too long"},
		{"gzip that is none", "a.txt.gz", "no gzip", 0, "no .gz file"},
		{"gzip, cut off", "a.txt.gz", gzipped("x\ny\n")[:12], 1, "unexpected EOF"},
		{"zstd that is none", "a.txt.zst", "no zstd at all", 0, "magic number mismatch"},
		{"xz that is none", "a.txt.xz", "no xz", 0, "a.txt.xz"},
		{"xz, cut off", "a.trace.xz", xzed()[:40], 3, "a.trace.xz"},
		{"unknown kind", "a.parquet", "x", 0, `unknown kind of trace ".parquet": known are .trace`},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, c.file, c.content)
			got, err := all(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got error %v, want one with the path and %q", err, c.want)
			}
			if len(got) != c.before {
				t.Errorf("got %d requests before the error, want %d", len(got), c.before)
			}
		})
	}
	if _, err := all(filepath.Join(t.TempDir(), "none.txt")); !os.IsNotExist(err) {
		t.Errorf("a file that is not there: got error %v", err)
	}
}

func TestReadStopsWhereTheCallerStops(t *testing.T) {
	for _, c := range []struct{ file, content string }{
		{"a.trace", "\x00\x00\x00\x07\x00\x00\x00\x07\x00"},
		{"a.lis", "1 5\n2 5\nbad\n"},
		{"a.txt", "x\ny\n1 2\n"},
	} {
		n := 0
		for _, err := range Read(write(t, c.file, c.content)) {
			if err != nil {
				t.Errorf("%s: got error %v before the second request", c.file, err)
			}
			if n++; n == 2 {
				break
			}
		}
		if n != 2 {
			t.Errorf("%s: got %d requests, want 2", c.file, n)
		}
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := Files(dir); err == nil || !strings.Contains(err.Error(), "no traces in "+dir) {
		t.Errorf("an empty folder: got error %v", err)
	}
	if _, err := Files(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("no folder: got error %v", err)
	}
	for _, name := range []string{"b.trace.xz", "a.lis", "cache2k-LICENSE.txt", "README.md", "README.txt", "c.tr.gz", "d.parquet", "e.json.gz"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "f.txt"), 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, Name(f))
	}
	if want := []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("got traces %v, want %v", got, want)
	}
	if got := Name("x/arc-P6.v2.lis.zst"); got != "arc-P6.v2" {
		t.Errorf("got name %q", got)
	}
}
