package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// completing are command lines, of which the last word is to be completed, and what it may
// become. An empty last word stands for a new one.
var completing = []struct {
	words string
	want  string // with * if there may be more; "files" stands for the names of files
}{
	{"cachesidecar ge", "get"},
	{"cachesidecar de", "del delete demo"},
	{"cachesidecar d", "del delete demo*"},
	{"cachesidecar xyzzy", ""},
	{"cachesidecar compl", "completion"},
	{"cachesidecar --v", "--version"},
	{"cachesidecar get --js", "--json"},
	{"cachesidecar get k --js", "--json"},
	{"cachesidecar get --json k --js", ""},
	{"cachesidecar get --ns --js --js", "--json"},
	{"cachesidecar get -- --js", ""},
	{"cachesidecar get k", ""},
	{"cachesidecar mget --fr", "--fresh"},
	{"cachesidecar set k v --ack ", "all owner"},
	{"cachesidecar set k v --ack o", "owner"},
	{"cachesidecar set --ack=owner k v --re", "--replace"},
	{"cachesidecar run --log-level ", "debug error info warn"},
	{"cachesidecar run --partition-policy c", "consistent"},
	{"cachesidecar run --config ", "files"},
	{"cachesidecar run --config fi", "files"},
	{"cachesidecar warm ", "files"},
	{"cachesidecar config ", "check*"},
	{"cachesidecar config check ", "files"},
	{"cachesidecar members ", "forget*"},
	{"cachesidecar members forget --tim", "--timeout"},
	{"cachesidecar help mem", "members"},
	{"cachesidecar help members ", "forget*"},
	{"cachesidecar completion ", "bash fish zsh"},
	{"cachesidecar completion z", "zsh"},
	{"cachesidecar $(touch evil) --js", ""},
}

// TestCandidates checks them without a shell, and --flag=value, which shells divide in
// different ways.
func TestCandidates(t *testing.T) {
	for _, tc := range append(completing, []struct{ words, want string }{
		{"cachesidecar set --ack=", "--ack=all --ack=owner"},
		{"cachesidecar set --ack=a", "--ack=all"},
		{"cachesidecar run --pprof=", "--pprof=false --pprof=true"},
		{"cachesidecar run --config=fi", "files"},
		{"cachesidecar", ""},
	}...) {
		out := mustRun(t, append([]string{"complete", "fish"}, strings.Split(tc.words, " ")[1:]...)...)
		var got []string
		for line := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			got = append(got, strings.TrimPrefix(strings.ReplaceAll(word, ":files", "files"), ":"))
		}
		if !completes(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.words, got, tc.want)
		}
	}
	for words, want := range map[string]string{
		"set --ack =": "owner\nall\n", "set --ack = a": "all\n", "set --ack=a": "--ack=all\n", "set --ack = all --re": "--replace\n",
		"set k = --re": "--replace\n", "run --config = f": ":files\n",
	} {
		if got := mustRun(t, append([]string{"complete", "bash"}, strings.Fields(words)...)...); got != want {
			t.Errorf("bash: %q: %q, want %q", words, got, want)
		}
	}
}

// completes reports whether the words are those that are wanted.
func completes(got []string, want string) bool {
	want, open := strings.CutSuffix(want, "*")
	all := strings.Fields(want)
	slices.Sort(got)
	got = slices.Compact(got)
	if !open {
		return slices.Equal(got, all)
	}
	for _, w := range all {
		if !slices.Contains(got, w) {
			return false
		}
	}
	return true
}

// A driver loads a script, $1, and prints what the line $2… is completed to.
var drivers = map[string]string{
	"bash": `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cachesidecar; printf '%s\n' "${COMPREPLY[@]}"`,
	"zsh": `compdef() {}; _files() { print -l files }; _describe() { for f in $found; do print -r -- ${f%%:*}; done }
		script=$1; shift; words=("$@"); CURRENT=$#; source $script; _cachesidecar`,
	"fish": `source $argv[1]; complete -C (string join ' ' -- $argv[2..-1]) | string replace -r '\t.*' ''`,
}

// drive returns a shell that prints what words are completed to.
func drive(shell, script string, words []string) *exec.Cmd {
	options := map[string][]string{"bash": {"--norc"}, "zsh": {"-f"}, "fish": {"--no-config"}}[shell]
	args := append(slices.Clone(options), "-c", drivers[shell])
	if shell != "fish" { // which has no $0
		args = append(args, shell)
	}
	return exec.Command(shell, append(append(args, script), words...)...)
}

// TestLengthyShells loads the scripts into the shells, and lets these complete command lines.
func TestLengthyShells(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	for shell := range drivers {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				testenv.Needs(t, fmt.Sprintf("there is no %s: install it", shell))
			}
			dir := tempDir(t)
			script := filepath.Join(dir, "script")
			if err := os.WriteFile(script, []byte(mustRun(t, "completion", shell)), 0o600); err != nil {
				t.Fatal(err)
			}
			empty := filepath.Join(dir, "empty")
			if err := os.MkdirAll(filepath.Join(empty, "files"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, tc := range completing {
				if strings.Contains(tc.words, "$(") && shell == "fish" {
					continue // the driver's command line would be read as fish reads it
				}
				cmd := drive(shell, script, strings.Split(tc.words, " "))
				cmd.Dir = empty
				cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary())+":"+os.Getenv("PATH"), "HOME="+dir)
				out, err := cmd.CombinedOutput()
				if err != nil && shell != "fish" { // which may end with 1 after it has completed
					t.Fatalf("%q: %v\n%s", tc.words, err, out)
				}
				got := strings.Fields(strings.ReplaceAll(string(out), "files/", "files"))
				if !completes(got, tc.want) {
					t.Errorf("%q: %q, want %q", tc.words, got, tc.want)
				}
			}
			if left, err := os.ReadDir(empty); err != nil || len(left) != 1 {
				t.Errorf("the folder has %v, %v: something was executed", left, err)
			}
		})
	}
}

// TestCompletionScripts checks that the scripts are printed as they are, and that no other
// shell has one.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := mustRun(t, "completion", shell); !strings.Contains(got, fmt.Sprintf("complete %s ", shell)) {
			t.Errorf("%s: the script does not ask for its words:\n%s", shell, got)
		}
	}
	for _, shell := range []string{"tcsh", "", "..", "zsh/../x"} {
		o := command(t, "", "completion", shell)
		if o.status != exitUsage || !strings.Contains(o.err, fmt.Sprintf("completion %q: give bash, zsh or fish", shell)) {
			t.Errorf("%q: %v", shell, o)
		}
	}
}

// TestChoices checks that the values that are completed are those that flags take.
func TestChoices(t *testing.T) {
	takes := func(flag, value string) bool {
		if flag == "ack" {
			t.Setenv("CACHESIDECAR_SOCKET", filepath.Join(t.TempDir(), "absent"))
			return command(t, "", "set", "k", "v", "--ack", value).status == exitConnect
		}
		cfg, err := parseConfig([]byte(fileKey(flag) + ": " + value + "\njoin: ['127.0.0.1:1']\n"))
		if err == nil {
			_, err = cfg.logOptions(false)
		}
		if err == nil {
			err = cfg.Check()
		}
		return err == nil || strings.Contains(err.Error(), "there are no voters")
	}
	for flag, values := range choices {
		for _, v := range values {
			if !takes(flag, v) {
				t.Errorf("--%s does not take %s", flag, v)
			}
		}
		if takes(flag, "some") {
			t.Errorf("--%s takes everything", flag)
		}
		for path, c := range allCommands() {
			for _, f := range c.Flags {
				if f.Names()[0] != flag {
					continue
				}
				usage := f.(cli.DocGenerationFlag).GetUsage() + f.(cli.DocGenerationFlag).GetValue()
				for _, v := range values {
					if !strings.Contains(usage, v) {
						t.Errorf("%s --%s: the help does not tell of %s", path, flag, v)
					}
				}
			}
		}
	}
}
