package main

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestMan checks that the manual page has each command with its flags and its default, and
// no text that roff would read as control.
func TestMan(t *testing.T) {
	text := mustRun(t, "man")
	sections := map[string]string{}
	for _, part := range strings.Split(text, "\n.SS \"cachesidecar ")[1:] {
		title, rest, _ := strings.Cut(part, "\n")
		rest, _, _ = strings.Cut(rest, "\n.SH")
		sections[strings.Trim(title, `"`)] = rest
	}
	for name, c := range allCommands() {
		part, ok := sections[strings.TrimSpace(roff(name+" "+c.ArgsUsage))]
		if !ok {
			t.Errorf("there is no section about %s", name)
			continue
		}
		if !strings.Contains(part, roff(sentence(c.Usage))) {
			t.Errorf("%s: the section does not say what it does:\n%s", name, part)
		}
		for _, f := range c.Flags {
			if def := defaultOf(f); !strings.Contains(part, roff(def)) {
				t.Errorf("%s %v: the section does not tell the default %s", name, f.Names(), def)
			}
			for _, n := range f.Names() {
				if !strings.Contains(part, `\fB`+roff(dashed(n))+`\fR`) {
					t.Errorf("%s: the section does not tell of %s", name, dashed(n))
				}
			}
		}
	}
	known := regexp.MustCompile(`^\.((TH|SH|SS|TP)( "[^"]*")*|br|nh|ad l)$`)
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, ".") && !known.MatchString(line) ||
			strings.HasPrefix(line, "'") || strings.TrimSpace(line) == "" {
			t.Errorf("a line of control: %q", line)
		}
	}
}

// TestManInGroff checks that groff has nothing to say about the page.
func TestManInGroff(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		testenv.Needs(t, "there is no groff: install groff-base")
	}
	cmd := exec.Command(groff, "-man", "-Kutf8", "-ww", "-Tutf8", "-P-cbou")
	cmd.Stdin = strings.NewReader(mustRun(t, "man"))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || said.Len() > 0 || !strings.Contains(string(out), "EXIT STATUS") {
		t.Errorf("%v: %s", err, said.String())
	}
}

func TestRoff(t *testing.T) {
	var p page
	p.text(roff(".SH is no macro here\n'nor this\\n, --flag … \"said\""))
	p.macro("SH", `a "b" \`)
	want := "\\&.SH is no macro here\n\\&'nor this\\en, \\-\\-flag \\&... \"said\"\n" +
		".SH \"a \\(dqb\\(dq \\e\"\n"
	if p.String() != want {
		t.Errorf("%q\nwant %q", p.String(), want)
	}
}
