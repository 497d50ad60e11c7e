package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// inPage matches a command line in a page: in a line of a block, after a prompt or not, or in the
// middle of a sentence.
var (
	inFence    = regexp.MustCompile(`(?m)^(?:\$ )?cachesidecar ([a-z-].*)$`)
	indented   = regexp.MustCompile(`(?m)^    cachesidecar ([a-z-].*)$`)
	inSentence = regexp.MustCompile("`cachesidecar ([a-z-][^`]*)`")
	fenced     = regexp.MustCompile("(?ms)^```.*?^```")
	lineEnds   = regexp.MustCompile(`\s[#|&><;]|[)|]|…|\s\\$`) // what follows is not the command's
)

// TestPageCommands checks that each command line in the pages names a command that there is, with
// flags that it has.
func TestPageCommands(t *testing.T) {
	found := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/*.md", "benchmarks/*.md"} {
		pages, err := filepath.Glob(filepath.Join("../..", pattern))
		testenv.Must(t, err)
		for _, page := range pages {
			b, err := os.ReadFile(page)
			testenv.Must(t, err)
			for _, line := range commandLines(string(b)) {
				found++
				if wrong := wrongWith(line); wrong != "" {
					t.Errorf("%s: cachesidecar %s: %s", page, line, wrong)
				}
			}
		}
	}
	if found < 150 {
		t.Errorf("%d command lines, want 150 or more: the search is broken", found)
	}
}

func commandLines(page string) (list []string) {
	for _, m := range indented.FindAllStringSubmatch(page, -1) {
		list = append(list, m[1])
	}
	for _, block := range fenced.FindAllString(page, -1) {
		for _, m := range inFence.FindAllStringSubmatch(block, -1) {
			list = append(list, m[1])
		}
	}
	for _, m := range inSentence.FindAllStringSubmatch(fenced.ReplaceAllString(page, ""), -1) {
		list = append(list, strings.Join(strings.Fields(m[1]), " "))
	}
	return list
}

// wrongWith says what is wrong with a command line, if anything is.
func wrongWith(line string) string {
	if at := lineEnds.FindStringIndex(line); at != nil {
		line = line[:at[0]]
	}
	words := strings.Fields(strings.NewReplacer("[", " ", "]", " ", "'", "").Replace(line))
	if strings.HasPrefix(words[0], "-") {
		if !slices.Contains(flagNames((&program{}).app().Flags), strings.TrimLeft(words[0], "-")) && words[0] != "-v" {
			return "there is no such flag"
		}
		return ""
	}
	if words[0] == "help" { // of the library
		return ""
	}
	c := namedCommand((&program{}).app().Commands, words[0])
	if c == nil {
		return "there is no such command"
	}
	if len(c.Subcommands) > 0 && len(words) > 1 {
		if sub := namedCommand(c.Subcommands, words[1]); sub != nil {
			c = sub
		} else if len(c.Flags) == 0 {
			return "there is no such subcommand"
		}
	}
	for _, w := range words[1:] {
		if w == "--" {
			break
		}
		name, _, _ := strings.Cut(strings.TrimLeft(strings.TrimRight(w, ".,:"), "-"), "=")
		number := strings.Trim(name, "0123456789") == ""
		if strings.HasPrefix(w, "-") && !number && name != "help" && !slices.Contains(flagsOf(c), name) {
			return "it has no flag " + w
		}
	}
	return ""
}

func namedCommand(list []*cli.Command, name string) *cli.Command {
	for _, c := range list {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// flagsOf returns all names of a command's flags, the short ones too.
func flagsOf(c *cli.Command) (names []string) {
	for _, f := range c.Flags {
		names = append(names, f.Names()...)
	}
	return names
}
