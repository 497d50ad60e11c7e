// Command licences prints the licences of everything that is linked into a binary.
//
//	go run ./licences BINARY
//
// It reads the modules from the binary, and their licence files, also of folders, from the
// module cache. It fails if a module has none, or any that is not known to allow distribution
// with ours.
package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./licences BINARY")
		os.Exit(2)
	}
	text, err := licences(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
	_, _ = io.WriteString(os.Stdout, text)
}

// files match the names of files that belong to a licence; texts those that are one.
var (
	files = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents|authors)([._-].*)?$`)
	texts = regexp.MustCompile(`(?i)^(licen[cs]e|copying)`)
)

// kinds are the licences that are known, with a phrase of each.
var kinds = []struct{ name, phrase string }{
	{"Apache-2.0", "Apache License"},
	{"MPL-2.0", "Mozilla Public License"},
	{"MIT", "Permission is hereby granted, free of charge"},
	{"BSD", "Redistribution and use in source and binary forms"},
	{"ISC", "Permission to use, copy, modify, and/or distribute"},
}

// others match the head of licences that quote a known one, and ask for more.
var others = regexp.MustCompile(`(?i)GNU (\w+ )?general public|server side public|business source|elastic license|commons clause`)

// kindOf returns the name of a licence, or "".
func kindOf(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if others.MatchString(text[:min(len(text), 500)]) {
		return ""
	}
	for _, k := range kinds {
		if strings.Contains(text, k.phrase) {
			return k.name
		}
	}
	return ""
}

// module is a module, and where its source is.
type module struct {
	Path, Version, Dir string
	top                bool // only the licence of the top folder counts
}

// licences returns the licences of a binary's modules, and of Go itself.
func licences(binary string) (string, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return "", err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	list := []module{{"the Go standard library", info.GoVersion, strings.TrimSpace(string(root)), true}}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		m, err := download(d.Path + "@" + d.Version)
		if err != nil {
			return "", err
		}
		list = append(list, m)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "cachesidecar contains the following software of others, under the licences below.\n"+
		"The source of a module is at https://PATH, or from the Go module proxy, in the version that is named;\n"+
		"none was modified.\n\n")
	var texts strings.Builder
	for _, m := range list {
		text, kind, err := read(m)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  %-60s %-12s %s\n", m.Path+" "+m.Version, kind, "")
		fmt.Fprintf(&texts, "\n%s\n%s %s\n%s\n\n%s", strings.Repeat("=", 80), m.Path, m.Version, strings.Repeat("=", 80), text)
	}
	return regexp.MustCompile(`(?m) +$`).ReplaceAllString(b.String(), "") + texts.String(), nil
}

// download returns where the source of a module is.
func download(at string) (m module, err error) {
	cmd := exec.Command("go", "mod", "download", "-json", at)
	cmd.Dir = os.TempDir() // outside of any module
	out, err := cmd.Output()
	if err != nil {
		return m, fmt.Errorf("%s: %w: %s", at, err, bytes.TrimSpace(out))
	}
	return m, json.Unmarshal(out, &m)
}

// read returns the text and the kind of a module's licences.
func read(m module) (text, kind string, err error) {
	var all strings.Builder
	var found []string
	err = filepath.WalkDir(m.Dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != m.Dir && (e.Name() == "testdata" || m.top):
			return fs.SkipDir
		case !e.Type().IsRegular() || !files.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go"):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(m.Dir, path)
		switch k := kindOf(string(b)); {
		case k == "" && texts.MatchString(e.Name()):
			return fmt.Errorf("%s has a licence that is not known, %s: look at it, and add it to kinds if it may be linked", m.Path, name)
		case k != "" && !slices.Contains(found, k):
			found = append(found, k)
		}
		fmt.Fprintf(&all, "%s:\n\n%s\n\n", name, strings.TrimSpace(string(b)))
		return nil
	})
	if err != nil {
		return "", "", err
	}
	if len(found) == 0 {
		return "", "", errors.New(m.Path + " has no licence that is known")
	}
	return all.String(), strings.Join(found, ", "), nil
}
