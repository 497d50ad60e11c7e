package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestMan checks that the manual page has each command with its arguments, its flags and its description.
func TestMan(t *testing.T) {
	text := strings.NewReplacer(`\-`, "-", `\&`, "", `\fB`, "", `\fP`, "").Replace(mustRun(t, "man"))
	for name, c := range allCommands() {
		_, part, ok := strings.Cut(text, strings.TrimSpace("cachesidecar "+name+" [FLAGS] "+c.ArgsUsage)+"\n")
		if !ok && !c.Hidden {
			t.Errorf("the page does not say how %s is used", name)
			continue
		}
		for _, f := range flagNames(c.Flags) {
			if !strings.Contains(part, "-"+f) {
				t.Errorf("%s: the page does not tell of --%s", name, f)
			}
		}
		if line, _, _ := strings.Cut(c.Description, "\n"); !strings.Contains(part, line) && !c.Hidden {
			t.Errorf("%s: the page does not describe it:\n%s", name, part)
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
	if err != nil || said.Len() > 0 || !strings.Contains(string(out), "Exit status") {
		t.Errorf("%v: %s", err, said.String())
	}
}
