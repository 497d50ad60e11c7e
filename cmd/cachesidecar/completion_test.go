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

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// completing are command lines, of which the last word is to be completed, and what it may become. An empty last word
// stands for a new one. The shell completes other words with names of files: there is one, "files".
var completing = []struct {
	words string
	want  string // with * if there may be more
}{
	{"cachesidecar ge", "get"},
	{"cachesidecar de", "del delete demo"},
	{"cachesidecar d", "del delete demo drain"},
	{"cachesidecar compl", "completion"},
	{"cachesidecar --v", "--version"},
	{"cachesidecar get --js", "--json"},
	{"cachesidecar get --", "--json --ns*"},
	{"cachesidecar get k --js", "--json"},
	{"cachesidecar del -- k", ""},
	{"cachesidecar mget --fr", "--fresh"},
	{"cachesidecar set --ack=owner k v --re", "--replace"},
	{"cachesidecar run --config fi", "files"},
	{"cachesidecar config ", "check show*"},
	{"cachesidecar config check fi", "files"},
	{"cachesidecar members ", "forget*"},
	{"cachesidecar members forget --tim", "--timeout"},
	{"cachesidecar $(touch evil) --js", ""},
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
	"bash": `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cachesidecar
		[[ ${COMPREPLY[*]} ]] || COMPREPLY=($(compgen -f -- "${!#}")); printf '%s\n' "${COMPREPLY[@]}"`,
	"zsh": `compdef() {}; _files() { print -l -- ${words[CURRENT]}*(N) }
		_describe() { for f in ${(M)found:#${words[CURRENT]}*}; do print -r -- ${f%%:*}; done }
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
			testenv.Must(t, os.WriteFile(script, []byte(mustRun(t, "completion", shell)), 0o600))
			empty := filepath.Join(dir, "empty")
			testenv.Must(t, os.MkdirAll(filepath.Join(empty, "files"), 0o700))
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

// TestCompletionOfOtherShells checks that no other shell has a script.
func TestCompletionOfOtherShells(t *testing.T) {
	for _, shell := range []string{"tcsh", "", "..", "zsh/../x"} {
		o := command(t, "", "completion", shell)
		if o.status != exitUsage || !strings.Contains(o.err, fmt.Sprintf("completion %q: give bash, zsh or fish", shell)) {
			t.Errorf("%q: %v", shell, o)
		}
	}
}

// TestCompletionRunsNothing checks that no command is run for a completion.
func TestCompletionRunsNothing(t *testing.T) {
	serveHere(t)
	mustRun(t, "set", "k", "v")
	for _, line := range []string{"del k", "del -- k", "del --ns default -- k", "flush --yes"} {
		t.Setenv("_CACHESIDECAR_COMPLETES", "1")
		_ = command(t, "", append(strings.Fields(line), "--generate-bash-completion")...)
	}
	if got := mustRun(t, "get", "k"); got != "v" {
		t.Errorf("%q", got)
	}
	t.Setenv("_CACHESIDECAR_COMPLETES", "")
	mustRun(t, "set", "k", "--", "--generate-bash-completion")
	if got := mustRun(t, "get", "k"); got != "--generate-bash-completion" {
		t.Errorf("without a script the flag is a value like others, and k is %q", got)
	}
}
