package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	testenv.Must(t, err)
	return string(b)
}

var docFlag = regexp.MustCompile("`(?:[a-z ]*)--([a-z0-9-]+)")

// TestCLIDoc checks that docs/CLI.md has a section for each command, which describes
// exactly its flags, and that the page names each field of the JSON output.
func TestCLIDoc(t *testing.T) {
	doc := readDoc(t, "CLI.md")
	sections := map[string]string{}
	for _, part := range strings.Split(doc, "\n## ")[1:] {
		title, text, _ := strings.Cut(part, "\n")
		if strings.HasPrefix(title, "`") {
			sections[strings.Trim(title, "`")] = text
		}
	}
	shared := []string{"socket", "token-file", "timeout"} // described once, above
	everywhere := flagNames((&program{}).app().Flags)     // --version
	seen := map[string]bool{}
	check := func(name string, c *cli.Command) {
		seen[name] = true
		text, ok := sections[name]
		if !ok {
			t.Errorf("there is no section about %s", name)
			return
		}
		if !strings.Contains(text, "    cachesidecar "+name) {
			t.Errorf("%s: the section does not show how it is used", name)
		}
		var flags, told []string
		for _, f := range c.Flags {
			flags = append(flags, f.Names()...)
		}
		for _, m := range docFlag.FindAllStringSubmatch(text, -1) {
			told = append(told, m[1])
			if !slices.Contains(append(flags, everywhere...), m[1]) && !strings.Contains(text, "set --"+m[1]) && !strings.Contains(text, "flush --"+m[1]) {
				t.Errorf("%s: the section tells of --%s, which there is not", name, m[1])
			}
		}
		for _, f := range flags {
			if len(f) > 1 && !slices.Contains(told, f) && !slices.Contains(shared, f) && name != "run" &&
				!(name == "config show" && slices.Contains(runFlagNames(), f)) {
				t.Errorf("%s: the section does not tell of --%s", name, f)
			}
		}
	}
	for name, c := range allCommands() {
		check(name, c)
		for _, f := range c.Flags {
			asRun := name == "run" || name == "config show" && slices.Contains(runFlagNames(), f.Names()[0])
			if !asRun && !slices.Contains(shared, f.Names()[0]) && !tellsDefault(sections[name], f) {
				t.Errorf("%s: the row of --%s does not tell its default, %s", name, f.Names()[0], defaultOf(f))
			}
		}
	}
	for name := range sections {
		if !seen[name] {
			t.Errorf("there is a section about %q, which is no command", name)
		}
	}
	fields, err := os.ReadFile("../../docs/METRICS.md") // of the answer to STATS
	testenv.Must(t, err)
	for _, f := range jsonFields(t) {
		inStats := regexp.MustCompile(`[.` + "`]" + f + `(\[\])?[.` + "`]")
		if !strings.Contains(doc, "`"+f+"`") && !inStats.Match(fields) {
			t.Errorf("the pages do not tell of the JSON field %s", f)
		}
	}
	for _, want := range []string{"| 0 |", "| 1 |", "| 2 |", "| 3 |", "| 4 |", "CONFIG.md"} {
		if !strings.Contains(doc, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// defaultOf returns a flag's default as the help tells it.
func defaultOf(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if b, isBool := f.(*cli.BoolFlag); !ok || isBool && b.DisableDefaultText {
		return ""
	}
	return d.GetDefaultText()
}

// tellsDefault reports whether the row of a flag in a table has its default, if it has
// one. That of --ns is told once for all commands.
func tellsDefault(section string, f cli.Flag) bool {
	def := strings.Trim(defaultOf(f), `"`)
	if _, isNumber := f.(*cli.Uint64Flag); isNumber || def == "" || f.Names()[0] == "ns" {
		return true
	}
	if _, isNumber := f.(*cli.UintFlag); isNumber {
		return true // without a number there is no condition, or no mark
	}
	if n, err := strconv.ParseInt(def, 10, 64); err == nil {
		def = string(table.Count(n))
	}
	for line := range strings.Lines(section) {
		if begin := "| `--" + f.Names()[0]; strings.HasPrefix(line, begin+" ") || strings.HasPrefix(line, begin+"`") {
			words := regexp.MustCompile("(^|[ `])" + regexp.QuoteMeta(def) + "($|[ ,`])")
			return words.MatchString(line)
		}
	}
	return false
}

// TestCLIDocJSON checks that docs/CLI.md lists exactly the commands without --json.
func TestCLIDocJSON(t *testing.T) {
	_, list, _ := strings.Cut(readDoc(t, "CLI.md"), "All commands have it, except ")
	list, _, ok := strings.Cut(list, ":")
	if !ok {
		t.Fatal("the page does not list the commands without --json")
	}
	var told, want []string
	for _, m := range regexp.MustCompile("`([a-z ]+)`").FindAllStringSubmatch(list, -1) {
		told = append(told, m[1])
	}
	for name, c := range allCommands() {
		if !slices.Contains(flagNames(c.Flags), "json") {
			want = append(want, name)
		}
	}
	slices.Sort(told)
	slices.Sort(want)
	if !slices.Equal(told, want) {
		t.Errorf("the page lists %q as commands without --json, want %q", told, want)
	}
}

// allCommands returns the commands that do something, by name, such as "config check".
func allCommands() map[string]*cli.Command {
	all := map[string]*cli.Command{}
	for _, c := range (&program{}).app().Commands {
		if c.Name == "complete" { // for the scripts of completion alone
			continue
		}
		if len(c.Subcommands) == 0 || len(c.Flags) > 0 {
			all[c.Name] = c
		}
		for _, sub := range c.Subcommands {
			all[c.Name+" "+sub.Name] = sub
		}
	}
	return all
}

func runFlagNames() []string { return flagNames(runCommand(&program{}).Flags) }
