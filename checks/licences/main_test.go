package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRead checks which licences are taken: all files of a module must be known ones.
func TestRead(t *testing.T) {
	const (
		mit    = "MIT License\n\nCopyright (c) 2020 A\n\nPermission is hereby granted, free of\ncharge, to any person"
		apache = "Apache License\nVersion 2.0, January 2004"
	)
	for _, tc := range []struct {
		name  string
		files map[string]string
		kind  string // "": refused
	}{
		{"one", map[string]string{"LICENSE": mit}, "MIT"},
		{"a notice beside it", map[string]string{"LICENSE.txt": apache, "NOTICE": "A wrote this"}, "Apache-2.0"},
		{"another in a folder", map[string]string{"LICENSE": apache, "internal/x/LICENSE": mit}, "Apache-2.0, MIT"},
		{"none", map[string]string{"README": mit}, ""},
		{"an unknown one beside it", map[string]string{"LICENSE": mit, "COPYING": "You may not."}, ""},
		{"an unknown one in a folder", map[string]string{"LICENSE": mit, "x/LICENCE": "You may not."}, ""},
		{"one that quotes a known one", map[string]string{"LICENSE": "Business Source License 1.1\n\nChange License: Apache License, Version 2.0"}, ""},
		{"another one", map[string]string{"COPYING": "GNU AFFERO GENERAL PUBLIC LICENSE\n" + apache}, ""},
		{"one of test data", map[string]string{"LICENSE": mit, "testdata/COPYING": "You may not."}, "MIT"},
	} {
		dir := t.TempDir()
		for name, text := range tc.files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, kind, err := read(module{Path: "example.org/m", Dir: dir})
		if kind != tc.kind || (err == nil) != (tc.kind != "") {
			t.Errorf("%s: %q, %v, want %q", tc.name, kind, err, tc.kind)
		}
		if err == nil && !strings.Contains(text, "LICENSE") {
			t.Errorf("%s: %q", tc.name, text)
		}
	}
}
