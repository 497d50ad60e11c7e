package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestRun(t *testing.T) {
	file := func(lines ...string) string {
		name := filepath.Join(t.TempDir(), "history")
		text := `{"history":1,"bound":1000}` + "\n" + strings.Join(lines, "\n")
		testenv.Must(t, os.WriteFile(name, []byte(text), 0o600))
		return name
	}
	const (
		first  = `{"op":"set","key":"k","host":"a","number":1,"began":1,"ended":2}`
		second = `{"op":"set","key":"k","host":"a","number":2,"began":3,"ended":4}`
		right  = `{"op":"read","key":"k","host":"b","number":2,"began":9000,"ended":9001}`
		wrong  = `{"op":"read","key":"k","host":"b","number":1,"began":9000,"ended":9001}`
	)
	for _, tc := range []struct {
		name      string
		files     []string
		status    int
		out, errs string
	}{
		{"right", []string{file(first, second, right)}, 0, "3 operations: map[read done:1 set done:2]; 0 are wrong\n", ""},
		{"wrong", []string{file(first, second, wrong)}, 1, "the bound: read of k, number 1", ""},
		{"what ended it", []string{file(first, second, wrong)}, 1, "by: set of k, number 2, through a", ""},
		{"two files", []string{file(first, wrong), file(second)}, 1, "the bound: read of k, number 1", ""},
		{"excused", []string{file(first, second, wrong), file(`{"excuse":"split","from":8000,"to":9999}`)}, 0, "; 0 are wrong\n", ""},
		{"no reads", []string{file(first)}, 1, "; 0 are wrong\n", "proves nothing"},
		{"no files", nil, 1, "0 operations", "proves nothing"},
		{"not a history", []string{file("x")}, 2, "", "line 2: invalid character"},
		{"no such file", []string{"/no/such"}, 2, "", "/no/such: "},
	} {
		var out, errs bytes.Buffer
		if got := run(tc.files, &out, &errs); got != tc.status || !strings.Contains(out.String(), tc.out) || !strings.Contains(errs.String(), tc.errs) {
			t.Errorf("%s: status %d, want %d: %q, %q", tc.name, got, tc.status, out.String(), errs.String())
		}
	}
}
